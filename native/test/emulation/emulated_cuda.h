// CUDA's thread model on the processor, as far as the kernels of native/cuda use it: their very sources are compiled by
// the host's compiler against this header and run block by block, each thread a coroutine that stops at barriers and
// warp operations. It checks indices, barriers, masks and arithmetic where there is no device; it says nothing about
// speed, memory ordering between warps, or a tensor core's own rounding.
#pragma once
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

#include "test/emulation/device_memory.h"

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct float2 {
  float x, y;
};
struct float4 {
  float x, y, z, w;
};
struct uint2 {
  unsigned x, y;
};
struct uint4 {
  unsigned x, y, z, w;
};

template <class Words>
void __stwb(Words* to, Words words) {
  *to = words;
}

inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

// Runs `body` as every thread of every block. Ends the program with a message on a deadlock.
void run_grid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& body);
uint8_t* dynamic_shared();
void block_barrier();
// Every lane gives 64 bytes or less and reads those of all 32; valid until the lane's second exchange from here.
const uint8_t* exchange(const void* value, size_t size);
int lane();

template <class T>
struct Lanes {
  const uint8_t* data;
  T operator[](int lane) const {
    T value;
    std::memcpy(&value, data + 64 * lane, sizeof(T));
    return value;
  }
};
template <class T>
Lanes<T> exchange(const T& value) {
  static_assert(sizeof(T) <= 64 && std::is_trivially_copyable_v<T>);
  return {exchange(&value, sizeof(T))};
}

}  // namespace emulation

inline void __syncthreads() { emulation::block_barrier(); }
inline void __syncwarp(unsigned = 0xffffffffu) { emulation::exchange(0); }
template <class T>
T __shfl_sync(unsigned, T value, int source) {
  return emulation::exchange(value)[source & 31];
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulation::exchange(value)[emulation::lane() ^ mask];
}
template <class T>
T __shfl_up_sync(unsigned, T value, unsigned delta) {
  const int from = emulation::lane() - static_cast<int>(delta);
  return emulation::exchange(value)[from < 0 ? emulation::lane() : from];
}
inline unsigned __ballot_sync(unsigned, bool value) {
  const auto lanes = emulation::exchange(static_cast<uint8_t>(value));
  unsigned bits = 0;
  for (int i = 0; i < 32; ++i) bits |= static_cast<unsigned>(lanes[i]) << i;
  return bits;
}
// One thread runs at a time, and none is stopped within.
template <class T>
T atomicAdd(T* to, T value) {
  const T old = *to;
  *to = static_cast<T>(old + value);
  return old;
}

inline unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline float __fmaf_rn(float a, float b, float c) { return std::fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline unsigned __popc(unsigned value) { return static_cast<unsigned>(__builtin_popcount(value)); }
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  const uint64_t bytes = (static_cast<uint64_t>(high) << 32) | low;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i)
    result |= static_cast<unsigned>((bytes >> (8 * ((selector >> (4 * i)) & 7))) & 0xff) << (8 * i);
  return result;
}
inline unsigned long long __double2ull_ru(double value) { return static_cast<unsigned long long>(std::ceil(value)); }
inline unsigned long long __float2ull_rn(float value) { return static_cast<unsigned long long>(std::nearbyint(value)); }

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t size, cudaStream_t stream) {
  emulation::check_address(to);
  emulation::enqueue([=] { std::memset(to, value, size); }, stream);
  return cudaSuccess;
}
// The most dynamic shared memory a block may have on sm_86 and sm_89, the least of the targets.
inline cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int value) {
  return value <= 99 * 1024 ? cudaSuccess : cudaErrorInvalidValue;
}
template <class T>
void check_argument(const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  if constexpr (std::is_pointer_v<T>) {
    emulation::check_address(value);
  } else if constexpr (sizeof(T) >= sizeof(uint64_t) && std::is_class_v<T>) {
#if defined(__GNUC__) && !defined(__clang__)
    // Whatever lies in the gaps may look like an address; only this compiler can blank them.
    T bare = value;
    __builtin_clear_padding(&bare);
    std::array<uint64_t, sizeof(T) / sizeof(uint64_t)> words;
    std::memcpy(words.data(), &bare, sizeof(words));
    for (const uint64_t word : words) emulation::check_word(word);
#endif
  }
}
template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments... arguments) {
  if (config->gridDim.y > 65535 || config->gridDim.z > 65535 || config->blockDim.x > 1024) return cudaErrorInvalidValue;
  (check_argument(arguments), ...);
  const auto work = [config = *config, kernel, arguments...] {
    emulation::run_grid(config.gridDim, config.blockDim, config.dynamicSmemBytes, [&] { kernel(arguments...); });
  };
  emulation::enqueue(work, config->stream);
  return cudaSuccess;
}
