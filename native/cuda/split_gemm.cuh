// The fastest mode of a product with too few tiles for the device: its depth is cut into parts, one a block, whose sums
// a second kernel adds in ascending order before the epilogue. The same shape on the same device has the same parts.
#pragma once
#include "cuda/gemm.cuh"
#include "cuda/split.h"

namespace gavel::cuda {

static_assert(LowTile::kM == 16 && LowTile::kN == 64 && MiddleTile::kM == 64 && MiddleTile::kN == 64 &&
              LargeTile::kM == 128 && LargeTile::kN == 128 && kDepth == 32);  // as split.h counts them

// Sums of the parts: [parts][rows][columns to a multiple of 4].
struct StoreParts {
  static constexpr bool kResumes = false;
  float* sums;
  int64_t rows, stride;

  template <int kCount>
  __device__ void store(int64_t row, int64_t column, const float (&values)[kCount]) const {
    static_assert(kCount == 2 || kCount == 4);
    if (row >= rows || column >= stride) return;
    float* const to = sums + (int64_t{blockIdx.z} * rows + row) * stride + column;
    if constexpr (kCount == 4) {
      *reinterpret_cast<float4*>(to) = float4{values[0], values[1], values[2], values[3]};
    } else {
      *reinterpret_cast<float2*>(to) = float2{values[0], values[1]};
    }
  }
};

template <class T, class Shape, class Left, class Right>
__global__ void __launch_bounds__(Shape::kThreads, kLeastBlocks<T, false>)
    gemm_part_kernel(const Left left, const Right right, int64_t depth, int64_t part_depth, const StoreParts parts) {
  const int64_t row0 = int64_t{blockIdx.x} * Shape::kM, column0 = int64_t{blockIdx.y} * Shape::kN;
  const int64_t begin = int64_t{blockIdx.z} * part_depth, end = begin + part_depth;
  TileProduct<T, Shape> product;
  product.zero();
  product.run(left, right, row0, column0, end < depth ? end : depth, begin);
  product.template for_each<Right::kQuads>(
      [&](int row, int column, auto& values) { parts.store(row0 + row, column0 + column, values); });
}

inline constexpr int kMergeThreads = 256;

template <class Epilogue>
__global__ void __launch_bounds__(kMergeThreads)
    add_parts_kernel(const StoreParts parts, int count, const Epilogue epilogue) {
  const int64_t size = parts.rows * parts.stride, at = (int64_t{blockIdx.x} * kMergeThreads + threadIdx.x) * 4;
  if (at >= size) return;
  const float4* from = reinterpret_cast<const float4*>(parts.sums + at);
  float4 sum = *from;
#pragma unroll 2
  for (int part = 1; part < count; ++part) {
    from += size / 4;
    const float4 next = *from;
    sum =
        float4{__fadd_rn(sum.x, next.x), __fadd_rn(sum.y, next.y), __fadd_rn(sum.z, next.z), __fadd_rn(sum.w, next.w)};
  }
  float values[4] = {sum.x, sum.y, sum.z, sum.w};
  epilogue.store(at / parts.stride, at % parts.stride, values);
}

// Room for the parts of any number of rows, the largest tiles of a full device, so that a plan holds for all of them.
inline float* parts_workspace(Launch& launch) {
  if (!launch.fastest()) return nullptr;
  return launch.workspace<float>(kProductBlocks * launch.processors() * MiddleTile::kM * MiddleTile::kN);
}

// As gemm(); `sums` are of parts_workspace().
template <class T, class Shape, class Left, class Right, class Epilogue>
void split_gemm(Launch& launch, float* sums, const Left& left, const Right& right, int64_t depth,
                const Epilogue& epilogue) {
  if (!launch.fastest()) return gemm<T, Shape>(launch, left, right, depth, epilogue);
  const int64_t row_tiles = divide_up(left.extent, Shape::kM), column_tiles = divide_up(right.extent, Shape::kN);
  const DepthParts cut = depth_parts(launch.processors(), row_tiles * column_tiles, left.extent, depth);
  if (cut.count < 2) return gemm<T, Shape>(launch, left, right, depth, epilogue);
  const StoreParts parts{sums, left.extent, round_up(right.extent, 4)};
  launch.run(gemm_part_kernel<T, Shape, Left, Right>, blocks(row_tiles, column_tiles, cut.count), Shape::kThreads,
             TileProduct<T, Shape>::kSharedBytes, left, right, depth, cut.depth, parts);
  launch.run(add_parts_kernel<Epilogue>, blocks(divide_up(parts.rows * parts.stride, kMergeThreads * 4)), kMergeThreads,
             0, parts, static_cast<int>(cut.count), epilogue);
}

}  // namespace gavel::cuda
