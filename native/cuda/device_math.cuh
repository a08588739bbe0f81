// Device arithmetic every kernel shares: the one bf16 rounding (nearest even, as core/dtype.h), 16-byte loads, and a
// block sum whose order depends on the number of threads alone.
#pragma once
#include <cstdint>

namespace gavel::cuda {

using bf16_t = uint16_t;

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(bf16_t value) { return __uint_as_float(static_cast<uint32_t>(value) << 16); }

template <class T>
__device__ inline T from_float(float value);
template <>
__device__ inline float from_float<float>(float value) {
  return value;
}
template <>
__device__ inline bf16_t from_float<bf16_t>(float value) {
  const uint32_t bits = __float_as_uint(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<bf16_t>((bits >> 16) | 0x40u);
  return static_cast<bf16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// 16 bytes of T: what one thread loads and stores at a time.
template <class T>
struct alignas(16) Vector {
  static constexpr int kSize = 16 / sizeof(T);
  T values[kSize];
};

// Sum over the block by a fixed tree: lanes by xor shuffle, then the warps' sums in the first warp. All threads get it.
// blockDim.x is a multiple of 32; `shared` holds 32 floats.
__device__ inline float block_sum(float value, float* shared) {
  for (int offset = 16; offset > 0; offset >>= 1) value = __fadd_rn(value, __shfl_xor_sync(0xffffffffu, value, offset));
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, num_warps = blockDim.x >> 5;
  if (lane == 0) shared[warp] = value;
  __syncthreads();
  float sum = lane < num_warps ? shared[lane] : 0.0f;
  for (int offset = 16; offset > 0; offset >>= 1) sum = __fadd_rn(sum, __shfl_xor_sync(0xffffffffu, sum, offset));
  return sum;
}

}  // namespace gavel::cuda
