// kernels/tensor/arena.h -- the planned memory of a step: activations, gradients and scratch.
//
// One region, a free list ordered by address, first fit. The same sequence of calls gives the same
// offsets, so a pass over a planning arena (no memory behind it) tells how large the real one must
// be, and every later step finds each tensor at the address that it had before.
// Not thread-safe: the thread that queues the work of one rank owns it.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "kernels/tensor/buffer.h"

namespace sluice {

// What memory of a step is for: `sluice plan` prints the peak by it.
enum class Purpose : uint8_t { activations, gradients, scratch, workspace };
constexpr int kPurposes = 4;
const char* name(Purpose);

class Arena {
 public:
  enum class Poison : uint8_t { off, on };

  // Plans: any size fits, and tensors have null data.
  static Arena plan(Device device) { return Arena(device, -1); }
  // Holds `capacity` bytes, allocated here and never again.
  Arena(Device device, int64_t capacity);
  ~Arena();
  Arena(Arena&&) noexcept;

  // Fresh and freed host memory is filled with NaN (0xff), so that a read of what nobody wrote, or
  // of what was given back, shows.
  void set_poison(Poison p) { poison_ = p; }

  // Ranges in the order that they were taken, when planning; for follow().
  struct Range {
    int64_t offset, bytes;
  };
  const std::vector<Range>& script() const { return script_; }
  // From now on the k-th take() gets the k-th range of `script`, which outlives the pass, and must
  // not ask for more: for passes that make the planned calls with fewer rows. First fit by itself
  // could leave gaps for small tensors that the plan with large ones has not seen.
  void follow(std::span<const Range> script);

  // Offset of a free range, 256-byte aligned. Throws with the sizes if nothing fits.
  int64_t take(int64_t bytes, Purpose purpose = Purpose::scratch);
  void give(int64_t offset);  // back; never throws for an offset that take() returned
  void* address(int64_t offset) const;

  bool planning() const { return capacity_ < 0; }
  Device device() const { return device_; }
  int64_t capacity() const { return capacity_; }  // -1 when planning
  int64_t used() const { return used_; }          // bytes in use now, alignment included
  int64_t peak() const { return peak_; }          // the highest end of a range so far
  void reset_peak() { peak_ = end_; }
  // By Purpose, when peak() was reached; the rest of it were gaps.
  const std::array<int64_t, kPurposes>& at_peak() const { return at_peak_; }

 private:
  int64_t first_fit(int64_t bytes);
  int64_t take_followed(int64_t bytes);
  void fill(int64_t offset, int64_t bytes);

  Device device_;
  int64_t capacity_;
  Poison poison_ = Poison::off;
  char* base_ = nullptr;
  int64_t used_ = 0, peak_ = 0, end_ = 0;  // end_: everything from here on is free
  std::map<int64_t, int64_t> free_;        // offset -> bytes, below end_, never adjacent
  struct Taken {
    int64_t bytes;
    Purpose purpose;
  };
  std::map<int64_t, Taken> taken_;  // by offset
  std::array<int64_t, kPurposes> in_use_{}, at_peak_{};
  std::vector<Range> script_;  // of a planning arena
  std::span<const Range> followed_;
  size_t next_ = 0;  // range of followed_
};

// Memory of an arena for as long as this object lives.
class ArenaTensor {
 public:
  ArenaTensor() = default;
  ArenaTensor(Arena& arena, DType dtype, std::initializer_list<int64_t> shape,
              Purpose purpose = Purpose::scratch);
  ArenaTensor(Arena& arena, const Tensor& like, Purpose purpose = Purpose::scratch);  // dense
  ~ArenaTensor() { release(); }
  ArenaTensor(ArenaTensor&& o) noexcept { *this = std::move(o); }
  ArenaTensor& operator=(ArenaTensor&& o) noexcept;

  const Tensor& view() const { return view_; }
  operator const Tensor&() const { return view_; }
  void release();

 private:
  Arena* arena_ = nullptr;
  int64_t offset_ = 0;
  Tensor view_;
};

}  // namespace sluice
