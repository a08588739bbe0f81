#include "bench/native/cuda/operands.h"

#include <algorithm>

namespace gavel::bench {
namespace {

// Random values repeat after this many: an odd number, so that rows do not repeat with it.
constexpr int64_t kPeriod = (int64_t{1} << 20) + 7;

float noise(uint64_t index) {
  uint64_t z = (index + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return static_cast<float>(z >> 40) * 0x1p-23f - 1.0f;
}

}  // namespace

int64_t stored_count(const Tensor& tensor) {
  return tensor.layout == Layout::panels ? panel_count(tensor.rows(), tensor.cols()) : tensor.shape.count();
}

Operands::~Operands() {
  PluginStatus status;
  for (void* memory : held_) backend_.release(device_, memory, &status);
}

void* Operands::allocate(uint64_t size_bytes) {
  if (!status_.ok()) return nullptr;
  void* memory = backend_.allocate(device_, std::max<uint64_t>(size_bytes, 1), &status_);
  if (memory == nullptr) return nullptr;
  held_.push_back(memory);
  size_ += size_bytes;
  return memory;
}

void* Operands::copy(const void* from, uint64_t size_bytes) {
  if (size_bytes == 0) return nullptr;
  void* to = allocate(size_bytes);
  if (to == nullptr) return nullptr;
  PluginLaunch launch;
  launch.device = device_;
  backend_.copy_to_device(&launch, to, from, size_bytes, &status_);
  backend_.synchronize(&launch, &status_);
  return to;
}

void Operands::read(void* to, const void* from, uint64_t size_bytes) {
  if (!status_.ok()) return;
  PluginLaunch launch;
  launch.device = device_;
  backend_.copy_to_host(&launch, to, from, size_bytes, &status_);
  backend_.synchronize(&launch, &status_);
}

Tensor Operands::tensor(Shape shape, DType dtype, Layout layout) {
  Tensor made;
  made.shape = shape;
  made.dtype = dtype;
  made.layout = layout;
  made.data = allocate(static_cast<uint64_t>(stored_count(made)) * dtype_size(dtype));
  return made;
}

void Operands::repeat(const Tensor& tensor, const std::vector<uint8_t>& block) {
  if (tensor.data == nullptr) return;
  const uint64_t size = static_cast<uint64_t>(stored_count(tensor)) * dtype_size(tensor.dtype);
  PluginLaunch launch;
  launch.device = device_;
  for (uint64_t at = 0; at < size && status_.ok(); at += block.size()) {
    const uint64_t count = std::min<uint64_t>(block.size(), size - at);
    backend_.copy_to_device(&launch, static_cast<uint8_t*>(tensor.data) + at, block.data(), count, &status_);
  }
  backend_.synchronize(&launch, &status_);
}

Tensor Operands::random(Shape shape, DType dtype, float scale, Layout layout) {
  const Tensor made = tensor(shape, dtype, layout);
  const size_t count = static_cast<size_t>(std::min(kPeriod, stored_count(made))), size = dtype_size(dtype);
  std::vector<uint8_t> block(count * size);
  for (size_t i = 0; i < count; ++i) {
    const float value = scale * noise(seed_ + i);
    if (dtype == DType::bf16) {
      reinterpret_cast<bf16_t*>(block.data())[i] = float_to_bf16(value);
    } else {
      reinterpret_cast<float*>(block.data())[i] = value;
    }
  }
  seed_ += static_cast<uint64_t>(kPeriod);
  repeat(made, block);
  return made;
}

Tensor Operands::poisoned(Shape shape, DType dtype) {
  const Tensor made = tensor(shape, dtype, Layout::rows);
  repeat(made, std::vector<uint8_t>(size_t{1} << 22, 0xff));
  return made;
}

Tensor Operands::zeros(Shape shape, DType dtype, Layout layout) {
  const Tensor made = tensor(shape, dtype, layout);
  repeat(made, std::vector<uint8_t>(size_t{1} << 22, 0));
  return made;
}

}  // namespace gavel::bench
