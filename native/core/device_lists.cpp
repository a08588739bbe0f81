#include "core/device_lists.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace gavel {
namespace {
constexpr uint64_t kSmallest = 256;
}

void DeviceLists::begin(bool measuring) {
  entries_.clear();
  used_ = 0;
  measuring_ = measuring;
  if (measuring) return;
  turn_ = 1 - turn_;
  Turn& turn = turns_[turn_];
  if (turn.used) backend_.wait(&launch_, turn.read, &status_);
}

// In a dry pass lists may hold anything yet: one place for each is counted.
uint8_t* DeviceLists::place(const void* host, uint64_t size_bytes) {
  uint8_t* const pinned = turns_[turn_].pinned;
  for (const Entry& entry : entries_) {
    if (entry.host != host || entry.size != size_bytes) continue;
    if (measuring_) return nullptr;
    if (std::memcmp(pinned + entry.offset, host, size_bytes) == 0) return data_ + entry.offset;
  }
  const uint64_t room = std::bit_ceil(std::max(size_bytes, kSmallest)), offset = used_;
  used_ += room;
  wish_ = std::max(wish_, used_);
  if (!measuring_) {
    if (used_ > size_) {
      if (status_.ok()) status_.set(Code::internal, "Expected the lists of a pass to be those of its dry run.");
      return nullptr;
    }
    std::memcpy(pinned + offset, host, size_bytes);
  }
  entries_.push_back({host, size_bytes, offset});
  return measuring_ ? nullptr : data_ + offset;
}

void DeviceLists::grow(bool planning) {
  if (!must_grow() || !status_.ok()) return;
  const uint64_t wish = wish_;
  if (!planning) {
    release();
    data_ = static_cast<uint8_t*>(backend_.allocate(launch_.device, wish, &status_));
    for (Turn& turn : turns_) {
      if (status_.ok()) turn.pinned = static_cast<uint8_t*>(backend_.allocate_host(launch_.device, wish, &status_));
      if (status_.ok()) turn.read = backend_.make_event(launch_.device, &status_);
    }
    if (!status_.ok()) return release();
  }
  size_ = wish_ = wish;
}

void DeviceLists::upload() {
  if (used_ == 0 || !status_.ok()) return;
  Turn& turn = turns_[turn_];
  backend_.copy_to_device(&launch_, data_, turn.pinned, used_, &status_);
  backend_.mark(&launch_, turn.read, &status_);
  turn.used = true;
}

void DeviceLists::release() {
  PluginStatus ignored;
  if (data_ != nullptr) backend_.release(launch_.device, data_, &ignored);
  for (Turn& turn : turns_) {
    if (turn.pinned != nullptr) backend_.release_host(launch_.device, turn.pinned, &ignored);
    if (turn.read != nullptr) backend_.release_event(launch_.device, turn.read, &ignored);
    turn = {};
  }
  data_ = nullptr;
  size_ = wish_ = used_ = 0;
}

}  // namespace gavel
