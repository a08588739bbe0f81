// Arithmetic that kernels share: sums of a warp and of a block whose order depends on the number of threads alone, and
// the exp and log of native/cpu/vector_math.h (Cephes' polynomials, Moshier 1989), operation for operation.
#pragma once
#include "cuda/device.cuh"

namespace gavel::cuda {

__device__ inline float infinity() { return __uint_as_float(0x7f800000u); }
__device__ inline float not_a_number() { return __uint_as_float(0x7fc00000u); }

__device__ inline float warp_sum(float value) {
  for (int offset = 16; offset > 0; offset >>= 1) value = __fadd_rn(value, __shfl_xor_sync(kAllLanes, value, offset));
  return value;
}
__device__ inline float warp_max(float value) {
  for (int offset = 16; offset > 0; offset >>= 1) value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, offset));
  return value;
}

// Sum over the block by a fixed tree: lanes by xor shuffle, then the warps' sums. All threads get it. blockDim.x is a
// multiple of 32; `shared` holds 32 floats and is free again after the caller's next barrier.
__device__ inline float block_sum(float value, float* shared) {
  value = warp_sum(value);
  const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) >> 5;
  if (lane == 0) shared[warp] = value;
  __syncthreads();
  return warp_sum(lane < static_cast<int>(blockDim.x) >> 5 ? shared[lane] : 0.0f);
}

__device__ constexpr float kExpLowest = -87.3f, kExpHighest = 88.72283f;

// e^x within 1.01 ulp. exp_one(0) = 1 and exp_one(-inf) = +0 exactly; x < -87.3 gives +0, x > 88.72283 +inf, NaN NaN.
__device__ inline float exp_one(float x) {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding and subtracting it rounds to an integer
  const float n = __fadd_rn(__fmaf_rn(x, 1.44269504088896341f, kMagic), -kMagic);
  float r = __fmaf_rn(n, -0.693359375f, x);
  r = __fmaf_rn(n, 2.12194440e-4f, r);
  float p = 1.9875691500e-4f;
  p = __fmaf_rn(p, r, 1.3981999507e-3f);
  p = __fmaf_rn(p, r, 8.3334519073e-3f);
  p = __fmaf_rn(p, r, 4.1665795894e-2f);
  p = __fmaf_rn(p, r, 1.6666665459e-1f);
  p = __fmaf_rn(p, r, 5.0000001201e-1f);
  p = __fadd_rn(__fmaf_rn(p, __fmul_rn(r, r), r), 1.0f);
  // Two factors, because 2^128 is no float; outside the range they are nonsense that the last line replaces.
  const bool inside = x >= kExpLowest && x <= kExpHighest;
  const int exponent = inside ? static_cast<int>(n) : 0, half = exponent >> 1;
  p = __fmul_rn(p, __uint_as_float(static_cast<uint32_t>(half + 127) << 23));
  p = __fmul_rn(p, __uint_as_float(static_cast<uint32_t>(exponent - half + 127) << 23));
  return inside ? p : x < kExpLowest ? 0.0f : x > kExpHighest ? infinity() : x;
}

// ln x within 0.8 ulp. log_one(1) = 0 exactly; 0 and denormals give -inf, x < 0 NaN, +inf +inf.
__device__ inline float log_one(float x) {
  constexpr float kSmallest = 1.17549435e-38f;
  if (!(x >= kSmallest)) return x > -kSmallest ? -infinity() : not_a_number();
  if (x == infinity()) return x;
  const uint32_t bits = __float_as_uint(x);
  float mantissa = __uint_as_float((bits & 0x007fffffu) | 0x3f000000u);  // [0.5, 1)
  float e = static_cast<float>(static_cast<int>(bits >> 23) - 126);
  if (mantissa < 0.707106781186547524f) {
    e = __fadd_rn(e, -1.0f);
    mantissa = __fadd_rn(mantissa, mantissa);
  }
  const float f = __fadd_rn(mantissa, -1.0f), z = __fmul_rn(f, f);
  float p = 7.0376836292e-2f;
  p = __fmaf_rn(p, f, -1.1514610310e-1f);
  p = __fmaf_rn(p, f, 1.1676998740e-1f);
  p = __fmaf_rn(p, f, -1.2420140846e-1f);
  p = __fmaf_rn(p, f, 1.4249322787e-1f);
  p = __fmaf_rn(p, f, -1.6668057665e-1f);
  p = __fmaf_rn(p, f, 2.0000714765e-1f);
  p = __fmaf_rn(p, f, -2.4999993993e-1f);
  p = __fmaf_rn(p, f, 3.3333331174e-1f);
  p = __fmaf_rn(__fmul_rn(p, f), z, __fmul_rn(e, -2.12194440e-4f));
  p = __fmaf_rn(z, -0.5f, p);
  return __fmaf_rn(e, 0.693359375f, __fadd_rn(f, p));
}

}  // namespace gavel::cuda
