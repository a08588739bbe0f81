// rms_norm, one block a row; its weight's gradient by blocks of rows (column_sums.cuh).
#include "cuda/column_sums.cuh"
#include "cuda/kernels.h"
#include "cuda/rows.cuh"

namespace gavel::cuda {
namespace {

template <class T, class W, bool kVector>
__global__ void __launch_bounds__(kMaxRowThreads)
    forward_kernel(T* out, float* inverse_rms, const T* x, const W* weight, int64_t columns, float eps) {
  __shared__ float shared[32];
  const int64_t row = blockIdx.x;
  float sum = 0.0f;
  for_parts(columns, [&](int64_t start) {
    float part[kRowLanes];
    load_part<kVector>(x + row * columns, start, columns, part);
#pragma unroll
    for (int i = 0; i < kRowLanes; ++i) sum = __fmaf_rn(part[i], part[i], sum);
  });
  const float mean = __fdiv_rn(block_sum(sum, shared), static_cast<float>(columns));
  const float scale = __frcp_rn(__fsqrt_rn(__fadd_rn(mean, eps)));
  if (threadIdx.x == 0 && inverse_rms != nullptr) inverse_rms[row] = scale;
  for_parts(columns, [&](int64_t start) {
    float part[kRowLanes], gain[kRowLanes];
    load_part<kVector>(x + row * columns, start, columns, part);
    load_part<kVector>(weight, start, columns, gain);
#pragma unroll
    for (int i = 0; i < kRowLanes; ++i) part[i] = __fmul_rn(__fmul_rn(part[i], scale), gain[i]);
    store_part<kVector>(out + row * columns, start, columns, part);
  });
}

// grad_x = inverse (g - n mean(g n)) with g = grad_out * weight, n = x * inverse.
template <class T, class W, bool kVector>
__global__ void __launch_bounds__(kMaxRowThreads)
    backward_kernel(T* grad_x, bool accumulate, const T* grad_out, const T* x, const W* weight,
                    const float* inverse_rms, int64_t columns) {
  __shared__ float shared[32];
  const int64_t row = blockIdx.x;
  const float inverse = inverse_rms[row];
  float sum = 0.0f;
  const auto load = [&](int64_t start, float(&g)[kRowLanes], float(&n)[kRowLanes]) {
    float gain[kRowLanes];
    load_part<kVector>(grad_out + row * columns, start, columns, g);
    load_part<kVector>(x + row * columns, start, columns, n);
    load_part<kVector>(weight, start, columns, gain);
#pragma unroll
    for (int i = 0; i < kRowLanes; ++i) {
      g[i] = __fmul_rn(g[i], gain[i]);
      n[i] = __fmul_rn(n[i], inverse);
    }
  };
  for_parts(columns, [&](int64_t start) {
    float g[kRowLanes], n[kRowLanes];
    load(start, g, n);
#pragma unroll
    for (int i = 0; i < kRowLanes; ++i) sum = __fmaf_rn(g[i], n[i], sum);
  });
  const float mean = __fdiv_rn(block_sum(sum, shared), static_cast<float>(columns));
  for_parts(columns, [&](int64_t start) {
    float g[kRowLanes], n[kRowLanes], old[kRowLanes];
    load(start, g, n);
    if (accumulate) load_part<kVector>(grad_x + row * columns, start, columns, old);
#pragma unroll
    for (int i = 0; i < kRowLanes; ++i) {
      g[i] = __fmul_rn(inverse, __fmaf_rn(-n[i], mean, g[i]));
      if (accumulate) g[i] = __fadd_rn(old[i], g[i]);
    }
    store_part<kVector>(grad_x + row * columns, start, columns, g);
  });
}

template <class T>
struct WeightGradient {
  const T *grad_out, *x;
  const float* inverse_rms;
  int64_t columns;
  template <int kLanes>
  __device__ void add(int64_t row, int64_t column, float (&sums)[kLanes]) const {
    const int64_t at = row * columns + column;
    const auto grads = load_pack<T, kLanes>(grad_out + at), values = load_pack<T, kLanes>(x + at);
    const float inverse = inverse_rms[row];
#pragma unroll
    for (int i = 0; i < kLanes; ++i)
      sums[i] =
          __fadd_rn(sums[i], __fmul_rn(to_float(grads.values[i]), __fmul_rn(to_float(values.values[i]), inverse)));
  }
};

bool supported(Launch& launch, const RmsNorm& p) {
  const bool weights = p.weight.dtype == DType::f32 || p.weight.dtype == p.x.dtype;
  return launch.expect(p.out.dtype == p.x.dtype && weights && p.weight.shape.count() == p.x.cols(),
                       "Expected `rms_norm` on CUDA to get x and out of one dtype and a weight of it or of fp32.");
}

}  // namespace

void rms_norm_forward(Launch& launch, const RmsNorm& p) {
  if (!supported(launch, p)) return;
  const int64_t columns = p.x.cols();
  const bool vector = whole_vectors(columns, {p.out.data, p.x.data, p.weight.data});
  with_rows(p.x, p.weight, vector, [&](auto type, auto weight_type, auto whole) {
    using T = decltype(type);
    using W = decltype(weight_type);
    launch.run(forward_kernel<T, W, whole()>, blocks(p.x.rows()), row_threads(columns), 0, static_cast<T*>(p.out.data),
               p.inverse_rms.f32(), static_cast<const T*>(p.x.data), static_cast<const W*>(p.weight.data), columns,
               p.eps);
  });
}

void rms_norm_backward(Launch& launch, const RmsNorm& p) {
  if (!supported(launch, p)) return;
  const int64_t columns = p.x.cols();
  const bool vector = whole_vectors(columns, {p.grad_out.data, p.grad_x.data, p.x.data, p.weight.data});
  with_rows(p.x, p.weight, vector, [&](auto type, auto weight_type, auto whole) {
    using T = decltype(type);
    using W = decltype(weight_type);
    const T *grad_out = static_cast<const T*>(p.grad_out.data), *x = static_cast<const T*>(p.x.data);
    if (p.grad_x) {
      launch.run(backward_kernel<T, W, whole()>, blocks(p.x.rows()), row_threads(columns), 0,
                 static_cast<T*>(p.grad_x.data), p.accumulate_x, grad_out, x, static_cast<const W*>(p.weight.data),
                 p.inverse_rms.f32(), columns);
    }
  });
  with_element(p.x.dtype, [&](auto type) {
    using T = decltype(type);
    if (!p.grad_weight) return;
    const WeightGradient<T> value{static_cast<const T*>(p.grad_out.data), static_cast<const T*>(p.x.data),
                                  p.inverse_rms.f32(), columns};
    const bool whole = whole_packs<T>(columns, {value.grad_out, value.x});
    add_column_sums<T>(launch, value, p.grad_weight.f32(), p.x.rows(), columns, whole);
  });
}

}  // namespace gavel::cuda
