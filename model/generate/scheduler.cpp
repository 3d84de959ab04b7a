// model/generate/scheduler.cpp -- admit, prefill, decode, sample.
#include "model/generate/scheduler.h"

#include <algorithm>
#include <chrono>

#include "kernels/tensor/rng.h"

namespace sluice {

uint64_t sampling_key(uint64_t seed, int64_t request) {
  return rng_key(seed, cat("sample.", request));
}

static double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int64_t Scheduler::add(Request request) {
  const int64_t length = int64_t(request.prompt.size()) + request.max_new_tokens;
  SLUICE_CHECK(!request.prompt.empty() && request.max_new_tokens > 0, "request ", next_, " has ",
               request.prompt.size(), " tokens and asks for ", request.max_new_tokens);
  SLUICE_CHECK(length <= generator_.options().max_tokens, "request ", next_, " may have ", length,
               " tokens, a slot has room for ", generator_.options().max_tokens);
  active_.emplace(next_, Active{.request = std::move(request)});
  return next_++;
}

Completion Scheduler::take(int64_t request) {
  const auto found = finished_.find(request);
  SLUICE_CHECK(found != finished_.end(), "request ", request, " is not finished, or was taken");
  Completion done = std::move(found->second);
  finished_.erase(found);
  return done;
}

bool Scheduler::step() {
  admit();
  prefill();
  decode();
  return !active_.empty();
}

void Scheduler::admit() {
  for (auto& [number, a] : active_) {
    if (a.slot >= 0) continue;
    const std::optional<int64_t> slot = generator_.join();
    if (!slot) return;
    a.slot = *slot;
  }
}

// Whole pieces of as many prompts as one call holds, the first come first.
void Scheduler::prefill() {
  const size_t chunk = size_t(generator_.options().prefill_chunk_tokens);
  std::vector<Entry> entries;
  size_t tokens = 0;
  const auto piece = [&](const Active& a) {
    return std::min(chunk, a.request.prompt.size() - a.fed);
  };
  for (Entry e = active_.begin(); e != active_.end(); ++e) {
    const Active& a = e->second;
    if (a.slot < 0 || a.fed == a.request.prompt.size()) continue;
    if (tokens + piece(a) > chunk || int64_t(entries.size()) == generator_.most_pieces()) break;
    tokens += piece(a);
    entries.push_back(e);
  }
  if (entries.empty()) return;
  const double begin = seconds();
  std::sort(entries.begin(), entries.end(),
            [](Entry a, Entry b) { return a->second.slot < b->second.slot; });
  std::vector<Generator::Piece> pieces;
  for (const Entry e : entries) {
    Active& a = e->second;
    pieces.push_back({a.slot, std::span(a.request.prompt).subspan(a.fed, piece(a))});
  }
  const Tensor logits = generator_.feed(CacheStep::prefill, pieces);
  for (size_t i = 0; i < entries.size(); ++i) entries[i]->second.fed += pieces[i].tokens.size();
  throughput_.prefill_tokens += int64_t(tokens);
  throughput_.prefill_seconds += seconds() - begin;
  for (size_t i = 0; i < entries.size(); ++i) {
    const Active& a = entries[i]->second;
    if (a.fed == a.request.prompt.size()) sample_next({entries[i]}, logits.rows(int64_t(i), 1));
  }
}

// The newest token of every text that has one.
void Scheduler::decode() {
  std::vector<Entry> entries;
  for (Entry e = active_.begin(); e != active_.end(); ++e)
    if (!e->second.done.tokens.empty()) entries.push_back(e);
  if (entries.empty()) return;
  const double begin = seconds();
  std::sort(entries.begin(), entries.end(),
            [](Entry a, Entry b) { return a->second.slot < b->second.slot; });
  std::vector<Generator::Piece> pieces;
  for (const Entry e : entries)
    pieces.push_back({e->second.slot, std::span(e->second.done.tokens).last(1)});
  sample_next(entries, generator_.feed(CacheStep::decode, pieces));
  throughput_.decode_tokens += int64_t(entries.size());
  throughput_.decode_seconds += seconds() - begin;
}

void Scheduler::sample_next(const std::vector<Entry>& entries, const Tensor& logits) {
  const int64_t N = int64_t(entries.size());
  std::vector<SampleRule> rules;
  for (const Entry e : entries) {
    const Request& r = e->second.request;
    rules.push_back({.temperature = r.temperature,
                     .top_k = r.top_k,
                     .top_p = r.top_p,
                     .key = r.key,
                     .position = int64_t(e->second.done.tokens.size())});
  }
  const Generator::Sampled sampled = generator_.sample(logits, rules);
  for (int64_t n = 0; n < N; ++n) {
    const Entry e = entries[size_t(n)];
    if (add_token(e->second, sampled.tokens[size_t(n)], sampled.logprobs[size_t(n)])) continue;
    generator_.leave(e->second.slot);
    finished_[e->first] = std::move(e->second.done);
    active_.erase(e);
  }
}

bool Scheduler::add_token(Active& a, int32_t token, float logprob) {
  const Request& r = a.request;
  a.done.tokens.push_back(token);
  a.done.logprobs.push_back(logprob);
  if (std::find(r.stop_tokens.begin(), r.stop_tokens.end(), token) != r.stop_tokens.end()) {
    a.done.finish = Finish::stop_token;
    return false;
  }
  if (r.on_token && !r.on_token(token)) {
    a.done.finish = Finish::stopped;
    return false;
  }
  return int64_t(a.done.tokens.size()) < r.max_new_tokens;
}

std::vector<Completion> complete(Generator& generator, std::vector<Request> requests) {
  Scheduler scheduler(generator);
  for (Request& r : requests) scheduler.add(std::move(r));
  while (scheduler.step()) {
  }
  std::vector<Completion> done;
  for (size_t i = 0; i < requests.size(); ++i) done.push_back(scheduler.take(int64_t(i)));
  return done;
}

}  // namespace sluice
