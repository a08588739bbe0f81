// layer_norm, one block a row: mean first, then the variance about it.
#include "cuda/column_sums.cuh"
#include "cuda/kernels.h"
#include "cuda/rows.cuh"

namespace gavel::cuda {
namespace {

template <class T, class W, bool kVector>
__global__ void __launch_bounds__(kMaxRowThreads)
    forward_kernel(T* out, float* statistics, const T* x, const W* weight, const W* bias, int64_t columns, float eps) {
  __shared__ float shared[2][32];
  const int64_t row = blockIdx.x;
  const T* const from = x + row * columns;
  float sum = 0.0f, squares = 0.0f;
  for_parts(columns, [&](int64_t start) {
    float part[kRowLanes];
    load_part<kVector>(from, start, columns, part);
#pragma unroll
    for (int i = 0; i < kRowLanes; ++i) sum = __fadd_rn(sum, part[i]);
  });
  const float mean = __fdiv_rn(block_sum(sum, shared[0]), static_cast<float>(columns));
  for_parts(columns, [&](int64_t start) {
    float part[kRowLanes];
    load_part<kVector>(from, start, columns, part);
#pragma unroll
    for (int i = 0; i < kRowLanes; ++i) {
      const float gap = start + i < columns ? __fsub_rn(part[i], mean) : 0.0f;
      squares = __fmaf_rn(gap, gap, squares);
    }
  });
  const float variance = __fdiv_rn(block_sum(squares, shared[1]), static_cast<float>(columns));
  const float inverse = __frcp_rn(__fsqrt_rn(__fadd_rn(variance, eps)));
  if (threadIdx.x == 0 && statistics != nullptr) {
    statistics[2 * row] = mean;
    statistics[2 * row + 1] = inverse;
  }
  for_parts(columns, [&](int64_t start) {
    float part[kRowLanes], gain[kRowLanes], shift[kRowLanes];
    load_part<kVector>(from, start, columns, part);
    load_part<kVector>(weight, start, columns, gain);
    load_part<kVector>(bias, start, columns, shift);
#pragma unroll
    for (int i = 0; i < kRowLanes; ++i)
      part[i] = __fadd_rn(__fmul_rn(__fmul_rn(__fsub_rn(part[i], mean), inverse), gain[i]), shift[i]);
    store_part<kVector>(out + row * columns, start, columns, part);
  });
}

// grad_x = inverse (g - mean(g) - n mean(g n)) with g = grad_out * weight, n = (x - mean) * inverse.
template <class T, class W, bool kVector>
__global__ void __launch_bounds__(kMaxRowThreads)
    backward_kernel(T* grad_x, bool accumulate, const T* grad_out, const T* x, const W* weight, const float* statistics,
                    int64_t columns) {
  __shared__ float shared[2][32];
  const int64_t row = blockIdx.x;
  const float mean = statistics[2 * row], inverse = statistics[2 * row + 1];
  const auto load = [&](int64_t start, float(&g)[kRowLanes], float(&n)[kRowLanes]) {
    float gain[kRowLanes];
    load_part<kVector>(grad_out + row * columns, start, columns, g);
    load_part<kVector>(x + row * columns, start, columns, n);
    load_part<kVector>(weight, start, columns, gain);
#pragma unroll
    for (int i = 0; i < kRowLanes; ++i) {
      g[i] = __fmul_rn(g[i], gain[i]);
      n[i] = __fmul_rn(__fsub_rn(n[i], mean), inverse);
    }
  };
  float sum = 0.0f, product = 0.0f;
  for_parts(columns, [&](int64_t start) {
    float g[kRowLanes], n[kRowLanes];
    load(start, g, n);
#pragma unroll
    for (int i = 0; i < kRowLanes; ++i) {
      sum = __fadd_rn(sum, g[i]);
      product = __fmaf_rn(g[i], n[i], product);
    }
  });
  const float mean_g = __fdiv_rn(block_sum(sum, shared[0]), static_cast<float>(columns));
  const float mean_gn = __fdiv_rn(block_sum(product, shared[1]), static_cast<float>(columns));
  for_parts(columns, [&](int64_t start) {
    float g[kRowLanes], n[kRowLanes], old[kRowLanes];
    load(start, g, n);
    if (accumulate) load_part<kVector>(grad_x + row * columns, start, columns, old);
#pragma unroll
    for (int i = 0; i < kRowLanes; ++i) {
      g[i] = __fmul_rn(inverse, __fmaf_rn(-n[i], mean_gn, __fsub_rn(g[i], mean_g)));
      if (accumulate) g[i] = __fadd_rn(old[i], g[i]);
    }
    store_part<kVector>(grad_x + row * columns, start, columns, g);
  });
}

// Of the weight, or of the bias.
template <class T, bool kWeight>
struct ParameterGradient {
  const T *grad_out, *x;
  const float* statistics;
  int64_t columns;
  template <int kLanes>
  __device__ void add(int64_t row, int64_t column, float (&sums)[kLanes]) const {
    const int64_t at = row * columns + column;
    const auto grads = load_pack<T, kLanes>(grad_out + at);
    if constexpr (kWeight) {
      const auto values = load_pack<T, kLanes>(x + at);
      const float mean = statistics[2 * row], inverse = statistics[2 * row + 1];
#pragma unroll
      for (int i = 0; i < kLanes; ++i) {
        const float normed = __fmul_rn(__fsub_rn(to_float(values.values[i]), mean), inverse);
        sums[i] = __fadd_rn(sums[i], __fmul_rn(to_float(grads.values[i]), normed));
      }
    } else {
#pragma unroll
      for (int i = 0; i < kLanes; ++i) sums[i] = __fadd_rn(sums[i], to_float(grads.values[i]));
    }
  }
};

bool supported(Launch& launch, const LayerNorm& p) {
  const bool weights = p.weight.dtype == p.bias.dtype && (p.weight.dtype == DType::f32 || p.weight.dtype == p.x.dtype);
  return launch.expect(
      p.out.dtype == p.x.dtype && weights,
      "Expected `layer_norm` on CUDA to get x and out of one dtype, weight and bias of it or of fp32.");
}

}  // namespace

void layer_norm_forward(Launch& launch, const LayerNorm& p) {
  if (!supported(launch, p)) return;
  const int64_t columns = p.x.cols();
  const bool vector = whole_vectors(columns, {p.out.data, p.x.data, p.weight.data, p.bias.data});
  with_rows(p.x, p.weight, vector, [&](auto type, auto weight_type, auto whole) {
    using T = decltype(type);
    using W = decltype(weight_type);
    launch.run(forward_kernel<T, W, whole()>, blocks(p.x.rows()), row_threads(columns), 0, static_cast<T*>(p.out.data),
               p.statistics.f32(), static_cast<const T*>(p.x.data), static_cast<const W*>(p.weight.data),
               static_cast<const W*>(p.bias.data), columns, p.eps);
  });
}

void layer_norm_backward(Launch& launch, const LayerNorm& p) {
  if (!supported(launch, p)) return;
  const int64_t columns = p.x.cols();
  const bool vector = whole_vectors(columns, {p.grad_out.data, p.grad_x.data, p.x.data, p.weight.data});
  with_rows(p.x, p.weight, vector, [&](auto type, auto weight_type, auto whole) {
    using T = decltype(type);
    using W = decltype(weight_type);
    if (!p.grad_x) return;
    launch.run(backward_kernel<T, W, whole()>, blocks(p.x.rows()), row_threads(columns), 0,
               static_cast<T*>(p.grad_x.data), p.accumulate_x, static_cast<const T*>(p.grad_out.data),
               static_cast<const T*>(p.x.data), static_cast<const W*>(p.weight.data), p.statistics.f32(), columns);
  });
  with_element(p.x.dtype, [&](auto type) {
    using T = decltype(type);
    const T *grad_out = static_cast<const T*>(p.grad_out.data), *x = static_cast<const T*>(p.x.data);
    const ParameterGradient<T, true> weight{grad_out, x, p.statistics.f32(), columns};
    const ParameterGradient<T, false> bias{grad_out, x, p.statistics.f32(), columns};
    const bool whole = whole_packs<T>(columns, {grad_out, x});
    if (p.grad_weight) add_column_sums<T>(launch, weight, p.grad_weight.f32(), p.x.rows(), columns, whole);
    if (p.grad_bias) add_column_sums<T>(launch, bias, p.grad_bias.f32(), p.x.rows(), columns, whole);
  });
}

}  // namespace gavel::cuda
