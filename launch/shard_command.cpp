// launch/shard_command.cpp -- what is in a token shard, every byte of it checked.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "data/shards/shard.h"
#include "data/tokenizer/tokenizer.h"
#include "launch/commands.h"
#include "launch/progress.h"
#include "trainer/loop/exit_code.h"

namespace sluice::launch {

namespace {

constexpr int64_t kHeadTokens = 64;

class Lengths {  // of documents, in tokens
 public:
  explicit Lengths(const ShardReader& shard) : documents_(shard.documents()) {
    std::vector<int64_t> page(size_t(kPage) + 1);
    for (int64_t first = 0; first < documents_; first += kPage) {
      const int64_t n = std::min(kPage, documents_ - first);
      shard.read_offsets(first, n + 1, page.data());
      for (size_t d = 0; d < size_t(n); ++d) ++counts_[page[d + 1] - page[d]];
    }
  }
  // The smallest length that this share of the documents does not exceed.
  int64_t quantile(double share) const {
    int64_t seen = 0;
    for (const auto& [length, count] : counts_)
      if (seen += count; double(seen) >= share * double(documents_)) return length;
    return 0;
  }
  // How many have 2^k to 2^(k+1) - 1 tokens.
  std::map<int64_t, int64_t> by_doubling() const {
    std::map<int64_t, int64_t> out;
    for (const auto& [length, count] : counts_) {
      int64_t from = 1;
      while (2 * from <= length) from *= 2;
      out[from] += count;
    }
    return out;
  }

 private:
  static constexpr int64_t kPage = 65536;
  int64_t documents_;
  std::map<int64_t, int64_t> counts_;
};

void verify(const ShardReader& shard) {
  Progress bar("verified");
  std::vector<int32_t> tokens(static_cast<size_t>(kShardChunk));
  std::vector<int64_t> offsets;
  int64_t document = 1;  // of the offsets, the first above `at`
  const int64_t width = shard.info().vocab_size <= 65536 ? 2 : 4;
  for (int64_t at = 0; at < shard.tokens(); at += kShardChunk) {
    const int64_t n = std::min(kShardChunk, shard.tokens() - at);
    shard.read(at, n, tokens.data());
    // The chunk's documents, by the table of chunks, are all that end in it.
    const std::vector<int64_t> ends = shard.document_ends(at, at + n);
    const auto count = int64_t(ends.size());
    offsets.resize(size_t(std::min(count + 1, shard.documents() + 1 - document)));
    shard.read_offsets(document, int64_t(offsets.size()), offsets.data());
    const auto is_end = [&](int64_t offset) { return offset <= at + n; };
    const int64_t want = std::count_if(offsets.begin(), offsets.end(), is_end);
    if (count != want || !std::equal(ends.begin(), ends.end(), offsets.begin()))
      throw Error(cat(shard.path(), ": chunk_documents: tokens ", at, " to ", at + n,
                      ": expected the ends of documents that document_offsets has there, found "
                      "others"));
    document += count;
    bar.show(at + n, shard.tokens(), width * (at + n));
  }
}

std::string head_of(const ShardReader& shard, const std::string& path) {
  const Tokenizer tokenizer = Tokenizer::load(path);
  if (tokenizer.fingerprint() != shard.info().tokenizer)
    throw Error(cat(path, ": expected the tokenizer ", shard.info().tokenizer, " of ", shard.path(),
                    ", found ", tokenizer.fingerprint()));
  if (shard.documents() == 0) return "";
  std::vector<int64_t> ends = shard.document_ends(0, std::min(shard.tokens(), kHeadTokens));
  std::vector<int32_t> ids(size_t(ends.empty() ? std::min(shard.tokens(), kHeadTokens) : ends[0]));
  shard.read(0, int64_t(ids.size()), ids.data());
  return tokenizer.decode(ids);
}

void show(const InspectShard& c, const ShardReader& shard, const Lengths& lengths) {
  const auto bytes = std::filesystem::file_size(shard.path());
  const std::string head = c.tokenizer.empty() ? "" : head_of(shard, c.tokenizer);
  const auto histogram = lengths.by_doubling();
  if (c.json) {
    nlohmann::json out{{"path", shard.path()},
                       {"documents", shard.documents()},
                       {"tokens", shard.tokens()},
                       {"text_bytes", shard.text_bytes()},
                       {"file_bytes", bytes},
                       {"vocab_size", shard.info().vocab_size},
                       {"tokenizer", shard.info().tokenizer},
                       {"document_tokens",
                        {{"p50", lengths.quantile(0.5)},
                         {"p90", lengths.quantile(0.9)},
                         {"max", lengths.quantile(1)}}},
                       {"document_tokens_from", nlohmann::json::object()}};
    for (const auto& [from, count] : histogram)
      out["document_tokens_from"][std::to_string(from)] = count;
    if (!c.tokenizer.empty()) out["first_document"] = head;
    fmt::print("{}\n", out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    return;
  }
  fmt::print(
      "{}: {} documents, {} tokens, {} bytes of text, {} bytes of file, vocabulary {}, tokenizer "
      "{}; every checksum is right\n",
      shard.path(), shard.documents(), shard.tokens(), shard.text_bytes(), bytes,
      shard.info().vocab_size, shard.info().tokenizer);
  fmt::print("tokens of a document: half have at most {}, 90% at most {}, the longest has {}\n",
             lengths.quantile(0.5), lengths.quantile(0.9), lengths.quantile(1));
  int64_t most = 1;
  for (const auto& [from, count] : histogram) most = std::max(most, count);
  for (const auto& [from, count] : histogram)
    fmt::print("{:>12} to {:<12} {:>10}  {}\n", from, 2 * from - 1, count,
               std::string(size_t((count * 40 + most - 1) / most), '#'));
  if (!c.tokenizer.empty()) fmt::print("the first document begins:\n{}\n", head);
}

}  // namespace

void inspect_shard(const InspectShard& c) {
  with_code(ExitCode::data, [&] {
    const ShardReader shard(c.path);
    verify(shard);
    show(c, shard, Lengths(shard));
  });
}

}  // namespace sluice::launch
