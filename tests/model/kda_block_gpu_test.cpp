// tests/model/kda_block_gpu_test.cpp -- case 22 of the KDA contract: projections, convolution,
// SiLU, norms, gate, recurrence, output norm and gate together, on CUDA in bf16 against the CPU in
// f64, where lm_test.cpp holds them to finite differences.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>

#include "model/layers/registry.h"
#include "tests/support/cpu_context.h"
#include "tests/support/gpu_problem.h"
#include "tests/support/tiny_model.h"

namespace sluice::test {
namespace {

constexpr int64_t kWidth = 128;

LayerConfig layer_config(bool grouped) {
  LmConfig c = tiny_config();
  c.kda.num_heads = 2;
  c.kda.num_value_heads = grouped ? 4 : 2;
  c.kda.head_dim = 64;
  if (grouped) c.kda.gate_lower_bound = -5.0;
  return {.hidden_size = kWidth,
          .intermediate_size = 2 * kWidth,
          .rms_norm_eps = 1e-6,
          .kda = c.kda,
          .mla = c.mla};
}

// A KDA layer on one device. All weights are values of bf16, so that every device has the same.
struct Block {
  Block(const LayerConfig& config, const Context& ctx)
      : ctx(ctx), params(ctx.device == Device::cpu ? DType::f64 : DType::f32, ctx.device) {
    group = params.add_group("layer");
    layer = make_mixer("kda", {params, group, "m", 0.09}, config);
    params.allocate();
    initialize(params, 7);
    for (const Shard& s : params.shards()) {
      const Buffer host(params_type(), {s.master.dim(0)});
      copy(s.master, host.view());
      for (int64_t i = 0; i < host.view().numel(); ++i)
        set_element(host.view(), i, from_bf16(to_bf16(element(host.view(), i))));
      copy(host.view(), s.master);
    }
    params.refresh(ctx);
  }
  DType params_type() const { return ctx.device == Device::cpu ? DType::f64 : DType::f32; }

  struct Results {
    std::vector<std::pair<std::string, Buffer>> all;  // f64, on the host
    void add(const std::string& name, const Tensor& t) {
      Tensor like = t;
      like.device = Device::cpu;
      const Buffer host(like);
      copy(t, host.view());
      like.dtype = DType::f64;
      all.emplace_back(name, Buffer(like));
      copy_elements(host.view(), all.back().second.view());
    }
  };

  // y, and the gradients of <y, d_y>; x and d_y on the device.
  Results pass(const Tensor& x, const Tensor& d_y, const Tensor& cu) {
    Results r;
    params.start_step();
    Tape tape(ctx, params, Tape::Mode::train);
    Tensor loss;
    const auto out = tape.block("m", {group}, Recompute::none, [&] {
      const Var in = tape.make(x.dtype, {x.dim(0), x.dim(1)});
      copy(x, in.value);
      tape.record("input", in, [this, &r, &tape, id = in.id] {
        synchronize();
        r.add("dx", tape.upstream(id));
      });
      const Var y = layer->forward(tape, in, {.cu_seqlens = cu}, nullptr);
      synchronize();
      r.add("y", y.value);
      const Var sum = tape.make(DType::f64, {1});
      tape.record("loss", sum, [this, &tape, y, d_y, sum] {
        tape.upstream(sum.id);
        synchronize();
        copy(d_y, tape.grad(y).t);
      });
      return std::vector<Var>{sum};
    });
    tape.backward(out[0]);
    params.finish_gradients(ctx);
    synchronize();
    for (const Shard& s : params.shards()) r.add(params.spec(s.id).name, s.grad);
    return r;
  }
  void synchronize() const {
    if (ctx.device == Device::cuda) SLUICE_CUDA(cudaDeviceSynchronize());
  }

  Context ctx;
  PlainStore params;
  int group;
  std::unique_ptr<Mixer> layer;
};

Buffer on_device(const Tensor& t, DType dtype) {
  Tensor like = t;
  like.dtype = dtype;
  const Buffer narrow(like);
  copy_elements(t, narrow.view());
  like.device = Device::cuda;
  Buffer to(like);
  copy(narrow.view(), to.view());
  return to;
}

using KdaBlockGpu = GpuTest;

TEST_F(KdaBlockGpu, Case22IsThatOfTheCpuInF64) {
  for (const bool grouped : {false, true}) {
    const CpuContext cpu_ctx;
    GpuContext& gpu_ctx = GpuContext::shared();
    const LayerConfig config = layer_config(grouped);
    Block cpu(config, cpu_ctx), gpu(config, gpu_ctx);
    const Documents documents({40, 1, 130, 0, 64, 65});
    const Tensor cu = documents.batch().sequences.cu_seqlens;
    const Buffer x(DType::f64, {300, kWidth}), d_y(x.view());
    fill_normal(x.view(), 1);
    fill_normal(d_y.view(), 2);
    for (const Tensor& t : {x.view(), d_y.view()})
      for (int64_t i = 0; i < t.numel(); ++i) set_element(t, i, from_bf16(to_bf16(element(t, i))));
    const Buffer x_gpu = on_device(x.view(), DType::bf16),
                 d_y_gpu = on_device(d_y.view(), DType::bf16);
    const Buffer cu_gpu = on_device(cu, DType::i32);
    const auto want = cpu.pass(x.view(), d_y.view(), cu);
    const auto got = gpu.pass(x_gpu.view(), d_y_gpu.view(), cu_gpu.view());
    ASSERT_EQ(got.all.size(), want.all.size());
    for (size_t i = 0; i < want.all.size(); ++i) {
      const std::string& name = want.all[i].first;
      ASSERT_EQ(got.all[i].first, name);
      const Tensor w = want.all[i].second.view(), g = got.all[i].second.view();
      double error = 0;
      for (int64_t e = 0; e < w.numel(); ++e) error += std::pow(element(g, e) - element(w, e), 2);
      const double ratio = std::sqrt(error / dot(w, w));
      std::printf("  %-24s %.1e\n", name.c_str(), ratio);
      // y: about six activations after one another, each rounded to 2^-9 (.0017 of its size),
      // the recurrence .004. Gradients: the same again, backward. A_log: one number a head, in
      // which the tokens cancel.
      const double bound = name == "y"                               ? 0.01
                           : name.find("A_log") != std::string::npos ? 0.05
                                                                     : 0.02;
      EXPECT_LE(ratio, bound) << name;
    }
  }
}

}  // namespace
}  // namespace sluice::test
