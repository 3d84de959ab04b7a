// kernels/tensor/arena.cpp -- first fit over an address-ordered free list.
#include "kernels/tensor/arena.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace sluice {

constexpr int64_t kAlign = 256;  // bytes: a CUDA allocation's, and four cache lines

const char* name(Purpose p) {
  switch (p) {
    case Purpose::activations: return "activations";
    case Purpose::gradients: return "gradients of activations";
    case Purpose::scratch: return "scratch";
    case Purpose::workspace: return "workspace of products";
  }
  return "?";
}

Arena::Arena(Device device, int64_t capacity) : device_(device), capacity_(capacity) {
  if (capacity >= 0) base_ = static_cast<char*>(allocate_bytes(device, capacity));
}

Arena::~Arena() {
  if (base_) free_bytes(device_, base_, capacity_);
}

Arena::Arena(Arena&& o) noexcept
    : device_(o.device_),
      capacity_(o.capacity_),
      poison_(o.poison_),
      base_(std::exchange(o.base_, nullptr)),
      used_(o.used_),
      peak_(o.peak_),
      end_(o.end_),
      free_(std::move(o.free_)),
      taken_(std::move(o.taken_)),
      in_use_(o.in_use_),
      at_peak_(o.at_peak_),
      script_(std::move(o.script_)),
      followed_(o.followed_),
      next_(o.next_) {}

void Arena::fill(int64_t offset, int64_t bytes) {
  if (poison_ == Poison::on && base_ && device_ == Device::cpu)
    std::memset(base_ + offset, 0xff, size_t(bytes));
}

void Arena::follow(std::span<const Range> script) {
  SLUICE_CHECK(used_ == 0, used_, " bytes are in use");
  followed_ = script;
  next_ = 0;
}

int64_t Arena::take_followed(int64_t bytes) {
  SLUICE_CHECK(next_ < followed_.size(), "the plan took ", followed_.size(), " ranges");
  const Range& range = followed_[next_++];
  SLUICE_CHECK(bytes <= range.bytes && range.offset + range.bytes <= capacity_, "range ", next_ - 1,
               " has ", range.bytes, " bytes at ", range.offset, " of ", capacity_, ", asked for ",
               bytes);
  return range.offset;
}

int64_t Arena::first_fit(int64_t bytes) {
  auto fit = std::find_if(free_.begin(), free_.end(), [&](auto& f) { return f.second >= bytes; });
  int64_t offset = end_;
  if (fit != free_.end()) {
    offset = fit->first;
    const int64_t rest = fit->second - bytes;
    free_.erase(fit);
    if (rest > 0) free_[offset + bytes] = rest;
  } else {
    SLUICE_CHECK(planning() || end_ + bytes <= capacity_, "the arena holds ", capacity_, " bytes, ",
                 used_, " are in use, and no free range has ", bytes);
    end_ += bytes;
  }
  return offset;
}

int64_t Arena::take(int64_t bytes, Purpose purpose) {
  bytes = std::max<int64_t>(kAlign, (bytes + kAlign - 1) / kAlign * kAlign);
  const int64_t offset = followed_.empty() ? first_fit(bytes) : take_followed(bytes);
  if (planning()) script_.push_back({offset, bytes});
  taken_[offset] = {bytes, purpose};
  used_ += bytes;
  in_use_[size_t(purpose)] += bytes;
  const int64_t end = followed_.empty() ? end_ : offset + bytes;
  if (end > peak_) {
    peak_ = end;
    at_peak_ = in_use_;
  }
  fill(offset, bytes);
  return offset;
}

void Arena::give(int64_t offset) {
  const auto range = taken_.find(offset);
  if (range == taken_.end()) return;
  int64_t bytes = range->second.bytes;
  in_use_[size_t(range->second.purpose)] -= bytes;
  taken_.erase(range);
  used_ -= bytes;
  fill(offset, bytes);
  if (!followed_.empty()) return;

  auto next = free_.lower_bound(offset);
  if (next != free_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == offset) {
      offset = before->first;
      bytes += before->second;
      free_.erase(before);
    }
  }
  if (next != free_.end() && offset + bytes == next->first) {
    bytes += next->second;
    free_.erase(next);
  }
  if (offset + bytes == end_)
    end_ = offset;
  else
    free_[offset] = bytes;
}

void* Arena::address(int64_t offset) const {
  return base_ ? base_ + offset : nullptr;
}

ArenaTensor::ArenaTensor(Arena& arena, DType dtype, std::initializer_list<int64_t> shape,
                         Purpose purpose)
    : arena_(&arena), view_(make_tensor(nullptr, dtype, arena.device(), shape)) {
  offset_ = arena.take(view_.bytes(), purpose);
  view_.data = arena.address(offset_);
}

ArenaTensor::ArenaTensor(Arena& arena, const Tensor& like, Purpose purpose)
    : arena_(&arena), view_(like) {
  int64_t step = 1;
  for (int i = view_.rank - 1; i >= 0; step *= view_.shape[i--]) view_.stride[i] = step;
  offset_ = arena.take(view_.bytes(), purpose);
  view_.data = arena.address(offset_);
}

ArenaTensor& ArenaTensor::operator=(ArenaTensor&& o) noexcept {
  release();
  arena_ = std::exchange(o.arena_, nullptr);
  offset_ = o.offset_;
  view_ = std::exchange(o.view_, Tensor{});
  return *this;
}

void ArenaTensor::release() {
  if (arena_) arena_->give(offset_);
  arena_ = nullptr;
  view_ = {};
}

}  // namespace sluice
