// data/encode/encode.cpp -- blocks -> tokens -> OUT.partial -> shards.
#include "data/encode/encode.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <optional>

#include "data/encode/cut_check.h"
#include "data/encode/partial.h"
#include "data/encode/pipeline.h"
#include "data/text/documents.h"
#include "data/tokenizer/encoder.h"
#include "data/tokenizer/utf8.h"
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

// JSON holds UTF-8 only, file names are any bytes: all others than ASCII of such a one as \xNN.
std::string as_utf8(const std::string& s) {
  if (utf8_run(s, 0) == s.size()) return s;
  std::string out;
  for (const char c : s) {
    const auto byte = uint8_t(c);
    if (byte < 0x80)
      out += c;
    else
      out += {'\\', 'x', "0123456789abcdef"[byte >> 4], "0123456789abcdef"[byte & 15]};
  }
  return out;
}

// Whether a stream is the one that an earlier run read is seen by reading it up to where that one
// stood: one that was done by then would not be read at all.
void check_streams(const std::vector<InputFile>& inputs) {
  for (size_t i = 0; i + 1 < inputs.size(); ++i)
    if (inputs[i].stream)
      throw Error(cat(inputs[i].path == "-" ? "standard input" : inputs[i].path,
                      ": expected standard input or a pipe to be the last input, found ",
                      inputs.size() - 1 - i, " after it"));
}

// All that the result depends on.
nlohmann::json describe(const EncodeJob& job, const Tokenizer& tokenizer) {
  nlohmann::json inputs = nlohmann::json::array();
  for (const InputFile& f : job.inputs)
    inputs.push_back({{"path", as_utf8(f.path)},
                      {"json_lines", f.format == TextFormat::json_lines},
                      {"bytes", f.bytes},
                      {"modified_ns", f.modified_ns},
                      {"crc32_of_its_head", f.head_crc}});
  return {{"work_format", 1},
          {"tokenizer", tokenizer.fingerprint()},
          {"field", as_utf8(job.text.field)},
          {"split_at_blank_lines", job.text.split == TextSplit::blank_lines},
          {"held_out_by", int(job.hold_out.by)},
          {"held_out_fraction", job.hold_out.fraction},
          {"held_out_seed", job.hold_out.seed},
          {"held_out_shard", as_utf8(job.held_out_out)},
          {"inputs", std::move(inputs)}};
}

class BlockEncoder {
 public:
  BlockEncoder(const EncodeJob& job, const Tokenizer& tokenizer)
      : job_(job), tokenizer_(tokenizer), encoder_(tokenizer), check_cut_(tokenizer) {}

  Encoded operator()(const Block& block) {
    Encoded out;
    out.file_bytes = block.file_bytes;
    out.end = block.end;
    for_each_piece(block, job_.inputs, job_.text, job_.hold_out, [&](const Piece& p) {
      check_cut_(p, block, job_.inputs);
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
  CutCheck check_cut_;
};

// Not of the inputs: what is encoded is still right.
struct OutputError : Error {
  using Error::Error;
};
template <class F>
void writing(F f) {
  try {
    f();
  } catch (const Error& e) {
    throw OutputError(e.what());
  }
}

// Returns whether it came to the end of the inputs.
bool encode_blocks(const EncodeJob& job, const Tokenizer& tokenizer, BlockReader& reader,
                   Partial& partial, const std::function<void(const EncodeProgress&)>& progress,
                   const std::function<bool()>& stop) {
  using Clock = std::chrono::steady_clock;
  auto committed = Clock::now();
  bool stopped = false;
  int64_t text_bytes = partial.text_bytes();
  Place end = partial.place();
  const auto store = [&](const Encoded& e) {
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
  };
  const auto take = [&](const Encoded& e) {
    writing([&] { store(e); });
    const Partial::Side &kept = partial.side(false), &held_out = partial.side(true);
    if (progress)
      progress({e.file_bytes, text_bytes, kept.documents + held_out.documents,
                kept.tokens + held_out.tokens});
    return !stopped;
  };
  ordered_pipeline<Block, Encoded>(
      job.threads, [&](Block& b) { return reader.next(b); },
      [&] { return BlockEncoder(job, tokenizer); }, take);
  if (!stopped) writing([&] { partial.commit(end, text_bytes); });
  return !stopped;
}

// Text never becomes a special token, so an end_of_text is where a document begins.
EncodeProgress fill_shard(ShardWriter& writer, int32_t end_of_text, const Partial& partial,
                          bool held_out) {
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
  SLUICE_CHECK(writer.documents() == partial.side(held_out).documents, writer.documents(),
               " documents, expected ", partial.side(held_out).documents);
  return {.text_bytes = writer.text_bytes(),
          .documents = writer.documents(),
          .tokens = writer.tokens()};
}

// Neither gets its name before both are filled.
void write_shards(const EncodeJob& job, const Tokenizer& tokenizer, const Partial& partial,
                  EncodeResult& result) {
  const ShardInfo info = shard_info(tokenizer);
  ShardWriter kept(job.out, info);
  std::optional<ShardWriter> held_out;
  if (!job.held_out_out.empty()) held_out.emplace(job.held_out_out, info);
  result.kept = fill_shard(kept, info.end_of_text, partial, false);
  if (held_out) {
    result.held_out = fill_shard(*held_out, info.end_of_text, partial, true);
    held_out->finish();
  }
  kept.finish();
}

// Before hours of encoding, not after.
void check_writable(const std::string& path, const ShardInfo& info) {
  std::error_code none;
  if (std::filesystem::is_directory(path, none))
    throw Error(cat(path, ": expected a file, is a folder"));
  ShardWriter(path, info);  // its temporary file goes with it
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
  check_streams(job.inputs);
  Partial partial(job.out, describe(job, tokenizer), tokenizer.vocab_size() <= 65536);
  EncodeResult result;
  result.resumed_at = partial.text_bytes();
  std::optional<BlockReader> reader;
  try {
    check_writable(job.out, shard_info(tokenizer));
    if (split) check_writable(job.held_out_out, shard_info(tokenizer));
  } catch (...) {
    if (!partial.resumed()) partial.remove();
    throw;
  }
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
    writing([&] { write_shards(job, tokenizer, partial, result); });
  } catch (const OutputError& e) {
    if (partial.committed())
      throw Error(cat(e.what(), ". What is encoded is kept in ", partial.folder(),
                      ": the same command goes on."));
    partial.remove();
    throw;
  } catch (...) {
    partial.remove();
    throw;
  }
  partial.remove();
  result.finished = true;
  return result;
}

}  // namespace sluice
