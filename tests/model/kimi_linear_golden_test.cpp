// tests/model/kimi_linear_golden_test.cpp -- the whole model against transformers' `kimi_linear`:
// loss, logits and every gradient of random models (tests/golden/kimi_linear, make.py wrote them).
//
//   ctest -R KimiLinearGolden -V        prints the worst differences as a table
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <numeric>

#include "configs/schema.h"
#include "model/export/engines/names.h"
#include "tests/support/cpu_context.h"
#include "tests/support/golden.h"
#include "tests/support/message.h"
#include "tests/support/tiny_model.h"

namespace sluice {
namespace {

const std::string kFolder = SLUICE_SOURCE_DIR "/tests/golden/kimi_linear/";

struct Difference {
  double absolute = 0, relative = 0;  // the latter to the tensor's largest value
  std::string where;                  // of the largest relative one

  void take(const std::string& name, double got, double want, double scale) {
    double d = std::abs(got - want);
    if (std::isnan(d)) d = INFINITY;
    absolute = std::max(absolute, d);
    const double share = scale > 0 ? d / scale : d > 0 ? INFINITY : 0;
    if (share > relative) relative = share, where = name;
  }
};

double largest(const std::vector<double>& values) {
  double m = 0;
  for (const double v : values) m = std::max(m, std::abs(v));
  return m;
}

class Model {
 public:
  Model(const std::string& name, DType dtype)
      : file_(kFolder + name + ".safetensors"),
        params_(dtype),
        lm_(config::load<LmConfig>(kFolder + name + ".yaml"), params_),
        published_(engine_tensors(params_, Naming::moonshot)),
        B_(file_.find("tokens")->shape.at(0)),
        T_(file_.find("tokens")->shape.at(1)) {
    params_.allocate();
    for (const EngineTensor& t : published_) {
      EXPECT_EQ(file_.find(t.name) ? file_.find(t.name)->shape : std::vector<int64_t>{}, t.shape)
          << t.name;
      const std::vector<double> values = test::golden_values(file_, t.name);
      const Tensor master = params_.shards()[size_t(t.id.index)].master;
      for (int64_t i = 0; i < t.numel(); ++i)
        test::set_element(master, t.first_element + i, values[size_t(i)]);
    }
    params_.start_step();
  }

  // Sequences `first` ... `first + count` as the documents of one batch: the gradients are added to
  // what calls before left. Sum of losses, each with its share of all predictions of the file.
  double run(const Context& ctx, int64_t first, int64_t count) {
    test::Documents docs(std::vector<int64_t>(size_t(count), T_));
    const Buffer all(DType::i32, {B_, T_});
    file_.read("tokens", all.view());
    const int32_t* tokens = all.view().as<int32_t>() + first * T_;
    for (int64_t n = 0; n < count * T_; ++n) {
      docs.tokens.view().as<int32_t>()[n] = tokens[n];
      docs.targets.view().as<int32_t>()[n] = n % T_ == T_ - 1 ? -1 : tokens[n + 1];
    }
    *docs.scale.view().as<double>() = 1.0 / double(B_ * (T_ - 1));
    {
      Tape tape(ctx, params_, Tape::Mode::infer);
      const Buffer rows(DType::i32, {count * T_});
      std::iota(rows.view().as<int32_t>(), rows.view().as<int32_t>() + count * T_, 0);
      const Var out = lm_.logits(tape, docs.batch(), rows.view(), nullptr);
      for (int64_t i = 0; i < out.value.numel(); ++i)
        logits_.push_back(test::element(out.value, i));
    }
    Tape tape(ctx, params_, Tape::Mode::train);
    const Var loss = lm_.loss(tape, docs.batch(), Recompute::none);
    const double value = *loss.value.as<double>();
    tape.backward(loss);
    return value;
  }

  Difference logits() const {
    Difference d;
    const std::vector<double> want = test::golden_values(file_, "logits");
    EXPECT_EQ(want.size(), logits_.size());
    const double scale = largest(want);
    for (size_t i = 0; i < want.size(); ++i) d.take("", logits_[i], want[i], scale);
    return d;
  }

