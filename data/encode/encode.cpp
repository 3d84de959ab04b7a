// data/encode/encode.cpp -- blocks -> tokens -> OUT.partial -> shards.
#include "data/encode/encode.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <optional>

#include "data/encode/partial.h"
#include "data/encode/pipeline.h"
#include "data/text/documents.h"
#include "data/tokenizer/encoder.h"
#include "kernels/base/check.h"

namespace sluice {

namespace {

struct Encoded {
  struct Side {
    std::vector<int32_t> ids;
    int64_t documents = 0;
  };
  std::array<Side, 2> sides;  // kept, held out
  int64_t text_bytes = 0, file_bytes = 0;
  Place end;
};

// All that the result depends on.
nlohmann::json describe(const EncodeJob& job, const Tokenizer& tokenizer) {
  nlohmann::json inputs = nlohmann::json::array();
  for (const InputFile& f : job.inputs)
    inputs.push_back({{"path", f.path},
                      {"json_lines", f.format == TextFormat::json_lines},
                      {"bytes", f.bytes},
                      {"modified_ns", f.modified_ns},
                      {"crc32_of_its_head", f.head_crc}});
  return {{"work_format", 1},
          {"tokenizer", tokenizer.fingerprint()},
          {"field", job.text.field},
          {"split_at_blank_lines", job.text.split == TextSplit::blank_lines},
          {"held_out_by", int(job.hold_out.by)},
          {"held_out_fraction", job.hold_out.fraction},
          {"held_out_seed", job.hold_out.seed},
          {"held_out_shard", job.held_out_out},
          {"inputs", std::move(inputs)}};
}

class BlockEncoder {
 public:
  BlockEncoder(const EncodeJob& job, const Tokenizer& tokenizer)
      : job_(job),
        tokenizer_(tokenizer),
        encoder_(tokenizer),
        cuttable_(std::count(std::begin(kCuttablePatterns), std::end(kCuttablePatterns),
                             tokenizer.pattern()) > 0) {}

  Encoded operator()(const Block& block) {
    Encoded out;
    out.file_bytes = block.file_bytes;
    out.end = block.end;
    for_each_piece(block, job_.inputs, job_.text, job_.hold_out, [&](const Piece& p) {
      if (!cuttable_ && !(p.begins && p.ends))
        throw Error(cat(job_.inputs[size_t(block.begin.input)].path, ": byte ", block.begin.byte,
                        ": a document longer than a block (", BlockReader::kBlockBytes,
                        " bytes) is cut, which is known to be right for the published "
                        "pre-tokenizers only, not for: ",
                        tokenizer_.pattern()));
      Encoded::Side& side = out.sides[p.held_out];
      if (p.begins) {
        side.ids.push_back(tokenizer_.end_of_text());
        ++side.documents;
      }
      encoder_.encode(p.text, side.ids);
      out.text_bytes += int64_t(p.text.size());
    });
    return out;
  }

