// tests/kernels/embedding_test.cpp -- closed forms, gradients, contract of embedding.
#include "kernels/embedding/embedding.h"

#include <gtest/gtest.h>

#include "tests/support/op_problem.h"

namespace sluice {
namespace {

test::MakeProblem embedding(int64_t V, int64_t D) {
  return [V, D](const test::Setup& setup) {
    test::OpProblem p(setup);
    p.tokens("tokens", V);
    p.row_input("dy", {D});
    p.input("table", {V, D});
    p.row_output("y", {D});
    p.output("dtable", {V, D});
    p.forward = [](const Context& ctx, const test::OpProblem& t) {
      embedding_forward(ctx, {.tokens = t["tokens"], .table = t["table"], .y = t["y"]});
    };
    p.backward = [](const Context& ctx, const test::OpProblem& t) {
      embedding_backward(ctx, {.tokens = t["tokens"], .dy = t["dy"], .dtable = t.grad("dtable")});
    };
    return p;
  };
}

class Embedding : public testing::TestWithParam<Mode> {};
INSTANTIATE_TEST_SUITE_P(BackEnds, Embedding, testing::Values(Mode::run, Mode::reference),
                         [](const auto& p) { return p.param == Mode::run ? "cpu" : "reference"; });

// Copies are exact. The gradient of a row is the sum of its tokens' rows in their order: exact too.
TEST_P(Embedding, CopiesAndSumsInOrder) {
  for (int64_t D : {1, 64, 200}) {
    const int64_t N = 1000, V = 61;
    const test::OpProblem p = embedding(V, D)({.N = N, .layout = test::Layout::strided});
    p.run(test::SmallContext(GetParam()));
    const int32_t* tokens = p["tokens"].as<int32_t>();
    for (int64_t n = 0; n < N; ++n)
      for (int64_t d = 0; d < D; ++d)
        ASSERT_EQ(p["y"].row<float>(n)[d], p["table"].row<float>(tokens[n])[d]);
    int64_t untouched = 0;
    for (int64_t v = 0; v < V; ++v) {
      untouched += std::count(tokens, tokens + N, int32_t(v)) == 0;
      for (int64_t d = 0; d < D; ++d) {
        float sum = 0;
        for (int64_t n = 0; n < N; ++n)
          if (tokens[n] == v) sum += p["dy"].row<float>(n)[d];
        ASSERT_EQ(p["dtable"].row<float>(v)[d], sum) << v << " " << d;
      }
    }
    EXPECT_GT(untouched, 0);  // so that rows which must be zero are in the test
  }
}

TEST_P(Embedding, Gradients) {
  for (int64_t D : {1, 5, 130}) test::expect_gradients(embedding(11, D), GetParam(), 40);
}

// A table whose rows are a slice of something wider; its neighbours stay as they are.
TEST_P(Embedding, StridedTable) {
  const int64_t V = 9, D = 70;
  const test::SmallContext ctx(GetParam());
  const test::OpProblem p = embedding(V, D)({.N = 30});
  p.run(ctx);
  const Buffer wide(DType::f32, {V, D + 3}), y(p["y"]);
  const Tensor table = wide.view().columns(1, D);
  test::copy_elements(p["table"], table);
  embedding_forward(ctx, {.tokens = p["tokens"], .table = table, .y = y.view()});
  test::expect_same_bits(y.view(), p["y"], "y");
  test::fill(wide.view(), NAN);
  embedding_backward(ctx, {.tokens = p["tokens"], .dy = p["dy"], .dtable = {table}});
  test::expect_same_bits(table, p["dtable"], "dtable");
  for (int64_t v = 0; v < V; ++v)
    for (int64_t d : {int64_t(0), D + 1, D + 2})
      EXPECT_TRUE(std::isnan(wide.view().row<float>(v)[d]));
}

TEST_P(Embedding, RowsAreIndependent) {
  test::expect_rows_independent(embedding(50, 33), GetParam(), 150);
}

TEST(EmbeddingCpu, AgreesWithReferenceInF64) {
  // y is a copy. dtable: up to 1000 random terms in order, sqrt(1000) / 3 ulps, three times at
  // worst.
  for (int64_t V : {1, 2, 50})
    for (int64_t N : {1, 3, 1000})
      test::expect_f32_near_reference(embedding(V, 67), N, {{"y", 0.5}, {"dtable", 32}});
}

TEST(EmbeddingCpu, KeepsTheOpPromises) {
  test::expect_op_promises(embedding(1, 1));
  test::expect_op_promises(embedding(50, 200));
}

// In both directions the message has the row, the id and the vocabulary.
TEST_P(Embedding, RefusesTokensOutsideTheTable) {
  const test::SmallContext ctx(GetParam());
  for (int32_t bad : {-1, 61, 1 << 30}) {
    const test::OpProblem p = embedding(61, 4)({.N = 20});
    p["tokens"].as<int32_t>()[13] = bad;
    for (const auto* call : {&p.forward, &p.backward}) {
      const std::string message = test::error_of([&] { (*call)(ctx, p); });
      test::expect_part(message, "token " + std::to_string(bad) + " at row 13");
      test::expect_part(message, "60");
    }
  }
}

TEST(EmbeddingContract, ErrorsNameTheValues) {
  const test::SmallContext ctx;
  const test::OpProblem p = embedding(7, 8)({.N = 3}),
                        q = embedding(5, 6)({.dtype = DType::f64, .N = 4});
  const auto forward = [&](auto change) {
    EmbeddingForward a{.tokens = p["tokens"], .table = p["table"], .y = p["y"]};
    change(a);
    return test::error_of([&] { embedding_forward(ctx, a); });
  };
  const auto backward = [&](auto change) {
    EmbeddingBackward a{.tokens = p["tokens"], .dy = p["dy"], .dtable = {p["dtable"]}};
    change(a);
    return test::error_of([&] { embedding_backward(ctx, a); });
  };
  test::expect_part(forward([&](auto&) {}), "no error");
  test::expect_part(forward([&](auto& a) { a.tokens.dtype = DType::i64; }), "tokens is i64 [3]");
  test::expect_part(forward([&](auto& a) { a.y = q["y"]; }),
                    "y is f64 [4, 6] on cpu, expected f32 [3, 8]");
  test::expect_part(forward([&](auto& a) { a.y = {}; }), "y is missing");
  test::expect_part(backward([&](auto&) {}), "no error");
  test::expect_part(backward([&](auto& a) { a.dy = q["dy"]; }), "dy is f64 [4, 6]");
  test::expect_part(backward([&](auto& a) { a.dtable.t = q["dtable"]; }), "dtable is f64 [5, 6]");
}

}  // namespace
}  // namespace sluice
