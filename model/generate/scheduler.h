// model/generate/scheduler.h -- many requests through the slots of a generator (continuous
// batching).
//
// A request waits for a slot, its prompt is fed in pieces next to the decode steps of others, and
// the slot is free again when its text ends. Pieces are cut at multiples of prefill_chunk_tokens of
// the prompt itself, so that neither tokens nor log-probabilities depend on what else runs.
#pragma once

#include <functional>
#include <map>
#include <vector>

#include "kernels/sample/sample.h"
#include "model/generate/generator.h"

namespace sluice {

struct Request {
  std::vector<int32_t> prompt{};  // at least one token
  int64_t max_new_tokens = 256;
  std::vector<int32_t> stop_tokens{};
  double temperature = 0;  // these four: kernels/sample/sample.h
  int64_t top_k = 0;
  double top_p = 1;
  uint64_t key = 0;
  // Called with each new token that is no stop token; false ends the text with it.
  std::function<bool(int32_t)> on_token{};
};

// Of request number `request` of a run with this seed.
uint64_t sampling_key(uint64_t seed, int64_t request);

enum class Finish : uint8_t {
  max_new_tokens,
  stop_token,  // the last of the tokens
  stopped,     // by on_token
};

struct Completion {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;  // of each, under the distribution that it was drawn from
  Finish finish = Finish::max_new_tokens;
};

class Scheduler {
 public:
  explicit Scheduler(Generator& generator) : generator_(generator) {}

  int64_t add(Request request);  // its number: 0, 1, ... It must fit a slot
  // At most one prefill and one decode call. False: nothing is left to do.
  bool step();
  bool finished(int64_t request) const { return finished_.count(request) > 0; }
  Completion take(int64_t request);  // once, when finished

  struct Throughput {
    int64_t prefill_tokens = 0, decode_tokens = 0;
    double prefill_seconds = 0, decode_seconds = 0;  // decode: sampling included
  };
  const Throughput& throughput() const { return throughput_; }

 private:
  struct Active {
    Request request;
    int64_t slot = -1;  // -1: waits for one
    size_t fed = 0;     // tokens of the prompt
    Completion done{};
  };
  using Entry = std::map<int64_t, Active>::iterator;

  void admit();
  void prefill();
  void decode();
  void sample_next(const std::vector<Entry>& entries, const Tensor& logits);
  bool add_token(Active& a, int32_t token, float logprob);  // false: it was the last

  Generator& generator_;
  std::map<int64_t, Active> active_;  // by number, so that who came first is served first
  std::map<int64_t, Completion> finished_;
  int64_t next_ = 0;
  Throughput throughput_;
};

// All of them, in order.
std::vector<Completion> complete(Generator& generator, std::vector<Request> requests);

}  // namespace sluice
