// model/export/gguf_types.h -- the element types of GGUF files, and rows of f32 as four of them.
#pragma once

#include <cstdint>
#include <string>

namespace sluice {

// The number is the one in files. These we write; others are read by name and size alone.
enum class GgufType : uint32_t { f32 = 0, f16 = 1, q8_0 = 8, bf16 = 30 };

// Rows are cut into blocks of so many elements, each of so many bytes.
struct GgufBlock {
  const char* name;
  int64_t elements, bytes;
};
const GgufBlock* find_block(GgufType type);  // null: no type that we know
const GgufBlock& block_of(GgufType type);    // throws

bool can_encode(GgufType type);  // the four

// n is a multiple of the block's elements. f16 and bf16 round to nearest, ties to even; q8_0 is 32
// numbers as int8 times one f16 scale, the largest magnitude / 127, rounded half away from zero.
// Throws if a number is not finite or has no place in the type.
void encode(GgufType type, const float* from, int64_t n, void* to);
void decode(GgufType type, const void* from, int64_t n, float* to);

uint16_t to_f16(float x);  // nearest, ties to even; too large: infinity
float from_f16(uint16_t bits);

}  // namespace sluice
