// Rotary embedding in place: a thread takes neighbouring elements of a head's first half with their partners.
#include "cuda/elements.cuh"
#include "cuda/kernels.h"

namespace gavel::cuda {
namespace {

template <class T, int kLanes>
struct Rotate {
  T* x;
  const float *cosine, *sine;
  int64_t columns;
  int32_t heads, half;
  float direction;

  __device__ void operator()(int64_t i) const {
    const int64_t per_row = int64_t{heads} * half, row = i / per_row, rest = i % per_row;
    const int64_t j = rest % half, first = row * columns + rest / half * 2 * half + j;
    auto left = load_pack<T, kLanes>(x + first), right = load_pack<T, kLanes>(x + first + half);
    const auto cosines = load_pack<float, kLanes>(cosine + row * half + j);
    const auto sines = load_pack<float, kLanes>(sine + row * half + j);
    for (int lane = 0; lane < kLanes; ++lane) {
      const float a = to_float(left.values[lane]), b = to_float(right.values[lane]);
      const float c = cosines.values[lane], s = __fmul_rn(sines.values[lane], direction);
      left.values[lane] = from_float<T>(__fsub_rn(__fmul_rn(a, c), __fmul_rn(b, s)));
      right.values[lane] = from_float<T>(__fadd_rn(__fmul_rn(b, c), __fmul_rn(a, s)));
    }
    store_pack(x + first, left);
    store_pack(x + first + half, right);
  }
};

void rotate(Launch& launch, const Rope& p, const Tensor& x, float direction) {
  with_element(x.dtype, [&](auto type) {
    using T = decltype(type);
    const int32_t half = p.head_dim / 2;
    constexpr int64_t kWide = 16 / sizeof(T);
    // Rows and halves must both be whole packs.
    const int64_t common = x.cols() % kWide == 0 ? half : 1;
    with_lanes<T>(common, {x.data, p.cosine.data, p.sine.data}, [&](auto lanes) {
      const Rotate<T, lanes()> body{
          static_cast<T*>(x.data), p.cosine.f32(), p.sine.f32(), x.cols(), p.heads, half, direction};
      for_elements<lanes()>(launch, body, x.rows() * p.heads * half);
    });
  });
}

}  // namespace

void rope_forward(Launch& launch, const Rope& p) { rotate(launch, p, p.x, 1.0f); }
void rope_backward(Launch& launch, const Rope& p) {
  if (p.grad_x) rotate(launch, p, p.grad_x, -1.0f);
}

}  // namespace gavel::cuda
