// Operands of a benchmark case in a device's memory, through the plugin's table alone: the same code runs over a card
// and over the emulation. Values are random, outputs start as NaN.
#pragma once
#include <string>
#include <type_traits>
#include <vector>

#include "core/plugin.h"
#include "core/tensor.h"

namespace gavel::bench {

class Operands {
 public:
  Operands(const PluginBackend& backend, int32_t device) : backend_(backend), device_(device) {}
  ~Operands();
  Operands(const Operands&) = delete;
  Operands& operator=(const Operands&) = delete;

  /// Uniform in [-scale, scale); fp32 or bf16.
  Tensor random(Shape shape, DType dtype, float scale = 1.0f, Layout layout = Layout::rows);
  /// NaN in every element: what a kernel leaves out shows.
  Tensor poisoned(Shape shape, DType dtype);
  Tensor zeros(Shape shape, DType dtype, Layout layout = Layout::rows);
  template <class T>
  T* array(const std::vector<T>& values) {
    static_assert(std::is_trivially_copyable_v<T>);
    return static_cast<T*>(copy(values.data(), values.size() * sizeof(T)));
  }
  /// `size` bytes of the device, at least one; null after a failure, which status() has.
  void* allocate(uint64_t size_bytes);
  /// A copy of host memory; null for no bytes.
  void* copy(const void* from, uint64_t size_bytes);
  void read(void* to, const void* from, uint64_t size_bytes);

  const PluginBackend& backend() const { return backend_; }
  int32_t device() const { return device_; }
  uint64_t size_bytes() const { return size_; }
  const PluginStatus& status() const { return status_; }

 private:
  Tensor tensor(Shape shape, DType dtype, Layout layout);
  void repeat(const Tensor& tensor, const std::vector<uint8_t>& block);

  const PluginBackend& backend_;
  int32_t device_;
  uint64_t size_ = 0, seed_ = 0;
  std::vector<void*> held_;
  PluginStatus status_;
};

/// Elements that a tensor takes where it lies: padding of packed weights included.
int64_t stored_count(const Tensor& tensor);

}  // namespace gavel::bench
