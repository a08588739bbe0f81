// A view of memory that somebody else owns (an Arena, a Parameter, a KV pool). Trivially copyable: it crosses to device
// plugins as it is. `id` names the tensor on the tape that made it; -1 means "no gradient flows here".
//
// Layout::panels is the packed weight layout of a matrix W[N, K] (shape {N, K}); see panel_index. N is padded to 32 and
// K to even with zeros. Everything elementwise (optimizer, gradients, moments) works on the packed order directly.
#pragma once
#include <cstdint>
#include <type_traits>

#include "core/dtype.h"
#include "core/shape.h"

namespace gavel {

enum class Layout : uint8_t { rows, panels };

inline constexpr int64_t kPanel = 32;

struct Tensor {
  void* data = nullptr;
  Shape shape;
  DType dtype = DType::f32;
  Layout layout = Layout::rows;
  int32_t id = -1;

  explicit operator bool() const { return data != nullptr; }
  float* f32() const { return static_cast<float*>(data); }
  bf16_t* bf16() const { return static_cast<bf16_t*>(data); }
  int32_t* i32() const { return static_cast<int32_t*>(data); }
  int64_t rows() const { return shape[0]; }
  int64_t cols() const { return shape[1]; }
};
static_assert(std::is_trivially_copyable_v<Tensor>);

constexpr int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// Elements a matrix [n, k] takes in panel layout. Gradients, masters and moments use the WEIGHT's order, in fp32.
constexpr int64_t panel_count(int64_t n, int64_t k) { return round_up(n, kPanel) * round_up(k, 2); }

// Element (n, k) in panel layout [N/32 panels][K/2 steps][32 lanes][2] for bf16, [N/32 panels][K steps][32 lanes] for
// fp32. A step is 128 bytes in both. `order` is the dtype of the weight, also for its fp32 gradient and moments.
constexpr int64_t panel_index(int64_t n, int64_t k, int64_t k_total, DType order) {
  const int64_t k_even = round_up(k_total, 2);
  const int64_t base = (n / kPanel) * kPanel * k_even;
  if (order == DType::bf16) return base + (k / 2) * (2 * kPanel) + (n % kPanel) * 2 + (k % 2);
  return base + k * kPanel + (n % kPanel);
}

}  // namespace gavel
