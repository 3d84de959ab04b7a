// trainer/loop/profile.cpp -- spans as text to rank 0.
#include "trainer/loop/profile.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "model/export/posix_file.h"

namespace sluice {

namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Packed {  // a span without its name
  double begin, end;
  int32_t row, rank;
  int64_t name;  // bytes, which follow
};

std::vector<uint8_t> pack(const std::vector<TraceSpan>& spans) {
  std::vector<uint8_t> bytes;
  for (const TraceSpan& s : spans) {
    const Packed p{s.begin, s.end, int32_t(s.row), s.rank, int64_t(s.name.size())};
    const auto* raw = reinterpret_cast<const uint8_t*>(&p);
    bytes.insert(bytes.end(), raw, raw + sizeof p);
    bytes.insert(bytes.end(), s.name.begin(), s.name.end());
  }
  return bytes;
}

void unpack(const uint8_t* at, const uint8_t* end, double shift, std::vector<TraceSpan>& spans) {
  while (at < end) {
    Packed p;
    std::memcpy(&p, at, sizeof p);
    at += sizeof p;
    spans.push_back({std::string(reinterpret_cast<const char*>(at), size_t(p.name)),
                     TraceRow(p.row), p.rank, p.begin + shift, p.end + shift});
    at += p.name;
  }
}

Tensor host(void* data, DType dtype, int64_t n) {
  return make_tensor(data, dtype, Device::cpu, {n});
}

}  // namespace

std::vector<TraceSpan> gather_spans(Comm& world, std::vector<TraceSpan> mine) {
  const auto N = size_t(world.size());
  std::vector<uint8_t> bytes = pack(mine);
  world.barrier({.what = "profile"});
  double clock = now();
  auto size = int64_t(bytes.size());
  std::vector<double> clocks(N);
  std::vector<int64_t> sizes(N), none(N, 0), gives(N, 0);
  world.all_gather(host(&clock, DType::f64, 1), host(clocks.data(), DType::f64, int64_t(N)),
                   {.what = "profile clocks"});
  world.all_gather(host(&size, DType::i64, 1), host(sizes.data(), DType::i64, int64_t(N)),
                   {.what = "profile sizes"});
  gives[0] = size;
  int64_t total = 0;
  if (world.rank() == 0)
    for (const int64_t s : sizes) total += s;
  std::vector<uint8_t> all(size_t(std::max<int64_t>(total, 1)));
  bytes.resize(std::max<size_t>(bytes.size(), 1));
  world.all_to_all_v(host(bytes.data(), DType::u8, size), {gives, {}},
                     host(all.data(), DType::u8, total), {world.rank() == 0 ? sizes : none, {}},
                     {.what = "profile spans"});
  std::vector<TraceSpan> spans;
  if (world.rank() != 0) return spans;
  const uint8_t* at = all.data();
  for (size_t r = 0; r < N; ++r) {
    const double shift = clocks[0] - clocks[r];
    unpack(at, at + sizes[r], std::abs(shift) > 1e-3 ? shift : 0, spans);
    at += sizes[r];
  }
  return spans;
}

StepProfile::StepProfile(const ProfileRequest& request, Comm& world, Device device)
    : request_(request), world_(world) {
  SLUICE_CHECK(device == Device::cpu, "--profile is for run.device: cpu, this is ", name(device),
               "; nsys profile shows the same ranges on a GPU");
}

bool StepProfile::at(int64_t steps_done) {
  if (open_ && steps_done >= request_.after + request_.steps) return write();
  if (open_ || steps_done != request_.after) return false;
  world_.barrier({.what = "profile"});
  Trace::start();
  open_ = true;
  return false;
}

bool StepProfile::write() {
  open_ = false;
  world_.barrier({.what = "profile"});
  const std::vector<TraceSpan> spans = gather_spans(world_, Trace::stop());
  if (world_.rank() != 0) return false;
  replace_text(request_.file, trace_json(spans));
  return true;
}

}  // namespace sluice
