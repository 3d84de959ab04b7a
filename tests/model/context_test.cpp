// tests/model/context_test.cpp -- context parallelism: a model whose sequence lies on several ranks
// is the model on one.
#include <gtest/gtest.h>

#include <cmath>
#include <iostream>
#include <map>
#include <mutex>

#include "kernels/comm/local_comm.h"
#include "kernels/comm/sequence_exchange.h"
#include "tests/support/cpu_context.h"
#include "tests/support/tiny_model.h"

namespace sluice {
namespace {

using test::Documents;

// A rank's rows of a batch, and the exchange for them.
struct Piece {
  Piece(Comm& group, const Documents& docs, int64_t halo)
      : cut({docs.cu.view().as<int32_t>(), size_t(docs.cu.view().dim(0))}, group.size(),
            group.rank()),
        documents(list(cut.documents)),
        with_halo(list(cut.documents_with_halo(halo))),
        keys(list(cut.keys)),
        exchange(group, cut, halo, with_halo.view(), keys.view()),
        batch(docs.batch()) {
    for (Tensor* t : {&batch.tokens, &batch.targets})
      *t = t->rows(cut.mine().begin, cut.mine().tokens);
    batch.sequences = {.cu_seqlens = documents.view(), .exchange = &exchange};
  }
  static Buffer list(const std::vector<int32_t>& values) {
    Buffer b(DType::i32, {int64_t(values.size())});
    std::copy(values.begin(), values.end(), b.view().as<int32_t>());
    return b;
  }

  SequenceCut cut;
  Buffer documents, with_halo, keys;
  SequenceExchange exchange;
  LmBatch batch;
};

struct Model {
  explicit Model(const LmConfig& config, bool slow) : params(DType::f64), lm(config, params) {
    params.allocate();
    initialize(params, 5);
    if (slow) test::set_slow_decay(params);
  }
  double pass(const Context& ctx, const LmBatch& batch, Recompute recompute) {
    params.start_step();
    Tape tape(ctx, params, Tape::Mode::train);
    const Var loss = lm.loss(tape, batch, recompute);
    const double value = *loss.value.as<double>();
    tape.backward(loss);
    params.finish_gradients();
    return value;
  }
  PlainStore params;
  Lm lm;
};

struct Result {
  double loss = 0;
  std::map<std::string, std::vector<double>> gradients;
};

void add(const Model& m, double loss, Result& to) {
  to.loss += loss;
  for (const Shard& s : m.params.shards()) {
    if (m.params.spec(s.id).rule != UpdateRule::gradient) continue;
    std::vector<double>& g = to.gradients[m.params.spec(s.id).name];
    g.resize(size_t(s.grad.dim(0)));
    for (int64_t i = 0; i < s.grad.dim(0); ++i) g[size_t(i)] += s.grad.as<double>()[i];
  }
}

struct Case {
  std::string name;
  LmConfig config;
  std::vector<int64_t> documents;
  bool slow = false;
  Recompute recompute = Recompute::none;
  int ranks = 2;
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

std::vector<Case> cases() {
  std::vector<Case> all;
  const std::vector<int64_t> packed{3, 50, 0, 1, 90, 7, 40};
  for (const int ranks : {2, 3, 4}) {
    all.push_back(
        {cat("packed_", ranks), test::tiny_config(), packed, false, Recompute::none, ranks});
    all.push_back({cat("one_slow_document_", ranks),
                   test::tiny_config(),
                   {170},
                   true,
                   Recompute::none,
                   ranks});
    all.push_back({cat("slow_", ranks),
                   test::tiny_config(),
                   {20, 150, 1},
                   true,
                   Recompute::selective,
                   ranks});
  }
  all.push_back(
      {"cuts_between_documents", test::tiny_config(), {30, 30, 30, 30}, true, Recompute::none, 4});
  // The first tokens of documents just before and behind a cut, inside a convolution's reach.
  all.push_back(
      {"cuts_near_documents", test::tiny_config(), {31, 28, 30, 2, 29}, true, Recompute::none, 4});
  all.push_back(
      {"fewer_tokens_than_ranks_have_room", test::tiny_config(), {9}, true, Recompute::none, 4});
  all.push_back({"recomputed", test::tiny_config(), packed, true, Recompute::block, 3});
  all.push_back({"moe", test::tiny_moe_config(), packed, true, Recompute::none, 2});
  for (const test::Variant& v : test::mixer_variants())
    if (*v.name) all.push_back({v.name, v.config, packed, true, Recompute::none, 3});
  return all;
}

class ContextParallel : public ::testing::TestWithParam<Case> {};

INSTANTIATE_TEST_SUITE_P(Cases, ContextParallel, ::testing::ValuesIn(cases()),
                         [](const auto& p) { return p.param.name; });

TEST_P(ContextParallel, RanksWithPiecesEqualOneWithAll) {
  const Case& c = GetParam();
  const Documents docs(c.documents);
  Result want, got;
  {
    Model one(c.config, c.slow);
    const double loss = one.pass(test::CpuContext(), docs.batch(), Recompute::none);
    add(one, loss, want);
  }
  std::mutex mutex;
  LocalGroup(c.ranks).run([&](Comm& group) {
    const test::CpuContext cpu(Mode::run, 1);
    Model mine(c.config, c.slow);
    const int64_t taps = c.config.kda.short_conv_kernel_size;
    const Piece piece(group, docs, std::max<int64_t>(taps - 1, 0));
    const double loss = mine.pass(cpu, piece.batch, c.recompute);
    const std::lock_guard lock(mutex);
    add(mine, loss, got);
  });
  EXPECT_NEAR(got.loss, want.loss, 1e-12 * std::abs(want.loss));
  double worst = 0;
  for (const auto& [name, g] : want.gradients) {
    double scale = 0;
    for (const double x : g) scale = std::max(scale, std::abs(x));
    for (size_t i = 0; i < g.size(); ++i) {
      const double e = std::abs(got.gradients[name].at(i) - g[i]) / std::max(scale, 1e-300);
      // f64 sums in another order, and states that went through a product more.
      ASSERT_LT(e, 1e-11) << name << " element " << i;
      worst = std::max(worst, e);
    }
  }
  std::cout << "worst relative difference of a gradient " << worst << "\n";
}

}  // namespace
}  // namespace sluice
