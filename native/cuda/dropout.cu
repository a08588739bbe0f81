// Scaling and inverted dropout: four columns share one Philox draw, as on the processor.
#include "core/philox.h"
#include "cuda/elements.cuh"
#include "cuda/kernels.h"

namespace gavel::cuda {
namespace {

constexpr int kQuad = 4;

struct Factors {
  const float* column_scale;
  float scale, probability;
  uint64_t seed, site;
  uint32_t first_row;
  int64_t columns;

  // Of columns k .. k + 3 of a row; k is a multiple of four, and those past the last column are not meant.
  __device__ void of_quad(int64_t row, int64_t k, float (&factors)[kQuad]) const {
    for (int i = 0; i < kQuad; ++i)
      factors[i] = column_scale == nullptr ? scale : k + i < columns ? column_scale[k + i] : 0.0f;
    if (probability == 0.0f) return;
    const auto bits =
        random_bits({seed, site, first_row + static_cast<uint32_t>(row), static_cast<uint32_t>(k / kQuad)});
    for (int i = 0; i < kQuad; ++i) {
      const float uniform = __fmul_rn(static_cast<float>(bits[static_cast<size_t>(i)] >> 8), 0x1p-24f);
      factors[i] = uniform < probability ? 0.0f : __fdiv_rn(factors[i], __fsub_rn(1.0f, probability));
    }
  }
};

// to = factor * from, or that added to what is there. A thread takes one quad of a row that may end within it, or
// kLanes neighbours of rows that are whole packs.
template <class T, int kLanes>
struct Scale {
  Factors factors;
  T* to;
  const T* from;
  bool accumulate;

  __device__ void operator()(int64_t i) const {
    if constexpr (kLanes == 1) {
      const int64_t quads = (factors.columns + kQuad - 1) / kQuad, row = i / quads, k = i % quads * kQuad;
      float own[kQuad];
      factors.of_quad(row, k, own);
      for (int j = 0; j < kQuad && k + j < factors.columns; ++j) {
        const int64_t at = row * factors.columns + k + j;
        to[at] = scaled(from[at], own[j], accumulate ? to[at] : T{});
      }
    } else {
      const int64_t row = i / factors.columns, k = i % factors.columns;
      auto pack = load_pack<T, kLanes>(from + i);
      Pack<T, kLanes> old{};
      if (accumulate) old = load_pack<T, kLanes>(to + i);
#pragma unroll
      for (int quad = 0; quad < kLanes; quad += kQuad) {
        float own[kQuad];
        factors.of_quad(row, k + quad, own);
#pragma unroll
        for (int j = 0; j < kQuad; ++j)
          pack.values[quad + j] = scaled(pack.values[quad + j], own[j], old.values[quad + j]);
      }
      store_pack(to + i, pack);
    }
  }
  __device__ T scaled(T value, float factor, T old) const {
    const float own = __fmul_rn(to_float(value), factor);
    return from_float<T>(accumulate ? __fadd_rn(to_float(old), own) : own);
  }
};

Factors factors_of(const Dropout& p) {
  return {p.column_scale, p.scale, p.probability, p.seed, p.site, p.first_row, p.x.cols()};
}

void scale(Launch& launch, const Dropout& p, const Tensor& to, const Tensor& from, bool accumulate) {
  with_element(from.dtype, [&](auto type) {
    using T = decltype(type);
    const int64_t rows = p.x.rows(), columns = p.x.cols();
    with_lanes<T>(columns, {to.data, from.data}, [&](auto lanes) {
      const Scale<T, lanes()> body{factors_of(p), static_cast<T*>(to.data), static_cast<const T*>(from.data),
                                   accumulate};
      for_elements<lanes()>(launch, body, rows * (lanes() == 1 ? divide_up(columns, kQuad) : columns));
    });
  });
}

}  // namespace

void dropout_forward(Launch& launch, const Dropout& p) { scale(launch, p, p.out, p.x, false); }
void dropout_backward(Launch& launch, const Dropout& p) {
  if (p.grad_x) scale(launch, p, p.grad_x, p.grad_out, p.accumulate_x);
}

}  // namespace gavel::cuda