 private:
  const EncodeJob& job_;
  const Tokenizer& tokenizer_;
  Encoder encoder_;
  bool cuttable_;
};

// Returns whether it came to the end of the inputs.
bool encode_blocks(const EncodeJob& job, const Tokenizer& tokenizer, BlockReader& reader,
                   Partial& partial, const std::function<void(const EncodeProgress&)>& progress,
                   const std::function<bool()>& stop) {
  using Clock = std::chrono::steady_clock;
  auto committed = Clock::now();
  bool stopped = false;
  int64_t text_bytes = partial.text_bytes();
  Place end = partial.place();
  const auto take = [&](const Encoded& e) {
    for (const bool held_out : {false, true})
      partial.append(held_out, e.sides[held_out].ids, e.sides[held_out].documents);
    text_bytes += e.text_bytes;
    end = e.end;
    stopped = stop && stop();
    if (stopped ||
        std::chrono::duration<double>(Clock::now() - committed).count() >= job.commit_seconds) {
      partial.commit(end, text_bytes);
      committed = Clock::now();
    }
    const Partial::Side &kept = partial.side(false), &held_out = partial.side(true);
    if (progress)
      progress({e.file_bytes, text_bytes, kept.documents + held_out.documents,
                kept.tokens + held_out.tokens});
    return !stopped;
  };
  ordered_pipeline<Block, Encoded>(
      job.threads, [&](Block& b) { return reader.next(b); },
      [&] { return BlockEncoder(job, tokenizer); }, take);
  if (!stopped) partial.commit(end, text_bytes);
  return !stopped;
}

// Text never becomes a special token, so an end_of_text is where a document begins.
EncodeProgress write_shard(const std::string& path, const Tokenizer& tokenizer,
                           const Partial& partial, bool held_out) {
  const int32_t end_of_text = tokenizer.end_of_text();
  ShardWriter writer(path, shard_info(tokenizer));
  partial.read(held_out, [&](std::span<const int32_t> ids) {
    for (size_t at = 0; at < ids.size();) {
      if (ids[at] == end_of_text) {
        writer.begin_document();
        ++at;
      }
      const auto end = std::find(ids.begin() + int64_t(at), ids.end(), end_of_text);
      const auto n = size_t(end - ids.begin()) - at;
      writer.add_tokens(ids.subspan(at, n));
      at += n;
    }
  });
  SLUICE_CHECK(writer.documents() == partial.side(held_out).documents, path, ": ",
               writer.documents(), " documents, expected ", partial.side(held_out).documents);
  writer.finish();
  return {.text_bytes = writer.text_bytes(),
          .documents = writer.documents(),
          .tokens = writer.tokens()};
}

void check_sides(const EncodeJob& job, const Partial& partial) {
  const int64_t kept = partial.side(false).documents, held_out = partial.side(true).documents;
  if (kept + held_out == 0) throw Error(cat(job.inputs.front().path, ": no document in it"));
  const bool split = job.hold_out.by != HoldOut::By::nothing;
  if (split && (kept == 0 || held_out == 0))
    throw Error(cat("of ", kept + held_out, " documents, ", held_out, " would be held out (share ",
                    job.hold_out.fraction, "): expected some on both sides"));
}

}  // namespace

ShardInfo shard_info(const Tokenizer& tokenizer) {
  ShardInfo info{.vocab_size = tokenizer.vocab_size(),
                 .end_of_text = tokenizer.end_of_text(),
                 .tokenizer = tokenizer.fingerprint()};
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id)
    info.token_bytes.push_back(uint32_t(tokenizer.token_bytes(id).size()));
  return info;
}

EncodeResult encode(const EncodeJob& job, const Tokenizer& tokenizer,
                    const std::function<void(const EncodeProgress&)>& progress,
                    const std::function<bool()>& stop) {
  SLUICE_CHECK(!job.inputs.empty() && job.threads > 0, job.inputs.size(), " inputs, ", job.threads,
               " threads");
  const bool split = job.hold_out.by != HoldOut::By::nothing;
  SLUICE_CHECK(split == !job.held_out_out.empty() && job.out != job.held_out_out,
               "the held-out documents need a shard of their own");
  Partial partial(job.out, describe(job, tokenizer), tokenizer.vocab_size() <= 65536);
  EncodeResult result;
  result.resumed_at = partial.text_bytes();
  std::optional<BlockReader> reader;
  try {
    reader.emplace(job.inputs, job.text, job.hold_out, partial.place());
  } catch (const Error& e) {
    if (!partial.resumed()) partial.remove();
    throw Error(partial.resumed() ? cat(e.what(), ". Remove ", partial.folder(), " to start over.")
                                  : e.what());
  }
  try {
    if (!encode_blocks(job, tokenizer, *reader, partial, progress, stop)) return result;
    check_sides(job, partial);
    result.kept = write_shard(job.out, tokenizer, partial, false);
    if (split) result.held_out = write_shard(job.held_out_out, tokenizer, partial, true);
  } catch (...) {
    partial.remove();
    throw;
  }
  partial.remove();
  result.finished = true;
  return result;
}

}  // namespace sluice
