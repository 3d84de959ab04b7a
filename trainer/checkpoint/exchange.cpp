// trainer/checkpoint/exchange.cpp -- lengths first, then bytes of the longest.
#include "trainer/checkpoint/exchange.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>

#include "kernels/tensor/buffer.h"

namespace sluice {

std::vector<std::string> gather_texts(Comm& comm, const std::string& mine) {
  const int N = comm.size();
  const Buffer length(DType::i64, {1}), lengths(DType::i64, {N});
  *length.view().as<int64_t>() = int64_t(mine.size());
  comm.all_gather(length.view(), lengths.view(), {.what = "lengths of texts"});
  const int64_t* n = lengths.view().as<int64_t>();
  const int64_t longest = *std::max_element(n, n + N);
  if (longest == 0) return std::vector<std::string>(size_t(N));
  const Buffer text(DType::u8, {longest}), texts(DType::u8, {N * longest});
  std::memcpy(text.view().data, mine.data(), mine.size());
  comm.all_gather(text.view(), texts.view(), {.what = "texts"});
  std::vector<std::string> all;
  for (int r = 0; r < N; ++r)
    all.emplace_back(static_cast<const char*>(texts.view().data) + r * longest, size_t(n[r]));
  return all;
}

std::string broadcast_text(Comm& comm, const std::string& text) {
  const Buffer length(DType::i64, {1});
  *length.view().as<int64_t>() = int64_t(text.size());
  comm.broadcast(length.view(), 0, {.what = "length of a text"});
  const int64_t n = *length.view().as<int64_t>();
  if (n == 0) return "";
  const Buffer bytes(DType::u8, {n});
  if (comm.rank() == 0) std::memcpy(bytes.view().data, text.data(), size_t(n));
  comm.broadcast(bytes.view(), 0, {.what = "text"});
  return {static_cast<const char*>(bytes.view().data), size_t(n)};
}

bool all_ranks(Comm& comm, bool mine) {
  const Buffer count(DType::i32, {1});
  *count.view().as<int32_t>() = mine ? 1 : 0;
  comm.all_reduce_sum(count.view(), {.what = "is this done everywhere?"});
  return *count.view().as<int32_t>() == comm.size();
}

void on_threads(Comm& comm, const std::function<void()>& f) {
  std::atomic<bool> done{false};
  std::jthread thread([&] {
    f();
    done = true;
  });
  while (!all_ranks(comm, done)) std::this_thread::sleep_for(std::chrono::milliseconds(2));
}

std::string errors_of_ranks(Comm& comm, const std::string& mine) {
  if (all_ranks(comm, mine.empty())) return "";
  std::string text;
  const std::vector<std::string> all = gather_texts(comm, mine);
  for (size_t r = 0; r < all.size(); ++r)
    if (!all[r].empty()) text += cat(text.empty() ? "" : "; ", "rank ", r, ": ", all[r]);
  return text;
}

}  // namespace sluice
