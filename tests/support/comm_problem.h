// tests/support/comm_problem.h -- every collective against its definition, on any back end.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/comm/local_comm.h"
#include "kernels/tensor/rng.h"

namespace sluice::test {

// Odd sizes, none at all, and more than one block of the summation (1024).
inline const std::vector<int64_t> kSizes = {0, 1, 3, 7, 1024, 2051};

template <class T>
Tensor view(std::vector<T>& v) {
  return make_tensor(v.data(), dtype_of<T>(), Device::cpu, {int64_t(v.size())});
}

// Element i of rank r: sums of these differ in the last bits if the order of the ranks changes. The
// scales are powers of two: the product is exact, so a compiler that fuses it with the sum of
// ordered_sum() into one FMA changes no bit.
template <class T>
T value(int r, int64_t i) {
  const double x = random_normal(uint64_t(r + 1), uint64_t(i));
  if constexpr (std::is_integral_v<T>) return T(x * 1e6);
  return T(x * (r % 2 ? 8192.0 : 1.0 / 1024));
}

template <class T>
T ordered_sum(int ranks, int64_t i) {
  T s = value<T>(0, i);
  for (int r = 1; r < ranks; ++r) s += value<T>(r, i);
  return s;
}

// All collectives, on n elements a rank.
template <class T>
void check_collectives(Comm& comm, int64_t n) {
  const int N = comm.size(), r = comm.rank();
  const auto cell = [&](int64_t i) { return size_t(i); };

  std::vector<T> local(cell(n)), all(cell(n * N), T(99));
  for (int64_t i = 0; i < n; ++i) local[cell(i)] = value<T>(r, i);
  comm.all_gather(view(local), view(all));
  for (int p = 0; p < N; ++p)
    for (int64_t i = 0; i < n; ++i)
      ASSERT_EQ(all[cell(p * n + i)], value<T>(p, i)) << p << " " << i;

  for (int64_t i = 0; i < n * N; ++i) all[cell(i)] = value<T>(r, i);
  std::fill(local.begin(), local.end(), T(99));
  comm.reduce_scatter(view(all), view(local));
  for (int64_t i = 0; i < n; ++i) ASSERT_EQ(local[cell(i)], ordered_sum<T>(N, r * n + i)) << i;

  // In place: this rank's part of `all` gets the sum, the others stay.
  Tensor part = view(all).rows(r * n, n);
  comm.reduce_scatter(view(all), part);
  for (int64_t i = 0; i < n * N; ++i)
    ASSERT_EQ(all[cell(i)],
              i / std::max<int64_t>(n, 1) == r ? ordered_sum<T>(N, i) : value<T>(r, i));
  comm.all_gather(part, view(all));
  for (int64_t i = 0; i < n * N; ++i) ASSERT_EQ(all[cell(i)], ordered_sum<T>(N, i));

  for (int64_t i = 0; i < n; ++i) local[cell(i)] = value<T>(r, i);
  comm.all_reduce_sum(view(local));
  for (int64_t i = 0; i < n; ++i) ASSERT_EQ(local[cell(i)], ordered_sum<T>(N, i));

  for (int64_t i = 0; i < n; ++i) local[cell(i)] = value<T>(r, i);
  comm.all_reduce_max(view(local));
  for (int64_t i = 0; i < n; ++i) {
    T largest = value<T>(0, i);
    for (int p = 1; p < N; ++p) largest = std::max(largest, value<T>(p, i));
    ASSERT_EQ(local[cell(i)], largest) << i;
  }

  for (int root = 0; root < N; ++root) {
    for (int64_t i = 0; i < n; ++i) local[cell(i)] = value<T>(r, i);
    comm.broadcast(view(local), root);
    for (int64_t i = 0; i < n; ++i) ASSERT_EQ(local[cell(i)], value<T>(root, i));
  }
}

// What rank p sends to rank q: none for some, and not the same both ways.
inline int64_t a2a_count(int p, int q) {
  return (3 * p + 5 * q) % 4 * (p + 1);
}

// Gaps between the parts, and parts in another order than the ranks', on both sides.
template <class T>
void check_all_to_all(Comm& comm) {
  const int N = comm.size(), r = comm.rank();
  std::vector<int64_t> send_counts, recv_counts, send_begins(N), recv_begins(N);
  int64_t sent = 1, got = 2;
  for (int p = 0; p < N; ++p) {
    send_counts.push_back(a2a_count(r, p));
    recv_counts.push_back(a2a_count(p, r));
  }
  for (int p = N - 1; p >= 0; --p) {
    send_begins[size_t(p)] = sent;
    recv_begins[size_t(p)] = got;
    sent += send_counts[size_t(p)] + 1;
    got += recv_counts[size_t(p)] + 2;
  }
  std::vector<T> send(static_cast<size_t>(sent)), recv(size_t(got), T(99)), want = recv;
  for (int p = 0; p < N; ++p) {
    for (int64_t i = 0; i < send_counts[size_t(p)]; ++i)
      send[size_t(send_begins[size_t(p)] + i)] = value<T>(r, 1000 * p + i);
    for (int64_t i = 0; i < recv_counts[size_t(p)]; ++i)
      want[size_t(recv_begins[size_t(p)] + i)] = value<T>(p, 1000 * r + i);
  }
  comm.all_to_all_v(view(send), {send_counts, send_begins}, view(recv), {recv_counts, recv_begins},
                    {.what = "tokens"});
  ASSERT_EQ(recv, want);
}

// The same without begins: parts one after the other.
inline void check_packed_all_to_all(Comm& comm) {
  const int N = comm.size(), r = comm.rank();
  std::vector<int64_t> counts, want;
  std::vector<int64_t> send;
  for (int p = 0; p < N; ++p) {
    counts.push_back(p == r ? 0 : 2);
    for (int64_t i = 0; i < counts.back(); ++i) {
      send.push_back(100 * r + 10 * p + i);
      want.push_back(100 * p + 10 * r + i);
    }
  }
  std::vector<int64_t> recv(want.size());
  comm.all_to_all_v(view(send), {counts, {}}, view(recv), {counts, {}});
  ASSERT_EQ(recv, want);
}

inline void check_all_collectives(Comm& comm, int64_t n) {
  check_collectives<float>(comm, n);
  check_collectives<double>(comm, n);
  check_collectives<int32_t>(comm, n);
  check_collectives<int64_t>(comm, n);
}

// A NaN on one rank is everybody's.
inline void check_max_of_nan(Comm& comm) {
  for (int bad = 0; bad < comm.size(); ++bad) {
    std::vector<float> x = {comm.rank() == bad ? NAN : float(comm.rank()), float(-comm.rank())};
    comm.all_reduce_max(view(x));
    ASSERT_TRUE(std::isnan(x[0])) << bad;
    ASSERT_EQ(x[1], 0.0f);
  }
}

// bf16 tensors are moved, never summed.
inline void check_bf16(Comm& comm) {
  const int N = comm.size(), r = comm.rank();
  std::vector<uint16_t> local(3, uint16_t(0x3f80 + r)), all(size_t(3 * N));
  const auto bf16 = [](std::vector<uint16_t>& v) {
    return make_tensor(v.data(), DType::bf16, Device::cpu, {int64_t(v.size())});
  };
  comm.all_gather(bf16(local), bf16(all));
  for (size_t i = 0; i < all.size(); ++i) ASSERT_EQ(all[i], 0x3f80 + i / 3);
  comm.broadcast(bf16(local), N - 1);
  ASSERT_EQ(local[2], 0x3f80 + N - 1);
  std::vector<int64_t> counts(size_t(N), 1);
  std::vector<uint16_t> from(counts.size(), uint16_t(r)), to(counts.size());
  comm.all_to_all_v(bf16(from), {counts, {}}, bf16(to), {counts, {}});
  for (size_t p = 0; p < to.size(); ++p) ASSERT_EQ(to[p], p);
}

// Two colors, keys against the order of the ranks; then each part once more.
inline void check_split(Comm& comm) {
  const int N = comm.size(), r = comm.rank();
  const auto part = comm.split(r % 2, -r, {.what = "odd and even"});
  const int members = (N - r % 2 + 1) / 2;
  ASSERT_EQ(part->size(), members);
  ASSERT_EQ(part->rank(), members - 1 - r / 2);
  ASSERT_EQ(part->name(), "odd and even");
  std::vector<int64_t> ranks(static_cast<size_t>(members)), mine = {r};
  part->all_gather(view(mine), view(ranks));
  for (int i = 0; i < members; ++i) ASSERT_EQ(ranks[size_t(i)], 2 * (members - 1 - i) + r % 2);
  const auto alone = part->split(part->rank(), 0, {.what = "alone"});
  ASSERT_EQ(alone->size(), 1);
  for (const int64_t n : kSizes) check_all_collectives(*part, n);
  check_collectives<float>(*alone, 7);
  comm.barrier();
}

// What LocalGroup::run throws.
inline std::string failure_of(LocalGroup& group, const std::function<void(Comm&)>& body) {
  try {
    group.run(body);
  } catch (const std::exception& e) {
    return e.what();
  }
  return "no exception";
}

inline void check_every_collective(Comm& comm) {
  for (const int64_t n : kSizes) check_all_collectives(comm, n);
  check_all_to_all<float>(comm);
  check_all_to_all<int64_t>(comm);
  check_packed_all_to_all(comm);
  check_max_of_nan(comm);
  check_bf16(comm);
  check_split(comm);
}

}  // namespace sluice::test
