// trainer/plan/figures.h -- what a device and its links were measured to do: what a plan predicts
// times with. A YAML file each, with the source of every figure: configs/figures.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sluice {

// One rank's. FLOPs are those that model/lm/cost.h counts as useful, by what makes them.
struct ComputeFigures {
  double gemm_flops = 0;  // a second, of a large plain product: what MFU is measured against
  double linear_flops = 0;
  double head_flops = 0;     // head and loss
  double experts_flops = 0;  // routed experts
  double kda_forward_flops = 0, kda_backward_flops = 0;
  double attention_forward_flops = 0, attention_backward_flops = 0;
  double elementwise_bytes = 0;  // a second, of ops that only read and write activations
  double update_bytes = 0;       // of optimizer and gradient norm
  double muon_flops = 0;         // of Newton-Schulz
  double micro_batch_seconds = 0, step_seconds = 0;  // whatever the sizes

  template <class V>
  void visit(V& v) {
    const auto rate = [](double x) { return x > 0; };
    for (const auto& [key, field] : {std::pair{"gemm_flops", &gemm_flops},
                                     {"linear_flops", &linear_flops},
                                     {"head_flops", &head_flops},
                                     {"experts_flops", &experts_flops},
                                     {"kda_forward_flops", &kda_forward_flops},
                                     {"kda_backward_flops", &kda_backward_flops},
                                     {"attention_forward_flops", &attention_forward_flops},
                                     {"attention_backward_flops", &attention_backward_flops},
                                     {"elementwise_bytes", &elementwise_bytes},
                                     {"update_bytes", &update_bytes},
                                     {"muon_flops", &muon_flops}})
      v(key, *field, "a rate a second above 0", rate);
    const auto seconds = [](double x) { return x >= 0; };
    v("micro_batch_seconds", micro_batch_seconds, "seconds of at least 0", seconds);
    v("step_seconds", step_seconds, "seconds of at least 0", seconds);
  }
};

// What a rank sends and receives at the same time, and what a collective costs without any bytes.
struct LinkFigures {
  double bytes_per_second = 0;
  double latency_seconds = 0;

  template <class V>
  void visit(V& v) {
    v("bytes_per_second", bytes_per_second, "a rate above 0", [](double x) { return x > 0; });
    v("latency_seconds", latency_seconds, "seconds of at least 0", [](double x) { return x >= 0; });
  }
};

struct Figures {
  std::string device;       // in words
  double memory_bytes = 0;  // of it, what programs may take
  int64_t ranks_per_node = 0;
  ComputeFigures compute;
  LinkFigures inside;                // a node
  LinkFigures between;               // nodes: a rank's share of what its node has
  double host_bytes_per_second = 0;  // each way, between device and pinned memory
  // Do collectives that a later block waits for run beside the compute of this one?
  bool overlap = true;

  template <class V>
  void visit(V& v) {
    v("device", device, "a name", [](const std::string& s) { return !s.empty(); });
    v("memory_bytes", memory_bytes, "bytes above 0", [](double x) { return x > 0; });
    v("ranks_per_node", ranks_per_node, "a count above 0", [](int64_t x) { return x > 0; });
    v.section("compute", compute);
    v.section("inside", inside);
    v.section("between", between);
    v("host_bytes_per_second", host_bytes_per_second, "a rate above 0",
      [](double x) { return x > 0; });
    v("overlap", overlap, "true or false", [](bool) { return true; });
  }
  std::vector<std::pair<std::string, std::string>> problems() const;
};

// Every figure must be there: a rate that nobody gave is no prediction.
Figures load_figures(const std::string& file, const std::vector<std::string>& overrides);

}  // namespace sluice
