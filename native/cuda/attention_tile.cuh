// Products of a warp's 16 rows with a tile in shared memory, for attention: bf16 by tensor cores, fp32 by fma, with one
// layout of the result: lane 4 g + t holds rows g and g + 8 of columns 2 t and 2 t + 1 of each eight. Tiles of bf16
// have rows of 64 or 128 elements whose 16-byte chunks are rotated by the row.
#pragma once
#include "cuda/device_math.cuh"
#include "cuda/ptx.cuh"
#include "ops/attention.h"

namespace gavel::cuda {

inline constexpr int kWarpRows = 16;

__device__ inline int lane_of() { return static_cast<int>(threadIdx.x) & 31; }
__device__ inline int warp_of() { return static_cast<int>(threadIdx.x) >> 5; }
__device__ inline int group_of() { return lane_of() >> 2; }
__device__ inline int pair_of() { return lane_of() & 3; }

template <class T>
constexpr int tile_stride(int columns) {
  return sizeof(T) == 2 ? columns : columns + 4;
}
// Where element (row, column) of a tile lies.
template <class T>
__device__ inline int tile_place(int row, int column, int stride) {
  if constexpr (sizeof(T) == 2) return row * stride + (((column >> 3) ^ (row & 7)) << 3) + (column & 7);
  return row * stride + column;
}

// Sixteen rows as a left operand, read from a tile whenever they are needed.
template <class T>
struct LeftTile {
  const T* tile;
  int stride;
  __device__ void fragment(uint32_t (&a)[4], int step) const {
    const int matrix = lane_of() >> 3, row = (matrix & 1) * 8 + (lane_of() & 7);
    ldmatrix_x4<false>(a, tile + tile_place<T>(row, step * 16 + (matrix >> 1) * 8, stride));
  }
  __device__ float at(int row, int depth) const { return tile[tile_place<float>(row, depth, stride)]; }
};

// The same rows kept in registers; fp32 stays in shared memory.
template <class T, int kSteps>
struct LeftFragments {
  uint32_t words[kSteps][4];
  __device__ void load(const T* tile, int stride, int depth) {
    const LeftTile<T> left{tile, stride};
#pragma unroll
    for (int step = 0; step < kSteps; ++step)
      if (step * 16 < depth) left.fragment(words[step], step);
  }
  __device__ void fragment(uint32_t (&a)[4], int step) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) a[i] = words[step][i];
  }
};
template <int kSteps>
struct LeftFragments<float, kSteps> : LeftTile<float> {
  __device__ void load(const float* from, int row, int) {
    tile = from;
    stride = row;
  }
};

// How the right operand lies: element (depth c, column n) at row n (by_column), at row c (by_depth), or, for bf16, in
// words of two c at row c / 2, rotated by eight columns from row to row.
enum class RightTile { by_column, by_depth, words };

// sums += left right for columns [column, column + 16); depth is at most 16 kSteps.
template <RightTile kKind, int kSteps, class T, class Left>
__device__ inline void multiply(float (&sums)[2][4], const Left& left, const T* right, int stride, int column,
                                int depth) {
  if constexpr (sizeof(T) == 2) {
    const int matrix = lane_of() >> 3, line = lane_of() & 7;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      if (step * 16 >= depth) break;
      uint32_t a[4], b[4];
      left.fragment(a, step);
      if constexpr (kKind == RightTile::by_column) {
        ldmatrix_x4<false>(
            b, right + tile_place<T>(column + (matrix >> 1) * 8 + line, step * 16 + (matrix & 1) * 8, stride));
      } else if constexpr (kKind == RightTile::by_depth) {
        ldmatrix_x4<true>(
            b, right + tile_place<T>(step * 16 + (matrix & 1) * 8 + line, column + (matrix >> 1) * 8, stride));
      } else {
        const uint32_t* const words = reinterpret_cast<const uint32_t*>(right) + (step * 8 + pair_of()) * stride;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int place = (column + i * 8 + group_of()) ^ (pair_of() << 3);
          b[2 * i] = words[place];
          b[2 * i + 1] = words[4 * stride + place];
        }
      }
      const uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
      mma_bf16(sums[0], a, first);
      mma_bf16(sums[1], a, second);
    }
  } else {
    const int row = group_of();
#pragma unroll 2
    for (int c = 0; c < depth; ++c) {
      const float x[2] = {left.at(row, c), left.at(row + 8, c)};
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int n = column + (i >> 2) * 8 + 2 * pair_of() + (i & 1);
        const float y = kKind == RightTile::by_column ? right[n * stride + c] : right[c * stride + n];
        float& sum = sums[i >> 2][i & 3];
        sum = __fmaf_rn(x[i >> 1 & 1], y, sum);
      }
    }
  }
}

// Sixteen bytes from global memory into a tile's row, zeros unless `valid`; `column` is a multiple of their elements.
template <class T>
__device__ inline void copy_chunk(T* tile, int row, int column, int stride, const T* from, bool valid) {
  copy_async(tile + tile_place<T>(row, column, stride), from, valid);
}

}  // namespace gavel::cuda
