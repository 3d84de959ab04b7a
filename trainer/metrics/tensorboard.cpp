// trainer/metrics/tensorboard.cpp -- protobuf's wire format by hand, of the few fields needed.
#include "trainer/metrics/tensorboard.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <chrono>
#include <filesystem>

#include "kernels/base/check.h"

namespace sluice {

namespace {

constexpr const char* kPrefix = "events.out.tfevents.";

template <class T>
std::string little_endian(T x) {
  std::string bytes;
  for (size_t i = 0; i < sizeof(T); ++i) bytes += char(uint64_t(x) >> (8 * i) & 255);
  return bytes;
}

std::string varint(uint64_t x) {
  std::string bytes;
  for (; x >= 128; x >>= 7) bytes += char((x & 127) | 128);
  return bytes + char(x);
}

// A field's key is its number and wire type: 0 varint, 1 eight bytes, 2 length and bytes, 5 four.
std::string key(uint64_t field, uint64_t wire_type) {
  return varint(field << 3 | wire_type);
}
std::string integer_field(uint64_t field, int64_t x) {
  return key(field, 0) + varint(uint64_t(x));
}
std::string double_field(uint64_t field, double x) {
  return key(field, 1) + little_endian(std::bit_cast<uint64_t>(x));
}
std::string bytes_field(uint64_t field, const std::string& x) {
  return key(field, 2) + varint(x.size()) + x;
}
std::string float_field(uint64_t field, float x) {
  return key(field, 5) + little_endian(std::bit_cast<uint32_t>(x));
}

uint32_t masked(uint32_t crc) {  // so that a CRC over data with CRCs in it stays a good one
  return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

double wall_seconds() {  // people read it; nothing is computed from it
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

int64_t next_number(const std::string& folder) {
  int64_t last = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind(kPrefix, 0) != 0) continue;
    int64_t number = 0;
    std::from_chars(name.data() + std::string(kPrefix).size(), name.data() + name.size(), number);
    last = std::max(last, number);
  }
  return last + 1;
}

}  // namespace

uint32_t crc32c(const std::string& bytes) {
  static const std::array<uint32_t, 256> table = [] {
    std::array<uint32_t, 256> t{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t x = i;
      for (int bit = 0; bit < 8; ++bit) x = x >> 1 ^ (x & 1 ? 0x82f63b78u : 0);
      t[i] = x;
    }
    return t;
  }();
  uint32_t crc = ~0u;
  for (const char c : bytes) crc = crc >> 8 ^ table[(crc ^ uint8_t(c)) & 255];
  return ~crc;
}

std::string tf_record(const std::string& payload) {
  const std::string length = little_endian(uint64_t(payload.size()));
  return length + little_endian(masked(crc32c(length))) + payload +
         little_endian(masked(crc32c(payload)));
}

std::string version_event(double wall) {
  return double_field(1, wall) + bytes_field(3, "brain.Event:2");
}

std::string start_event(double wall, int64_t step) {
  constexpr int64_t kStart = 1;
  return double_field(1, wall) + integer_field(2, step) + bytes_field(7, integer_field(1, kStart));
}

std::string scalars_event(double wall, int64_t step,
                          const std::vector<std::pair<std::string, double>>& scalars) {
  std::string summary;
  for (const auto& [tag, value] : scalars)
    summary += bytes_field(1, bytes_field(1, tag) + float_field(2, float(value)));
  return double_field(1, wall) + integer_field(2, step) + bytes_field(5, summary);
}

TensorBoard::TensorBoard(const std::string& folder, int64_t resume_step) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw Error(cat(folder, ": ", error.message()));
  file_ = std::make_unique<AppendFile>(
      fmt::format("{}/{}{:010}.sluice", folder, kPrefix, next_number(folder)));
  const double wall = wall_seconds();
  file_->append(tf_record(version_event(wall)) + tf_record(start_event(wall, resume_step + 1)));
}

void TensorBoard::write(int64_t step, const std::vector<std::pair<std::string, double>>& scalars) {
  file_->append(tf_record(scalars_event(wall_seconds(), step, scalars)));
}

}  // namespace sluice
