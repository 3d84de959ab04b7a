// model/export/gguf_types.cpp -- sizes of types, and their rounding.
#include "model/export/gguf_types.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/base/check.h"

namespace sluice {
namespace {

struct Named {
  uint32_t type;
  GgufBlock block;
};
constexpr Named kTypes[] = {
    {0, {"f32", 1, 4}},         {1, {"f16", 1, 2}},         {2, {"q4_0", 32, 18}},
    {3, {"q4_1", 32, 20}},      {6, {"q5_0", 32, 22}},      {7, {"q5_1", 32, 24}},
    {8, {"q8_0", 32, 34}},      {9, {"q8_1", 32, 36}},      {10, {"q2_k", 256, 84}},
    {11, {"q3_k", 256, 110}},   {12, {"q4_k", 256, 144}},   {13, {"q5_k", 256, 176}},
    {14, {"q6_k", 256, 210}},   {15, {"q8_k", 256, 292}},   {16, {"iq2_xxs", 256, 66}},
    {17, {"iq2_xs", 256, 74}},  {18, {"iq3_xxs", 256, 98}}, {19, {"iq1_s", 256, 50}},
    {20, {"iq4_nl", 32, 18}},   {21, {"iq3_s", 256, 110}},  {22, {"iq2_s", 256, 82}},
    {23, {"iq4_xs", 256, 136}}, {24, {"i8", 1, 1}},         {25, {"i16", 1, 2}},
    {26, {"i32", 1, 4}},        {27, {"i64", 1, 8}},        {28, {"f64", 1, 8}},
    {29, {"iq1_m", 256, 56}},   {30, {"bf16", 1, 2}},       {34, {"tq1_0", 256, 54}},
    {35, {"tq2_0", 256, 66}},   {39, {"mxfp4", 32, 17}},    {40, {"nvfp4", 64, 36}},
};

constexpr int64_t kQ8Elements = 32;
struct Q8Block {
  uint16_t scale;
  int8_t values[kQ8Elements];
};
static_assert(sizeof(Q8Block) == 34);

uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

uint16_t to_bf16(float x) {
  const uint32_t bits = bits_of(x);
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

Q8Block to_q8(const float* x) {
  float largest = 0;
  for (int64_t i = 0; i < kQ8Elements; ++i) largest = std::max(largest, std::abs(x[i]));
  // The format rounds a scale this small to 0 anyway, and its inverse may be infinite.
  const float scale = largest / 127, inverse = scale < 1e-30f ? 0 : 1 / scale;
  Q8Block b{.scale = to_f16(scale), .values = {}};
  for (int64_t i = 0; i < kQ8Elements; ++i) b.values[i] = int8_t(std::round(x[i] * inverse));
  return b;
}

bool holds(GgufType type, float x) {
  if (!std::isfinite(x)) return false;
  if (type == GgufType::f16) return std::isfinite(from_f16(to_f16(x)));
  if (type == GgufType::bf16) return (to_bf16(x) & 0x7fff) < 0x7f80;
  if (type == GgufType::q8_0) return std::isfinite(from_f16(to_f16(std::abs(x) / 127)));
  return true;
}

}  // namespace

const GgufBlock* find_block(GgufType type) {
  for (const Named& t : kTypes)
    if (t.type == uint32_t(type)) return &t.block;
  return nullptr;
}

const GgufBlock& block_of(GgufType type) {
  const GgufBlock* b = find_block(type);
  SLUICE_CHECK(b, "element type ", uint32_t(type), " of GGUF is not known here");
  return *b;
}

bool can_encode(GgufType type) {
  return type == GgufType::f32 || type == GgufType::f16 || type == GgufType::bf16 ||
         type == GgufType::q8_0;
}

void encode(GgufType type, const float* from, int64_t n, void* to) {
  SLUICE_CHECK(can_encode(type) && n % block_of(type).elements == 0, n, " elements as ",
               block_of(type).name, ", expected whole blocks of ", block_of(type).elements,
               ", of f32, f16, bf16 or q8_0");
  for (int64_t i = 0; i < n; ++i)
    SLUICE_CHECK(holds(type, from[i]), from[i], " has no place in ", block_of(type).name);
  auto* halves = static_cast<uint16_t*>(to);
  switch (type) {
    case GgufType::f32: std::copy_n(from, n, static_cast<float*>(to)); break;
    case GgufType::f16: std::transform(from, from + n, halves, to_f16); break;
    case GgufType::bf16: std::transform(from, from + n, halves, to_bf16); break;
    case GgufType::q8_0:
      for (int64_t i = 0; i < n / kQ8Elements; ++i)
        static_cast<Q8Block*>(to)[i] = to_q8(from + i * kQ8Elements);
      break;
  }
}

void decode(GgufType type, const void* from, int64_t n, float* to) {
  SLUICE_CHECK(can_encode(type) && n % block_of(type).elements == 0, n, " elements of ",
               block_of(type).name, ", expected whole blocks of f32, f16, bf16 or q8_0");
  const auto* halves = static_cast<const uint16_t*>(from);
  switch (type) {
    case GgufType::f32: std::copy_n(static_cast<const float*>(from), n, to); break;
    case GgufType::f16: std::transform(halves, halves + n, to, from_f16); break;
    case GgufType::bf16:
      for (int64_t i = 0; i < n; ++i) to[i] = float_of(uint32_t(halves[i]) << 16);
      break;
    case GgufType::q8_0:
      for (int64_t i = 0; i < n; ++i) {
        const Q8Block& b = static_cast<const Q8Block*>(from)[i / kQ8Elements];
        to[i] = from_f16(b.scale) * float(b.values[i % kQ8Elements]);
      }
      break;
  }
}

uint16_t to_f16(float x) {
  const uint32_t bits = bits_of(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return uint16_t(sign | 0x7e00);   // NaN
  if (magnitude >= 0x477ff000) return uint16_t(sign | 0x7c00);  // rounds to 65536 or more
  if (magnitude < 0x38800000) {  // below 2^-14: a multiple of 2^-24, which adding 0.5 rounds to
    const uint32_t sum = bits_of(float_of(magnitude) + 0.5f);
    return uint16_t(sign | (sum - bits_of(0.5f)));
  }
  const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
  return uint16_t(sign | (rounded - 0x38000000) >> 13);
}

float from_f16(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000) << 16, magnitude = h & 0x7fff;
  if (magnitude >= 0x7c00) return float_of(sign | 0x7f800000 | uint32_t(h & 0x3ff) << 13);
  if (magnitude < 0x400)  // below 2^-14: a multiple of 2^-24
    return float_of(sign | bits_of(float(magnitude) * 0x1p-24f));
  return float_of(sign | ((magnitude << 13) + 0x38000000));
}

}  // namespace sluice
