// trainer/eval/needle.cpp -- documents with a needle, and the grid of what was found.
#include "trainer/eval/needle.h"

#include <fmt/format.h>

#include <cmath>

#include "kernels/tensor/rng.h"

namespace sluice {

namespace {

constexpr const char* kCities[] = {"Lisbon", "Oslo",   "Cairo",  "Lima",   "Quito", "Dakar",
                                   "Hanoi",  "Sofia",  "Havana", "Riga",   "Tunis", "Delhi",
                                   "Boston", "Geneva", "Naples", "Bergen", "Perth", "Kyoto"};
constexpr int64_t kNearTokens = 64;

bool ends_sentence(const Tokenizer& tokenizer, int32_t id) {
  const std::string& bytes = tokenizer.token_bytes(id);
  return !bytes.empty() && std::string(".!?\n").find(bytes.back()) != std::string::npos;
}

Continuation make_needle(const Tokenizer& tokenizer, Encoder& encoder,
                         const std::vector<int32_t>& haystack, int64_t length, double depth,
                         uint64_t key, const std::string& name) {
  const std::string city = kCities[random_u64(key, 0) % std::size(kCities)];
  const std::string number = std::to_string(1000000 + random_u64(key, 1) % 9000000);
  const std::vector<int32_t> needle =
      encoder.encode(cat(" The magic number of ", city, " is ", number, "."));
  const Continuation asked = make_continuation(
      encoder, tokenizer.end_of_text(),
      cat("\nWhat is the magic number of ", city, "? The magic number of ", city, " is"),
      " " + number, name);
  const int64_t others = int64_t(needle.size() + asked.tokens.size()), room = length - others;
  if (room < 0)
    throw Error(cat("needle, --lengths ", length, ": needle and question have ", others,
                    " tokens without any haystack"));
  if (room > int64_t(haystack.size()))
    throw Error(cat("needle, --lengths ", length, ": needs ", room, " tokens of haystack, it has ",
                    haystack.size(), ": give a longer text"));
  const auto begin = int64_t(random_u64(key, 2) % uint64_t(int64_t(haystack.size()) - room + 1));
  const int64_t at = std::llround(depth * double(room));
  int64_t cut = at;
  while (cut > 0 && at - cut < kNearTokens &&
         !ends_sentence(tokenizer, haystack[size_t(begin + cut) - 1]))
    --cut;
  if (at - cut == kNearTokens) cut = at;

  Continuation c{.tokens = {asked.tokens.front()}, .begin = 0, .name = name};
  const auto from = haystack.begin() + begin;
  c.tokens.insert(c.tokens.end(), from, from + cut);
  c.tokens.insert(c.tokens.end(), needle.begin(), needle.end());
  c.tokens.insert(c.tokens.end(), from + cut, from + room);
  c.begin = int64_t(c.tokens.size()) + asked.begin - 1;
  c.tokens.insert(c.tokens.end(), asked.tokens.begin() + 1, asked.tokens.end());
  return c;
}

}  // namespace

std::vector<Continuation> make_needles(const Tokenizer& tokenizer,
                                       const std::vector<int32_t>& haystack,
                                       const NeedleOptions& options) {
  Encoder encoder(tokenizer);
  std::vector<Continuation> list;
  for (const int64_t length : options.lengths)
    for (const double depth : options.depths)
      for (int64_t trial = 0; trial < options.trials; ++trial) {
        const std::string name =
            fmt::format("needle of {} tokens at {}, trial {}", length, depth, trial);
        list.push_back(make_needle(tokenizer, encoder, haystack, length, depth,
                                   rng_key(options.seed, name), name));
      }
  return list;
}

NeedleGrid grade(const NeedleOptions& options, const std::vector<ContinuationScore>& scores) {
  NeedleGrid grid;
  auto score = scores.begin();
  for (size_t l = 0; l < options.lengths.size(); ++l) {
    grid.emplace_back();
    for (size_t d = 0; d < options.depths.size(); ++d) {
      NeedleCell cell;
      double nats = 0;
      for (int64_t t = 0; t < options.trials; ++t, ++score) {
        cell.exact.add(score->exact());
        cell.tokens.right += score->predicted;
        cell.tokens.total += score->tokens;
        nats -= score->log_likelihood;
      }
      cell.loss = nats / double(cell.tokens.total);
      grid.back().push_back(cell);
    }
  }
  return grid;
}

nlohmann::ordered_json to_json(const NeedleOptions& options, const NeedleGrid& grid) {
  nlohmann::ordered_json accuracy, tokens, loss;
  for (const auto& row : grid) {
    nlohmann::ordered_json a, t, l;
    for (const NeedleCell& cell : row) {
      a.push_back(cell.exact.value());
      t.push_back(cell.tokens.value());
      l.push_back(cell.loss);
    }
    accuracy.push_back(a);
    tokens.push_back(t);
    loss.push_back(l);
  }
  return {{"kind", "needle"},         {"lengths", options.lengths}, {"depths", options.depths},
          {"trials", options.trials}, {"seed", options.seed},       {"accuracy", accuracy},
          {"token_accuracy", tokens}, {"answer_loss", loss}};
}

static std::string table(const NeedleOptions& options, const NeedleGrid& grid, const char* title,
                         double (*value)(const NeedleCell&)) {
  std::string text = fmt::format("{:<16}", title);
  for (const double d : options.depths) text += fmt::format(" {:>7}", fmt::format("{:g}", d));
  for (size_t l = 0; l < grid.size(); ++l) {
    text += fmt::format("\n{:>9} tokens", options.lengths[l]);
    for (const NeedleCell& cell : grid[l]) text += fmt::format(" {:>7.3f}", value(cell));
  }
  return text + "\n";
}

std::string to_string(const NeedleOptions& options, const NeedleGrid& grid) {
  return fmt::format("{} trials of each length (down) and depth (across)\n", options.trials) +
         table(options, grid, "exact", [](const NeedleCell& c) { return c.exact.value(); }) +
         table(options, grid, "tokens right",
               [](const NeedleCell& c) { return c.tokens.value(); }) +
         table(options, grid, "answer loss", [](const NeedleCell& c) { return c.loss; });
}

}  // namespace sluice
