// Where tensors live, and how the host moves their bytes: the process's own memory, or that of a device, which no host
// code touches. A value; the device outlives it. On a device everything takes place in stream order and a failure is
// known from finish(); in the process it is done when the call returns, and cannot fail.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/status.h"

namespace gavel {

struct Context;

class TensorMemory {
 public:
  TensorMemory() = default;
  explicit TensorMemory(Device* device) : device_(device) {}
  // Where a context computes. A plan's work is given addresses of the process, which stay untouched.
  explicit TensorMemory(const Context& context);

  bool on_device() const { return device_ != nullptr; }
  Device& device() const { return *device_; }

  // Bytes that can still be taken.
  size_t available() const;
  // out_of_memory, with both numbers, when `requested` bytes for `what` are more than there are, after this thread's
  // spare memory was given back; `advice` is the advice.
  Status check(size_t requested, const std::string& what, const std::string& advice) const;
  // Zeros in the process, which asks check() first; a device checks by itself and leaves what was there before. Fails
  // with out_of_memory.
  Status allocate(size_t size_bytes, const std::string& what, const std::string& advice, uint8_t** data) const;
  void release(void* data, size_t size_bytes) const;

  // Both lie here.
  void copy(void* to, const void* from, size_t size_bytes) const;
  void clear(void* to, size_t size_bytes) const;
  // From the process, which may change it afterwards.
  void upload(void* to, const void* from, size_t size_bytes) const;
  // To the process, where it is when the call returns.
  void download(void* to, const void* from, size_t size_bytes) const;
  using Transfer = Device::Transfer;
  void download(const std::vector<Transfer>& transfers) const;
  // Waits, and says what went wrong since the last call.
  Status finish() const { return device_ == nullptr ? Status::success() : device_->finish(); }

 private:
  Device* device_ = nullptr;
};

}  // namespace gavel
