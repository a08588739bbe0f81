// Rows of norms: a block takes a row, its threads visit it in steps that follow from its length alone, so that a row's
// sums do not depend on its neighbours, and neither on alignment: one lane at a time or four, the order is the same.
#pragma once
#include <type_traits>

#include "cuda/device_math.cuh"
#include "cuda/launch.cuh"

namespace gavel::cuda {

inline constexpr int kMaxRowThreads = 512;

// A thread's elements are neighbours by this many.
inline constexpr int kRowLanes = 8;

inline int row_threads(int64_t columns) {
  const int64_t wanted = round_up(divide_up(columns, kRowLanes), 32);
  return static_cast<int>(wanted < kMaxRowThreads ? wanted : kMaxRowThreads);
}

// Eight neighbours of a row in fp32, zeros past its end. kVector: rows are whole vectors, loaded 16 bytes at a time.
template <bool kVector, class T>
__device__ inline void load_part(const T* row, int64_t start, int64_t columns, float (&part)[kRowLanes]) {
  if constexpr (kVector) {
#pragma unroll
    for (int i = 0; i < kRowLanes; i += Vector<T>::kSize) {
      const Vector<T> vector = *reinterpret_cast<const Vector<T>*>(row + start + i);
#pragma unroll
      for (int j = 0; j < Vector<T>::kSize; ++j) part[i + j] = to_float(vector.values[j]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kRowLanes; ++i) part[i] = start + i < columns ? to_float(row[start + i]) : 0.0f;
  }
}

template <bool kVector, class T>
__device__ inline void store_part(T* row, int64_t start, int64_t columns, const float (&part)[kRowLanes]) {
  if constexpr (kVector) {
#pragma unroll
    for (int i = 0; i < kRowLanes; i += Vector<T>::kSize) {
      Vector<T> vector;
#pragma unroll
      for (int j = 0; j < Vector<T>::kSize; ++j) vector.values[j] = from_float<T>(part[i + j]);
      *reinterpret_cast<Vector<T>*>(row + start + i) = vector;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kRowLanes; ++i)
      if (start + i < columns) row[start + i] = from_float<T>(part[i]);
  }
}

// body(start) for every part of a row that this thread takes, ascending.
template <class Body>
__device__ inline void for_parts(int64_t columns, const Body& body) {
  const int64_t step = int64_t{blockDim.x} * kRowLanes;
  for (int64_t start = int64_t{threadIdx.x} * kRowLanes; start < columns; start += step) body(start);
}

inline bool whole_vectors(int64_t columns, std::initializer_list<const void*> pointers) {
  bool whole = columns % kRowLanes == 0;
  for (const void* pointer : pointers) whole = whole && aligned(pointer);
  return whole;
}

// body(T{}, W{}, vector) for the dtypes of rows and weight and whether vectors fit.
template <class Body>
void with_rows(const Tensor& x, const Tensor& weight, bool vector, const Body& body) {
  with_element(x.dtype, [&](auto type) {
    with_element(weight.dtype, [&](auto weight_type) {
      if (vector) {
        body(type, weight_type, std::true_type{});
      } else {
        body(type, weight_type, std::false_type{});
      }
    });
  });
}

}  // namespace gavel::cuda
