// out = x / sqrt(mean(x^2) + eps) * weight, one block a row, 16-byte loads. The block size follows from H alone and the
// sum is a fixed tree, so a row's bits depend neither on the number of rows nor on alignment: the path without vector
// loads visits the same elements in the same order.
#include <cuda_runtime.h>

#include "cuda/device_math.cuh"
#include "cuda/kernels.h"
#include "ops/rms_norm.h"

namespace gavel::cuda {
namespace {

constexpr int kMaxThreads = 512;

template <class T, bool kVector>
__device__ Vector<T> load(const T* row, int64_t start, int64_t hidden) {
  if constexpr (kVector) return *reinterpret_cast<const Vector<T>*>(row + start);
  Vector<T> result;
#pragma unroll
  for (int i = 0; i < Vector<T>::kSize; ++i) result.values[i] = start + i < hidden ? row[start + i] : T{};
  return result;
}

template <class T, bool kVector>
__global__ void __launch_bounds__(kMaxThreads)
    rms_norm_kernel(T* out, float* inverse_rms, const T* x, const T* weight, int64_t hidden, float eps) {
  __shared__ float shared[32];
  constexpr int kSize = Vector<T>::kSize;
  const int64_t step = static_cast<int64_t>(blockDim.x) * kSize;
  const int64_t first = static_cast<int64_t>(threadIdx.x) * kSize;
  const T* row = x + static_cast<int64_t>(blockIdx.x) * hidden;
  T* out_row = out + static_cast<int64_t>(blockIdx.x) * hidden;

  float sum = 0.0f;
  for (int64_t start = first; start < hidden; start += step) {
    const Vector<T> part = load<T, kVector>(row, start, hidden);
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      const float value = to_float(part.values[i]);
      sum = __fmaf_rn(value, value, sum);
    }
  }
  const float mean = __fdiv_rn(block_sum(sum, shared), static_cast<float>(hidden));
  const float scale = __frcp_rn(__fsqrt_rn(__fadd_rn(mean, eps)));
  if (threadIdx.x == 0 && inverse_rms != nullptr) inverse_rms[blockIdx.x] = scale;

  for (int64_t start = first; start < hidden; start += step) {
    const Vector<T> part = load<T, kVector>(row, start, hidden);
    const Vector<T> gain = load<T, kVector>(weight, start, hidden);
    Vector<T> result;
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      result.values[i] = from_float<T>(__fmul_rn(__fmul_rn(to_float(part.values[i]), scale), to_float(gain.values[i])));
    }
    if constexpr (kVector) {
      *reinterpret_cast<Vector<T>*>(out_row + start) = result;
    } else {
#pragma unroll
      for (int i = 0; i < kSize; ++i) {
        if (start + i < hidden) out_row[start + i] = result.values[i];
      }
    }
  }
}

bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

template <class T>
void enqueue(const RmsNorm& p, cudaStream_t stream) {
  const int64_t rows = p.x.rows(), hidden = p.x.cols();
  constexpr int kSize = Vector<T>::kSize;
  const int64_t wanted = round_up((hidden + kSize - 1) / kSize, 32);
  const int threads = static_cast<int>(wanted < kMaxThreads ? wanted : kMaxThreads);
  T* out = static_cast<T*>(p.out.data);
  const T* x = static_cast<const T*>(p.x.data);
  const T* weight = static_cast<const T*>(p.weight.data);
  const dim3 grid(static_cast<unsigned>(rows));
  if (hidden % kSize == 0 && aligned(out) && aligned(x) && aligned(weight)) {
    rms_norm_kernel<T, true><<<grid, threads, 0, stream>>>(out, p.inverse_rms.f32(), x, weight, hidden, p.eps);
  } else {
    rms_norm_kernel<T, false><<<grid, threads, 0, stream>>>(out, p.inverse_rms.f32(), x, weight, hidden, p.eps);
  }
}

}  // namespace

bool rms_norm_supports(const void* parameters) {
  const RmsNorm& p = *static_cast<const RmsNorm*>(parameters);
  const bool known = p.x.dtype == DType::f32 || p.x.dtype == DType::bf16;
  return known && p.out.dtype == p.x.dtype && p.weight.dtype == p.x.dtype && p.x.shape.rank == 2 &&
         p.x.rows() <= INT32_MAX && p.weight.shape.count() == p.x.cols();
}

void rms_norm_forward(const PluginLaunch* launch, const void* parameters, PluginStatus* status) {
  if (!rms_norm_supports(parameters)) {
    status->set(Code::unsupported,
                "rms_norm on cuda takes x, weight and out of one dtype, fp32 or bf16, as [T, H] and [H]");
    return;
  }
  const RmsNorm& p = *static_cast<const RmsNorm*>(parameters);
  if (p.x.rows() == 0 || p.x.cols() == 0) return;
  cudaError_t error = cudaSetDevice(launch->device);
  if (error == cudaSuccess) {
    const auto stream = static_cast<cudaStream_t>(launch->stream);
    if (p.x.dtype == DType::bf16) {
      enqueue<bf16_t>(p, stream);
    } else {
      enqueue<float>(p, stream);
    }
    error = cudaGetLastError();
  }
  if (error != cudaSuccess) status->set(Code::device_unavailable, cudaGetErrorString(error));
}

}  // namespace gavel::cuda