  Difference gradients() {
    Difference d;
    params_.finish_gradients();
    for (const EngineTensor& t : published_) {
      if (params_.spec(t.id).rule != UpdateRule::gradient) {  // the selection bias has none there
        EXPECT_EQ(file_.find("grad." + t.name), nullptr) << t.name;
        continue;
      }
      const std::vector<double> want = test::golden_values(file_, "grad." + t.name);
      const Tensor got = params_.shards()[size_t(t.id.index)].grad;
      const double scale = largest(want);
      for (int64_t i = 0; i < t.numel(); ++i)
        d.take(t.name, test::element(got, t.first_element + i), want[size_t(i)], scale);
    }
    return d;
  }

  int64_t sequences() const { return B_; }
  double want_loss() const { return test::golden_values(file_, "loss").at(0); }
  // Everything in the file that is a weight.
  size_t weights_in_file() const {
    size_t n = 0;
    for (const SafetensorsEntry& e : file_.entries())
      n += e.name.rfind("model.", 0) == 0 || e.name.rfind("lm_head.", 0) == 0;
    return n;
  }
  const std::vector<EngineTensor>& published() const { return published_; }

 private:
  SafetensorsReader file_;
  PlainStore params_;
  Lm lm_;
  std::vector<EngineTensor> published_;
  int64_t B_, T_;
  std::vector<double> logits_;
};

struct Bounds {
  double loss, relative;
};
// Everything but the loss is stored in f32: half a unit of its last place is all that f64 may
// differ by.
constexpr Bounds kF64{1e-13, 0x1.001p-24};
// Rounding of f32 through all layers, enlarged where a norm divides by a short vector; 2.6e-5 of a
// gradient's largest value was the most seen.
constexpr Bounds kF32{1e-6, 1e-4};

class KimiLinearGolden : public testing::TestWithParam<const char*> {
 protected:
  void expect_agreement(const char* how, DType dtype, bool packed, Mode mode = Mode::run) {
    Model model(GetParam(), dtype);
    test::CpuContext cpu(mode, 2, 32 << 20);
    double loss = 0;
    if (packed)
      loss = model.run(cpu, 0, model.sequences());
    else
      for (int64_t b = 0; b < model.sequences(); ++b) loss += model.run(cpu, b, 1);
    const Difference logits = model.logits(), gradients = model.gradients();
    const double off = std::abs(loss - model.want_loss());
    fmt::print(
        "{:<15} {:<13} | loss {:.1e} | logits {:.1e}, of the largest {:.1e} | gradients {:.1e}, of "
        "a tensor's largest {:.1e} ({})\n",
        GetParam(), how, off, logits.absolute, logits.relative, gradients.absolute,
        gradients.relative, gradients.where);
    const Bounds bounds = dtype == DType::f64 ? kF64 : kF32;
    EXPECT_LT(off, bounds.loss);
    EXPECT_LT(logits.absolute, 1e-4);
    EXPECT_LT(logits.relative, bounds.relative);
    EXPECT_LT(gradients.absolute, 1e-4);
    EXPECT_LT(gradients.relative, bounds.relative);
  }
};

TEST_P(KimiLinearGolden, NamesAreAllThatIsInTheFile) {
  const Model model(GetParam(), DType::f32);
  EXPECT_EQ(model.published().size(), model.weights_in_file());
}
TEST(EngineTensors, RefusesWhatHasNoPublishedName) {
  PlainStore params(DType::f32);
  params.add({.name = "layers.0.mamba2.q_proj", .shape = {2, 3}, .group = params.add_group("a")});
  test::expect_contains(test::error_of([&] { engine_tensors(params, Naming::moonshot); }),
                        {"layers.0.mamba2.q_proj has no name"});
}

TEST_P(KimiLinearGolden, PackedF32) {
  expect_agreement("f32 packed", DType::f32, true);
}
TEST_P(KimiLinearGolden, SeparateF32) {
  expect_agreement("f32 separate", DType::f32, false);
}
TEST_P(KimiLinearGolden, PackedF64) {
  expect_agreement("f64 packed", DType::f64, true);
}
TEST_P(KimiLinearGolden, ReferenceF64) {
  expect_agreement("f64 reference", DType::f64, true, Mode::reference);
}

INSTANTIATE_TEST_SUITE_P(Models, KimiLinearGolden,
                         testing::Values("dense_3_1", "moe_3_1", "moe_1_1_q_lora", "moe_7_1",
                                         "linear_1_0", "mla_0_1_rope"),
                         [](const auto& p) { return std::string(p.param); });

}  // namespace
}  // namespace sluice
