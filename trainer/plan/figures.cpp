// trainer/plan/figures.cpp -- a strict config of its own.
#include "trainer/plan/figures.h"

#include "configs/schema.h"

namespace sluice {

std::vector<std::pair<std::string, std::string>> Figures::problems() const {
  std::vector<std::pair<std::string, std::string>> missing;
  const auto need = [&](const char* key, double x) {
    if (x == 0) missing.emplace_back(key, "expected a measured figure, which is missing");
  };
  need("memory_bytes", memory_bytes);
  need("ranks_per_node", double(ranks_per_node));
  const ComputeFigures& c = compute;
  for (const double x :
       {c.gemm_flops, c.linear_flops, c.head_flops, c.experts_flops, c.kda_forward_flops,
        c.kda_backward_flops, c.attention_forward_flops, c.attention_backward_flops,
        c.elementwise_bytes, c.update_bytes, c.muon_flops})
    if (x == 0 && missing.empty()) need("compute", x);
  need("inside", inside.bytes_per_second);
  need("between", between.bytes_per_second);
  need("host_bytes_per_second", host_bytes_per_second);
  return missing;
}

Figures load_figures(const std::string& file, const std::vector<std::string>& overrides) {
  return config::load<Figures>(file, overrides);
}

}  // namespace sluice
