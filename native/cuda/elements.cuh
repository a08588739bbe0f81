// Elementwise kernels: a thread takes kLanes neighbours at once, 16 bytes where rows and pointers allow it, else one.
#pragma once
#include <type_traits>

#include "cuda/launch.cuh"

namespace gavel::cuda {

template <class T, int kLanes>
struct alignas(sizeof(T) * kLanes < 16 ? sizeof(T) * kLanes : 16) Pack {
  T values[kLanes];
};

// 32 bits of a pack.
template <class T, int kLanes>
__device__ inline uint32_t word_of(const Pack<T, kLanes>& pack, int index) {
  if constexpr (sizeof(T) == 4) {
    return __float_as_uint(pack.values[index]);
  } else {
    constexpr int kEach = 4 / sizeof(T), kBits = 8 * sizeof(T);
    uint32_t word = 0;
#pragma unroll
    for (int i = 0; i < kEach; ++i) word |= static_cast<uint32_t>(pack.values[index * kEach + i]) << (i * kBits);
    return word;
  }
}
template <class T, int kLanes>
__device__ inline void set_word(Pack<T, kLanes>& pack, int index, uint32_t word) {
  if constexpr (sizeof(T) == 4) {
    pack.values[index] = __uint_as_float(word);
  } else {
    constexpr int kEach = 4 / sizeof(T), kBits = 8 * sizeof(T);
#pragma unroll
    for (int i = 0; i < kEach; ++i) pack.values[index * kEach + i] = static_cast<T>(word >> (i * kBits));
  }
}

// By words, and stored by the instruction itself: fields of a struct the compiler stores one by one where much code
// stands before.
template <class T, int kLanes>
__device__ inline Pack<T, kLanes> load_pack(const T* from) {
  constexpr int kBytes = sizeof(Pack<T, kLanes>);
  Pack<T, kLanes> pack;
  if constexpr (kBytes % 16 == 0) {
#pragma unroll
    for (int i = 0; i < kBytes / 16; ++i) {
      const uint4 words = reinterpret_cast<const uint4*>(from)[i];
      set_word(pack, 4 * i, words.x);
      set_word(pack, 4 * i + 1, words.y);
      set_word(pack, 4 * i + 2, words.z);
      set_word(pack, 4 * i + 3, words.w);
    }
  } else if constexpr (kBytes == 8) {
    const uint2 words = *reinterpret_cast<const uint2*>(from);
    set_word(pack, 0, words.x);
    set_word(pack, 1, words.y);
  } else {
    pack = *reinterpret_cast<const Pack<T, kLanes>*>(from);
  }
  return pack;
}
template <class T, int kLanes>
__device__ inline void store_pack(T* to, const Pack<T, kLanes>& pack) {
  constexpr int kBytes = sizeof(pack);
  if constexpr (kBytes % 16 == 0) {
#pragma unroll
    for (int i = 0; i < kBytes / 16; ++i)
      __stwb(reinterpret_cast<uint4*>(to) + i,
             uint4{word_of(pack, 4 * i), word_of(pack, 4 * i + 1), word_of(pack, 4 * i + 2), word_of(pack, 4 * i + 3)});
  } else if constexpr (kBytes == 8) {
    __stwb(reinterpret_cast<uint2*>(to), uint2{word_of(pack, 0), word_of(pack, 1)});
  } else {
    *reinterpret_cast<Pack<T, kLanes>*>(to) = pack;
  }
}

inline constexpr int kElementThreads = 256;

// body(index of the first element) for every pack.
template <int kLanes, class Body>
__global__ void __launch_bounds__(kElementThreads) elements_kernel(const Body body, int64_t count) {
  const int64_t i = (int64_t{blockIdx.x} * kElementThreads + threadIdx.x) * kLanes;
  if (i < count) body(i);
}

template <int kLanes, class Body>
void for_elements(Launch& launch, const Body& body, int64_t count) {
  launch.run(elements_kernel<kLanes, Body>, blocks(divide_up(count, int64_t{kElementThreads} * kLanes)),
             kElementThreads, 0, body, count);
}

// True when rows of `columns` are whole pieces of 16 bytes and so lie at the pointers.
template <class T>
bool whole_packs(int64_t columns, std::initializer_list<const void*> pointers) {
  bool whole = columns % (16 / sizeof(T)) == 0;
  for (const void* pointer : pointers) whole = whole && aligned(pointer);
  return whole;
}

// body(lanes) with the widest lanes that rows of `columns` and the pointers allow.
template <class T, class Body>
void with_lanes(int64_t columns, std::initializer_list<const void*> pointers, const Body& body) {
  if (whole_packs<T>(columns, pointers)) {
    body(std::integral_constant<int, 16 / sizeof(T)>{});
  } else {
    body(std::integral_constant<int, 1>{});
  }
}

}  // namespace gavel::cuda
