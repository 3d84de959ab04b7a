// tests/kernels/sequence_exchange_test.cpp -- who has what of documents that are cut over ranks,
// and the rows that go between them.
#include "kernels/comm/sequence_exchange.h"

#include <gtest/gtest.h>

#include "kernels/comm/local_comm.h"
#include "tests/support/cpu_context.h"
#include "tests/support/gradcheck.h"
#include "tests/support/message.h"

namespace sluice::test {
namespace {

using Lists = std::vector<int32_t>;

Buffer list(const Lists& values) {
  Buffer b(DType::i32, {int64_t(values.size())});
  std::copy(values.begin(), values.end(), b.view().as<int32_t>());
  return b;
}

TEST(SequenceCut, ADocumentOverThreeRanks) {
  const Lists cu{0, 3, 3, 17, 20};  // 20 tokens, 5 a rank
  const SequenceCut a(cu, 4, 0), b(cu, 4, 1), c(cu, 4, 2), d(cu, 4, 3);
  EXPECT_EQ(a.documents, (Lists{0, 3, 5, 5, 5}));
  EXPECT_EQ(b.documents, (Lists{0, 5, 5, 5, 5}));
  EXPECT_EQ(d.documents, (Lists{0, 2, 5, 5, 5}));
  EXPECT_FALSE(a.mine().enters);
  EXPECT_TRUE(a.mine().leaves);
  EXPECT_EQ(a.mine().last_begin, 3);
  EXPECT_FALSE(a.mine().passes());
  EXPECT_TRUE(b.mine().passes());
  EXPECT_TRUE(c.mine().passes());
  EXPECT_TRUE(d.mine().enters);
  EXPECT_FALSE(d.mine().leaves);
  EXPECT_EQ(d.mine().first_end, 2);
  // Keys: of its documents, from their first token to this rank's last.
  EXPECT_EQ(c.keys_begin, 3);
  EXPECT_EQ(c.keys, (Lists{0, 12, 12, 12, 12}));
  EXPECT_EQ(d.keys_begin, 3);
  EXPECT_EQ(d.keys, (Lists{0, 14, 17, 17, 17}));
  // Three rows before: of rank 1 two are its document's.
  EXPECT_EQ(a.documents_with_halo(3), (Lists{0, 3, 6, 8, 8, 8}));
  EXPECT_EQ(b.documents_with_halo(3), (Lists{0, 1, 8, 8, 8, 8}));
  EXPECT_EQ(c.documents_with_halo(3), (Lists{0, 0, 8, 8, 8, 8}));
}

TEST(SequenceCut, EndsBetweenDocumentsAndRanksWithoutTokens) {
  const SequenceCut first({{0, 4, 8}}, 2, 0), second({{0, 4, 8}}, 2, 1);
  EXPECT_FALSE(first.mine().leaves);
  EXPECT_FALSE(second.mine().enters);
  EXPECT_EQ(second.keys_begin, 4);
  const SequenceCut none({{0, 5}}, 4, 3);  // 2, 2, 1, 0 tokens
  EXPECT_EQ(none.mine().tokens, 0);
  EXPECT_EQ(none.documents, (Lists{0, 0}));
  EXPECT_EQ(none.keys, (Lists{0, 0}));
  expect_message([] { SequenceCut({{0, 9}}, 4, 1).documents_with_halo(4); }, "fewer than the 4");
}

// Rows are numbered by the token, times 10 plus the column.
TEST(SequenceExchange, RowsComeAndTheirGradientsGoBack) {
  const Lists cu{0, 4, 17};
  LocalGroup(3).run([&](Comm& group) {
    const CpuContext cpu(Mode::run, 1);
    const SequenceCut cut(cu, 3, group.rank());  // 6, 6, 5
    const Buffer with_halo = list(cut.documents_with_halo(2)), keys = list(cut.keys);
    const SequenceExchange exchange(group, cut, 2, with_halo.view(), keys.view());
    const int64_t n = cut.mine().tokens, begin = cut.mine().begin;
    const Buffer x(DType::f64, {n, 3}), before(DType::f64, {2, 3}), after(DType::f64, {2, 3});
    for (int64_t i = 0; i < n * 3; ++i)
      x.view().as<double>()[i] = double(10 * (begin + i / 3) + i % 3);
    exchange.rows_before(cpu, x.view(), before.view());
    for (int64_t i = 0; i < 6; ++i)
      EXPECT_EQ(before.view().as<double>()[i],
                group.rank() == 0 ? 0 : double(10 * (begin - 2 + i / 3) + i % 3));
    exchange.gradient_of_rows_before(cpu, before.view(), after.view());
    for (int64_t i = 0; i < 6; ++i)
      EXPECT_EQ(after.view().as<double>()[i],
                group.rank() == 2 ? 0 : double(10 * (begin + n - 2 + i / 3) + i % 3));
    const Buffer rows(DType::f64, {exchange.key_rows(), 3}), dx(x.view());
    exchange.key_rows(cpu, x.view(), rows.view());
    for (int64_t i = 0; i < rows.view().numel(); ++i)
      EXPECT_EQ(rows.view().as<double>()[i], double(10 * (cut.keys_begin + i / 3) + i % 3));
    fill(rows.view(), 1);
    exchange.gradient_of_key_rows(cpu, rows.view(), dx.view());
    for (int64_t i = 0; i < n; ++i) {  // a 1 from every rank whose keys the token is one of
      const int64_t token = begin + i;
      const double readers = token < 4 ? 1 : double(3 - group.rank());
      EXPECT_EQ(dx.view().row<double>(i)[0], readers) << token;
    }
  });
}

}  // namespace
}  // namespace sluice::test
