// Gradients that are sums over rows: a thread adds 64 rows of its columns in ascending order into a workspace, then a
// block adds these parts of 32 columns, every 16th of them by one thread, and the threads' sums ascending. The order
// depends on nothing but the number of rows.
#pragma once
#include "cuda/elements.cuh"

namespace gavel::cuda {

inline constexpr int kRowsPerSum = 64, kSumThreads = 128;
inline constexpr int kPartColumns = 32, kPartSlices = 16;

// value.add(row, column, sums) adds kLanes neighbours of a row; `parts` is [divide_up(rows, 64), columns].
template <int kLanes, class Value>
__global__ void __launch_bounds__(kSumThreads)
    partial_sums_kernel(const Value value, float* parts, int64_t rows, int64_t columns) {
  const int64_t column = (int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * kLanes;
  const int64_t first = int64_t{blockIdx.x} * kRowsPerSum;
  if (column >= columns) return;
  const int64_t end = first + kRowsPerSum < rows ? first + kRowsPerSum : rows;
  float sums[kLanes] = {};
#pragma unroll 4
  for (int64_t row = first; row < end; ++row) value.add(row, column, sums);
  float* const to = parts + int64_t{blockIdx.x} * columns + column;
#pragma unroll
  for (int i = 0; i < kLanes; i += kLanes < 4 ? 1 : 4) {
    constexpr int kStored = kLanes < 4 ? 1 : 4;
    Pack<float, kStored> pack;
#pragma unroll
    for (int j = 0; j < kStored; ++j) pack.values[j] = sums[i + j];
    store_pack(to + i, pack);
  }
}

template <class Sum>
__global__ void __launch_bounds__(kPartColumns* kPartSlices)
    add_sums_kernel(Sum* grad, const Sum* parts, int64_t count, int64_t columns) {
  __shared__ Sum sums[kPartSlices][kPartColumns];
  const int own = static_cast<int>(threadIdx.x) % kPartColumns, slice = static_cast<int>(threadIdx.x) / kPartColumns;
  const int64_t column = int64_t{blockIdx.x} * kPartColumns + own;
  Sum sum = 0;
  if (column < columns) {
#pragma unroll 8
    for (int64_t part = slice; part < count; part += kPartSlices) sum = __fadd_rn(sum, parts[part * columns + column]);
  }
  sums[slice][own] = sum;
  __syncthreads();
  if (slice != 0 || column >= columns) return;
  sum = grad[column];
#pragma unroll
  for (int i = 0; i < kPartSlices; ++i) sum = __fadd_rn(sum, sums[i][own]);
  grad[column] = sum;
}

// grad[column] += sum over rows of what `value` adds there. `whole`: rows of T are whole pieces of 16 bytes where
// `value` reads them, as `columns` are.
template <class T, class Value>
void add_column_sums(Launch& launch, const Value& value, float* grad, int64_t rows, int64_t columns, bool whole) {
  const int64_t count = divide_up(rows, kRowsPerSum);
  float* const parts = launch.workspace<float>(count * columns);
  const auto run = [&](auto lanes) {
    const int64_t own = divide_up(columns, lanes());
    const int threads = static_cast<int>(own < kSumThreads ? round_up(own, 32) : kSumThreads);
    launch.run(partial_sums_kernel<lanes(), Value>, blocks(count, divide_up(own, threads)), threads, 0, value, parts,
               rows, columns);
  };
  if (whole) {
    run(std::integral_constant<int, 16 / sizeof(T)>{});
  } else {
    run(std::integral_constant<int, 1>{});
  }
  launch.run(add_sums_kernel<float>, blocks(divide_up(columns, kPartColumns)), kPartColumns * kPartSlices, 0, grad,
             static_cast<const float*>(parts), count, columns);
}

}  // namespace gavel::cuda
