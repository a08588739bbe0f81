// Sum of squares in double: a block sums a chunk of 4096 elements by one tree, a thread four neighbours at a time; one
// block adds the chunks by another.
#include "cuda/device_math.cuh"
#include "cuda/elements.cuh"
#include "cuda/kernels.h"

namespace gavel::cuda {
namespace {

constexpr int kThreads = 256, kQuad = 4;
constexpr int64_t kChunk = 4096;

__device__ double block_sum_of_doubles(double value) {
  __shared__ double sums[kThreads / 32];
  for (int offset = 16; offset > 0; offset >>= 1) value += __shfl_xor_sync(kAllLanes, value, offset);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
  __syncthreads();
  double total = 0;
  for (int warp = 0; warp < kThreads / 32; ++warp) total += sums[warp];
  return total;
}

// `aligned`: quads are.
template <class T>
__global__ void __launch_bounds__(kThreads)
    chunks_kernel(double* partials, const T* grad, int64_t count, bool aligned) {
  constexpr int kEach = kChunk / kThreads / kQuad;
  const int64_t chunk = int64_t{blockIdx.x} * kChunk, first = chunk + int64_t{threadIdx.x} * kQuad;
  Pack<T, kQuad> quads[kEach];
  if (aligned && chunk + kChunk <= count) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) quads[i] = load_pack<T, kQuad>(grad + first + i * kThreads * kQuad);
  } else {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
#pragma unroll
      for (int j = 0; j < kQuad; ++j) {
        const int64_t at = first + i * kThreads * kQuad + j;
        quads[i].values[j] = at < count ? grad[at] : T{};
      }
    }
  }
  double sum = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
#pragma unroll
    for (int j = 0; j < kQuad; ++j) {
      const double value = static_cast<double>(quads[i].values[j]);
      sum += value * value;
    }
  }
  sum = block_sum_of_doubles(sum);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    total_kernel(T* norm, bool* finite, const double* partials, int64_t chunks) {
  double sum = 0;
  for (int64_t chunk = threadIdx.x; chunk < chunks; chunk += kThreads) sum += partials[chunk];
  sum = block_sum_of_doubles(sum);
  if (threadIdx.x != 0) return;
  *norm = sqrt(sum);
  // The square of a finite float is a finite double, so a sum that is not finite means an element that is not.
  *finite = sum - sum == 0.0;
}

}  // namespace

void global_norm_forward(Launch& launch, const GlobalNorm& p) {
  int64_t chunks = 0;
  for (int32_t i = 0; i < p.num_grads; ++i) chunks += divide_up(p.counts[i], kChunk);
  double* const partials = launch.workspace<double>(chunks);
  int64_t first = 0;
  for (int32_t i = 0; i < p.num_grads; ++i) {
    const int64_t own = divide_up(p.counts[i], kChunk);
    launch.run(chunks_kernel<float>, blocks(own), kThreads, 0, partials + first, p.grads[i], p.counts[i],
               aligned(p.grads[i]));
    first += own;
  }
  launch.run(total_kernel<double>, blocks(1), kThreads, 0, p.norm, p.finite, static_cast<const double*>(partials),
             chunks);
}

}  // namespace gavel::cuda
