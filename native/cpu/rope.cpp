// Rotary embedding in place. One row function for every caller; products are rounded before they are added, on every
// machine alike (no contraction), so a row has the same bits wherever it is computed.
#include <algorithm>

#include "cpu/kernels.h"
#include "cpu/vector_math.h"

namespace gavel::cpu {
namespace {

template <class Element>
GAVEL_INLINE float load(Element value) {
  if constexpr (sizeof(Element) == 2) {
    return bf16_to_float(value);
  } else {
    return value;
  }
}
template <class Element>
GAVEL_INLINE void store(Element& to, float value) {
  if constexpr (sizeof(Element) == 2) {
    to = float_to_bf16(value);
  } else {
    to = value;
  }
}

// direction 1 rotates forward, -1 back: the sign of the sine is exact.
template <class Element>
__attribute__((noinline)) void rotate_row(Element* x, const float* cosine, const float* sine, int32_t heads,
                                          int32_t half, float direction) {
  for (int32_t head = 0; head < heads; ++head) {
    Element* first = x + int64_t{head} * 2 * half;
    Element* second = first + half;
    for (int32_t j = 0; j < half; ++j) {
      const float a = load(first[j]), b = load(second[j]), c = cosine[j], s = sine[j] * direction;
      store(first[j], a * c - b * s);
      store(second[j], b * c + a * s);
    }
  }
}

template <class Element>
void rotate(Context& context, const Rope& p, const Tensor& x, float direction) {
  const int64_t rows = x.rows(), columns = x.cols();
  const int32_t half = p.head_dim / 2;
  constexpr int64_t kChunk = 16;
  context.pool->parallel_for((rows + kChunk - 1) / kChunk, [&](int64_t chunk, int) {
    const int64_t end = std::min(rows, (chunk + 1) * kChunk);
    for (int64_t row = chunk * kChunk; row < end; ++row) {
      rotate_row(static_cast<Element*>(x.data) + row * columns, p.cosine.f32() + row * half, p.sine.f32() + row * half,
                 p.heads, half, direction);
    }
  });
}

void rotate_any(Context& context, const Rope& p, const Tensor& x, float direction) {
  if (x.dtype == DType::f32) {
    rotate<float>(context, p, x, direction);
  } else {
    rotate<bf16_t>(context, p, x, direction);
  }
}

}  // namespace

void rope_forward(Context& context, const Rope& p) { rotate_any(context, p, p.x, 1.0f); }
void rope_backward(Context& context, const Rope& p) { rotate_any(context, p, p.grad_x, -1.0f); }

}  // namespace gavel::cpu
