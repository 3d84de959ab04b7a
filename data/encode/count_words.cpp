// data/encode/count_words.cpp -- a table a block, added up in order.
#include "data/encode/count_words.h"

#include "data/encode/cut_check.h"
#include "data/encode/pipeline.h"
#include "data/text/documents.h"
#include "data/tokenizer/pretokenizer.h"

namespace sluice {

CountedWords count_words(const std::vector<InputFile>& inputs, const TextOptions& options,
                         const HoldOut& hold_out, const std::string& pattern, int threads,
                         const std::function<void(int64_t, int64_t)>& progress) {
  struct Counted {
    CountedWords words;
    int64_t file_bytes = 0;
  };
  BlockReader reader(inputs, options, hold_out);
  const PreTokenizer cut(pattern);
  const CutCheck check_cut(cut.pattern());
  const auto make_worker = [&] {
    return [&, matcher = std::make_unique<PreTokenizer::Matcher>(cut)](const Block& block) {
      Counted out{.words = {}, .file_bytes = block.file_bytes};
      for_each_piece(block, inputs, options, hold_out, [&](const Piece& p) {
        check_cut(p, block, inputs);
        if (p.held_out) return;
        out.words.documents += p.begins;
        out.words.text_bytes += int64_t(p.text.size());
        matcher->split(p.text, [&](std::string_view w) { ++out.words.counts[std::string(w)]; });
      });
      return out;
    };
  };
  CountedWords all;
  ordered_pipeline<Block, Counted>(
      threads, [&](Block& b) { return reader.next(b); }, make_worker,
      [&](const Counted& c) {
        for (const auto& [word, count] : c.words.counts) all.counts[word] += count;
        all.documents += c.words.documents;
        all.text_bytes += c.words.text_bytes;
        if (progress) progress(c.file_bytes, all.text_bytes);
        return true;
      });
  return all;
}

}  // namespace sluice
