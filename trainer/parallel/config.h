// trainer/parallel/config.h -- the config section `parallel`: what the ranks of a run share.
#pragma once

#include <charconv>
#include <cstdint>
#include <string>

namespace sluice {

// "auto", or a count of at least 1.
inline bool is_auto_or_count(const std::string& s) {
  int64_t n = 0;
  const auto r = std::from_chars(s.data(), s.data() + s.size(), n);
  return s == "auto" || (r.ec == std::errc() && r.ptr == s.data() + s.size() && n > 0);
}

struct ParallelConfig {
  int64_t data_replicate = 1;       // whole models, each sharded: HSDP
  std::string data_shard = "auto";  // auto: all ranks that the other axes leave
  int64_t expert = 1;               // ranks of data_shard x context that share out the experts
  int64_t context = 1;              // ranks that a row's tokens are cut over
  // false: a block that was gathered is kept until the weights change, for its memory
  bool reshard_after_forward = true;
  // true: gradients are summed whole, in f32, and reduced once a step, for their memory
  bool unsharded_gradients = false;
  bool staged = false;  // device tensors go through the host: for ranks that share a GPU
  // that a rank may be silent, or the others wait for it in a collective, before the run gives up
  int64_t timeout_seconds = 600;

  template <class V>
  void visit(V& v) {
    auto positive = [](int64_t x) { return x > 0; };
    auto any = [](bool) { return true; };
    v("data_replicate", data_replicate, "a count above 0", positive);
    v("data_shard", data_shard, "auto or a count above 0", is_auto_or_count);
    v("expert", expert, "a count above 0", positive);
    v("context", context, "a count above 0", positive);
    v("reshard_after_forward", reshard_after_forward, "true or false", any);
    v("unsharded_gradients", unsharded_gradients, "true or false", any);
    v("staged", staged, "true or false", any);
    v("timeout_seconds", timeout_seconds, "a count above 0", positive);
  }
};

}  // namespace sluice
