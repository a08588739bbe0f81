// What every kernel file begins with: storage types, the one bf16 rounding (nearest even, as core/dtype.h), loads of 16
// bytes, shared memory of a size chosen at launch.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#include "core/tensor.h"

namespace gavel::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;

constexpr int64_t divide_up(int64_t value, int64_t step) { return (value + step - 1) / step; }

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

inline bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

// The memory whose size the launch gave.
__device__ inline uint8_t* dynamic_shared() {
#ifdef __CUDACC__
  extern __shared__ __align__(128) uint8_t memory[];
  return memory;
#else
  return emulation::dynamic_shared();
#endif
}

// C++ types by DType, for host code: body(T{}) with T float or bf16_t.
template <class Body>
void with_element(DType dtype, const Body& body) {
  if (dtype == DType::bf16) {
    body(bf16_t{});
  } else {
    body(float{});
  }
}

}  // namespace gavel::cuda
