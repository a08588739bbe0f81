// How the products of `linear` are tiled, and how far the fastest mode cuts a sum (core/plugin.h, Exactness): into so
// many parts that the device is full, and no more. Host code without CUDA, so that benchmarks say what a kernel takes
// by the function that it takes it by.
#pragma once
#include <algorithm>
#include <cstdint>

namespace gavel::cuda {

inline constexpr int64_t kMostParts = 16;
// Blocks of a product that a multiprocessor is given: their copies in flight, about 20 KiB, hide the memory's latency.
inline constexpr int64_t kProductBlocks = 2;
inline constexpr int64_t kLeastDepth = 256;  // of a part; below, filling the pipeline is what it does
// Blocks of attention, of one warp each, that a multiprocessor is given: while one waits for its keys others multiply.
inline constexpr int64_t kAttentionBlocks = 3;
inline constexpr int64_t kLeastKeyBlocks = 2;  // of a part

constexpr int64_t pieces(int64_t value, int64_t step) { return (value + step - 1) / step; }

/// 16 x 64, 64 x 64 and 128 x 128 elements of the result.
enum class ProductTile : uint8_t { low, middle, large };

inline ProductTile product_tile(int64_t processors, int64_t rows, int64_t columns) {
  if (rows <= 16) return ProductTile::low;
  const bool fills = pieces(rows, 128) * pieces(columns, 128) >= processors;
  return rows <= 64 || !fills ? ProductTile::middle : ProductTile::large;
}

/// `wanted` blocks for `blocks` that have work: parts of each, at most `most`.
inline int64_t parts_that_fill(int64_t blocks, int64_t wanted, int64_t most) {
  const int64_t limit = std::max<int64_t>(1, std::min(most, kMostParts));
  return std::clamp<int64_t>(wanted / std::max<int64_t>(blocks, 1), 1, limit);
}

/// The depth of a product in parts of whole stages of 32; `count` 1: uncut.
struct DepthParts {
  int64_t depth, count;
};

// Where tiles occupy half of the multiprocessors, writing and adding sums costs more than the other half gives. Sums of
// the parts, fp32 written and read, are no more bytes than the weight in bf16: 8 parts rows <= 2 depth.
inline DepthParts depth_parts(int64_t processors, int64_t tiles, int64_t rows, int64_t depth) {
  if (2 * tiles > processors) return {depth, 1};
  const int64_t most = std::min(depth / kLeastDepth, depth / (4 * std::max<int64_t>(rows, 1)));
  const int64_t wanted = parts_that_fill(tiles, kProductBlocks * processors, most);
  const int64_t each = pieces(pieces(depth, wanted), 32) * 32;
  return {each, pieces(depth, each)};
}

/// Parts that the fastest mode takes for rows x depth by depth x columns.
inline int64_t product_parts(int64_t processors, int64_t rows, int64_t columns, int64_t depth) {
  const ProductTile tile = product_tile(processors, rows, columns);
  if (tile == ProductTile::large) return 1;
  return depth_parts(processors, pieces(rows, tile == ProductTile::low ? 16 : 64) * pieces(columns, 64), rows, depth)
      .count;
}

/// Parts of the key blocks of a tile, where rows see `most_keys` keys at most. 16 queries are a block's.
inline int64_t attention_parts(int64_t processors, int64_t tiles, int64_t rows, int64_t group, int64_t kv_heads,
                               int64_t most_keys) {
  const int64_t blocks = std::max(tiles, pieces(rows * group, 16)) * kv_heads;
  return parts_that_fill(blocks, kAttentionBlocks * processors, pieces(most_keys, 64) / kLeastKeyBlocks);
}

}  // namespace gavel::cuda
