// tests/trainer/golden_test.cpp -- ten steps of training against tests/golden/losses.txt, exactly.
//
// Reference loops in f64: no BLAS, no blocks, no SIMD. What then differs between machines and
// compilers is the last bit of libm's functions and of contracted products, 1e-16 a number. 10
// decimals are compared as text, coarse enough to hide that and exact in what is shown: g++ 12 with
// -march=native -O3 (which contracts), -march=x86-64 -O3 and -march=x86-64 -O0 give this same text.
// A change of the model, the initial values, the order of the data, the optimizer or the schedule
// is far larger.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "configs/schema.h"
#include "kernels/step_control/step_control.h"
#include "kernels/tensor/fill.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"
#include "tests/support/tiny_run.h"

namespace sluice {
namespace {

class Golden : public test::TinyRun {};

std::string train(const Config& c, const Context& ctx) {
  PlainStore params(DType::f64);
  const Lm lm(c.model, params);
  params.allocate();
  initialize(params, uint64_t(c.run.seed));
  Optimizer optimizer(c.optim, params);
  Loader loader(c.data, c.train.batch_tokens, c.train.micro_batch_tokens);
  MicroBatchBuffer batch = loader.make_buffer();
  StepRunner runner(ctx, params, lm, Recompute::none, c.train.z_loss);
  runner.use(*ctx.arena);
  std::string losses;
  StepState state;
  for (int64_t step = 0; step < c.train.steps; ++step) {
    runner.begin_step(&state, float(lr_at(c.optim, step + 1, c.train.steps)));
    for (int64_t m = 0; m < loader.micro_batches(); ++m) {
      loader.load(step, m, batch.batch());
      runner.train(batch.batch(), 1.0 / double(loader.valid_tokens(step)));
    }
    params.finish_gradients();
    optimizer.clip(ctx, &state);
    decide(ctx, &state);
    optimizer.step(ctx, &state);
    losses += fmt::format("{} {:.10f}\n", step + 1, state.cross_entropy);
  }
  return losses;
}

TEST_F(Golden, TenStepsOfTheReferenceLoops) {
  const std::string golden = SLUICE_SOURCE_DIR "/tests/golden/";
  auto c = config::load<Config>(golden + "tiny.yaml");
  c.data.train = {{.path = dir_ / "train.h5", .weight = 1, .max_epochs = 1}};
  Arena arena(Device::cpu, 64 << 20);
  const std::string losses = train(c, {.mode = Mode::reference, .arena = &arena});
  EXPECT_EQ(losses, read(golden + "losses.txt"))
      << "If the change is meant, say why in the commit and store these losses.";
}

}  // namespace
}  // namespace sluice
