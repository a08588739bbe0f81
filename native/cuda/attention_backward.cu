// attention backward (Dao et al. 2022) without atomics: p = exp(s - lse) is computed again from the rows of qkv. One
// kernel walks query tiles and sums dQ; another takes a key block, walks every query that visits it by ascending rows
// and sums dK and dV of the block; a last one adds up the blocks that a row stands in (a partial prompt block is given
// to each completion), by ascending block.
#include "cuda/attention_args.cuh"
#include "cuda/kernels.h"

namespace gavel::cuda {
namespace {

// D = rowsum(dO O), one warp for a row's head.
template <class T>
__global__ void __launch_bounds__(128) means_kernel(const AttentionArgs<T> p, float* means, int64_t count) {
  const int64_t index = int64_t{blockIdx.x} * 4 + warp_of();
  if (index >= count) return;
  float sum = 0.0f;
  for (int d = lane_of(); d < p.head_dim; d += 32)
    sum = __fmaf_rn(to_float(p.grad_out[index * p.head_dim + d]), to_float(p.saved_out[index * p.head_dim + d]), sum);
  sum = warp_sum(sum);
  if (lane_of() == 0) means[index] = sum;
}

// Rows of one head into a tile: `row_of(line)` gives the row of qkv or grad_out, or -1 for zeros.
template <class T, int kD, class From>
__device__ __forceinline__ void load_rows(T* tile, int lines, int head_dim, const From& from) {
  constexpr int kChunk = 16 / sizeof(T), kChunks = kD / kChunk;
  for (int i = static_cast<int>(threadIdx.x); i < lines * kChunks; i += static_cast<int>(blockDim.x)) {
    const int line = i / kChunks, d = i % kChunks * kChunk;
    const T* const row = from(line);
    const bool valid = row != nullptr && d < head_dim;
    copy_chunk(tile, line, d, tile_stride<T>(kD), valid ? row + d : tile, valid);
  }
}

__device__ __forceinline__ void loaded() {
  copy_commit();
  copy_wait<0>();
  __syncthreads();
}

// dS = p (dP - D) scale with p = exp(scale s - lse), 0 where the key is not seen.
struct ScoreGradient {
  float p, ds;
};
__device__ __forceinline__ ScoreGradient score_gradient(float s, float dp, float lse, float mean, float scale,
                                                        bool seen) {
  const float p = seen ? exp_one(__fsub_rn(__fmul_rn(s, scale), lse)) : 0.0f;
  return {p, seen ? __fmul_rn(__fmul_rn(p, __fsub_rn(dp, mean)), scale) : 0.0f};
}

template <class T, int kD, int kWarps>
struct QueryShape {
  static constexpr int kRows = kWarps * kWarpRows, kThreads = 32 * kWarps;
  static constexpr int kStride = tile_stride<T>(kD), kScoreStride = tile_stride<T>(kKeyBlock);
  static constexpr size_t kSharedBytes = sizeof(T) * (2 * (kRows + kKeyBlock) * kStride + kRows * kScoreStride);
};

template <class T, int kD, int kWarps>
__global__ void __launch_bounds__(32 * kWarps, 1)
    query_kernel(const __grid_constant__ AttentionArgs<T> p, const float* means) {
  using Shape = QueryShape<T, kD, kWarps>;
  constexpr int kStride = Shape::kStride, kScoreStride = Shape::kScoreStride;
  T* const queries = reinterpret_cast<T*>(dynamic_shared());
  T* const grads = queries + Shape::kRows * kStride;
  T* const keys = grads + Shape::kRows * kStride;
  T* const values = keys + kKeyBlock * kStride;
  T* const scores = values + kKeyBlock * kStride + warp_of() * kWarpRows * kScoreStride;
  const QueryTile tile = p.plan.tiles[blockIdx.x];
  const int head = static_cast<int>(blockIdx.y), count = tile.row_count * p.group();

  for (int first = static_cast<int>(blockIdx.z) * Shape::kRows; first < count;
       first += static_cast<int>(gridDim.z) * Shape::kRows) {
    const auto row_of = [&](int query) { return tile.row_begin + query / p.group(); };
    const auto head_of = [&](int query) { return head * p.group() + query % p.group(); };
    __syncthreads();
    load_rows<T, kD>(queries, Shape::kRows, p.head_dim, [&](int line) {
      return first + line < count ? p.query_row(row_of(first + line), head_of(first + line)) : nullptr;
    });
    load_rows<T, kD>(grads, Shape::kRows, p.head_dim, [&](int line) -> const T* {
      const int query = first + line;
      if (query >= count) return nullptr;
      return p.grad_out + (int64_t{row_of(query)} * p.query_heads + head_of(query)) * p.head_dim;
    });
    loaded();
    const LeftTile<T> left{queries + warp_of() * kWarpRows * kStride, kStride};
    const LeftTile<T> left_grad{grads + warp_of() * kWarpRows * kStride, kStride};
    const LeftTile<T> left_scores{scores, kScoreStride};
    int row[2], visible[2];
    float lse[2], mean[2], sums[kD / 16][2][4];
    for (int half = 0; half < 2; ++half) {
      const int query = first + warp_of() * kWarpRows + half * 8 + group_of();
      const bool valid = query < count;
      row[half] = valid ? row_of(query) : -1;
      visible[half] = valid ? p.plan.row_keys[row[half]] : 0;
      const int64_t at = valid ? int64_t{row[half]} * p.query_heads + head_of(query) : 0;
      lse[half] = p.lse[at];
      mean[half] = means[at];
    }
#pragma unroll
    for (int i = 0; i < kD / 2; ++i) sums[i / 8][i / 4 % 2][i % 4] = 0.0f;

    const int last = first + Shape::kRows < count ? first + Shape::kRows : count;
    const int row_begin = row_of(first), row_end = row_of(last - 1) + 1;
    for (int begin = row_begin, end; begin < row_end; begin = end) {
      const int tail = p.plan.row_tail[begin];
      for (end = begin + 1; end < row_end && p.plan.row_tail[end] == tail;) ++end;
      const int most = p.most_keys(begin, end);
      for (int block = 0; block * kKeyBlock < most; ++block) {
        const int place = block < tile.shared_count ? tile.shared_begin + block : tail + block - tile.shared_count;
        const int32_t* const rows = p.plan.block_rows + int64_t{p.plan.block_ids[place]} * kKeyBlock;
        __syncthreads();
        load_rows<T, kD>(keys, kKeyBlock, p.head_dim,
                         [&](int line) { return rows[line] < 0 ? nullptr : p.key_row(rows[line], head); });
        load_rows<T, kD>(values, kKeyBlock, p.head_dim,
                         [&](int line) { return rows[line] < 0 ? nullptr : p.value_row(rows[line], head); });
        loaded();
        int seen[2];
        for (int half = 0; half < 2; ++half)
          seen[half] = row[half] >= begin && row[half] < end ? visible[half] - block * kKeyBlock : 0;
#pragma unroll 1
        for (int n = 0; n < kKeyBlock / 16; ++n) {
          float s[2][4] = {}, dp[2][4] = {};
          multiply<RightTile::by_column, kD / 16>(s, left, keys, kStride, n * 16, p.head_dim);
          multiply<RightTile::by_column, kD / 16>(dp, left_grad, values, kStride, n * 16, p.head_dim);
#pragma unroll
          for (int i = 0; i < 8; ++i) {
            const int half = i % 4 / 2, key = n * 16 + i / 4 * 8 + 2 * pair_of() + i % 2;
            const ScoreGradient gradient =
                score_gradient(s[i / 4][i % 4], dp[i / 4][i % 4], lse[half], mean[half], p.scale, key < seen[half]);
            scores[tile_place<T>(half * 8 + group_of(), key, kScoreStride)] = from_float<T>(gradient.ds);
          }
        }
        __syncwarp();
#pragma unroll
        for (int n = 0; n < kD / 16; ++n) {
          if (n * 16 >= p.head_dim) break;
          multiply<RightTile::by_depth, kKeyBlock / 16>(sums[n], left_scores, keys, kStride, n * 16, kKeyBlock);
        }
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (row[half] < 0) continue;
      const int query = first + warp_of() * kWarpRows + half * 8 + group_of();
      T* const to = p.grad_qkv + int64_t{row[half]} * p.columns() + int64_t{head_of(query)} * p.head_dim;
#pragma unroll
      for (int n = 0; n < kD / 8; ++n) {
        if (n * 8 >= p.head_dim) break;
        for (int i = 0; i < 2; ++i) to[n * 8 + 2 * pair_of() + i] = from_float<T>(sums[n / 2][n % 2][half * 2 + i]);
      }
    }
  }
}

// Four warps of 16 keys each; queries come kQueries at a time.
template <class T, int kD>
struct KeyShape {
  static constexpr int kThreads = 128, kQueries = sizeof(T) == 2 ? 64 : 16;
  static constexpr int kStride = tile_stride<T>(kD), kScoreStride = tile_stride<T>(kQueries);
  static constexpr size_t kSharedBytes = sizeof(T) * 2 * ((kKeyBlock + kQueries) * kStride + kKeyBlock * kScoreStride) +
                                         2 * sizeof(float) * kQueries + sizeof(int) * kQueries;
};

// sums: [num_blocks, kv_heads, 2, 64, D], dK and dV.
template <class T, int kD>
__global__ void __launch_bounds__(128, 1)
    key_kernel(const __grid_constant__ AttentionArgs<T> p, const float* means, float* sums) {
  using Shape = KeyShape<T, kD>;
  constexpr int kStride = Shape::kStride, kScoreStride = Shape::kScoreStride, kQueries = Shape::kQueries;
  T* const keys = reinterpret_cast<T*>(dynamic_shared());
  T* const values = keys + kKeyBlock * kStride;
  T* const queries = values + kKeyBlock * kStride;
  T* const grads = queries + kQueries * kStride;
  T* const probabilities = grads + kQueries * kStride + warp_of() * kWarpRows * kScoreStride;
  T* const score_grads = probabilities + kKeyBlock * kScoreStride;
  float* const lse = reinterpret_cast<float*>(grads + kQueries * kStride + 2 * kKeyBlock * kScoreStride);
  float* const mean = lse + kQueries;
  int* const seen = reinterpret_cast<int*>(mean + kQueries);
  const int64_t block = blockIdx.x;
  const int head = static_cast<int>(blockIdx.y);
  const int32_t* const rows = p.plan.block_rows + block * kKeyBlock;
  load_rows<T, kD>(keys, kKeyBlock, p.head_dim,
                   [&](int line) { return rows[line] < 0 ? nullptr : p.key_row(rows[line], head); });
  load_rows<T, kD>(values, kKeyBlock, p.head_dim,
                   [&](int line) { return rows[line] < 0 ? nullptr : p.value_row(rows[line], head); });
  const LeftTile<T> left_keys{keys + warp_of() * kWarpRows * kStride, kStride};
  const LeftTile<T> left_values{values + warp_of() * kWarpRows * kStride, kStride};
  float dk[kD / 16][2][4], dv[kD / 16][2][4];
#pragma unroll
  for (int i = 0; i < kD / 2; ++i) dk[i / 8][i / 4 % 2][i % 4] = dv[i / 8][i / 4 % 2][i % 4] = 0.0f;

  for (int v = p.plan.visit_begin[block]; v < p.plan.visit_begin[block + 1]; ++v) {
    const BlockVisit visit = p.plan.visits[v];
    const int count = (visit.row_end - visit.row_begin) * p.group();
    for (int first = 0; first < count; first += kQueries) {
      const auto row_of = [&](int query) { return visit.row_begin + query / p.group(); };
      const auto head_of = [&](int query) { return head * p.group() + query % p.group(); };
      __syncthreads();
      load_rows<T, kD>(queries, kQueries, p.head_dim, [&](int line) {
        return first + line < count ? p.query_row(row_of(first + line), head_of(first + line)) : nullptr;
      });
      load_rows<T, kD>(grads, kQueries, p.head_dim, [&](int line) -> const T* {
        const int query = first + line;
        if (query >= count) return nullptr;
        return p.grad_out + (int64_t{row_of(query)} * p.query_heads + head_of(query)) * p.head_dim;
      });
      for (int i = static_cast<int>(threadIdx.x); i < kQueries; i += Shape::kThreads) {
        const int query = first + i;
        const int64_t at = query < count ? int64_t{row_of(query)} * p.query_heads + head_of(query) : 0;
        lse[i] = p.lse[at];
        mean[i] = means[at];
        seen[i] = query < count ? p.plan.row_keys[row_of(query)] - visit.key_begin : 0;
      }
      loaded();
      // s and dP are transposed here: rows are keys, columns queries.
#pragma unroll 1
      for (int n = 0; n < kQueries / 16; ++n) {
        float s[2][4] = {}, dp[2][4] = {};
        multiply<RightTile::by_column, kD / 16>(s, left_keys, queries, kStride, n * 16, p.head_dim);
        multiply<RightTile::by_column, kD / 16>(dp, left_values, grads, kStride, n * 16, p.head_dim);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const int line = i % 4 / 2 * 8 + group_of(), query = n * 16 + i / 4 * 8 + 2 * pair_of() + i % 2;
          const ScoreGradient gradient = score_gradient(s[i / 4][i % 4], dp[i / 4][i % 4], lse[query], mean[query],
                                                        p.scale, warp_of() * kWarpRows + line < seen[query]);
          probabilities[tile_place<T>(line, query, kScoreStride)] = from_float<T>(gradient.p);
          score_grads[tile_place<T>(line, query, kScoreStride)] = from_float<T>(gradient.ds);
        }
      }
      __syncwarp();
      const auto add = [&](float(&to)[kD / 16][2][4], const T* scores, const T* right) {
        const LeftTile<T> left{scores, kScoreStride};
#pragma unroll
        for (int n = 0; n < kD / 16; ++n) {
          if (n * 16 >= p.head_dim) break;
          multiply<RightTile::by_depth, kQueries / 16>(to[n], left, right, kStride, n * 16, kQueries);
        }
      };
      add(dv, probabilities, grads);
      add(dk, score_grads, queries);
    }
  }
  copy_wait<0>();
  float* const to = sums + (block * p.kv_heads + head) * 2 * kKeyBlock * p.head_dim;
#pragma unroll
  for (int n = 0; n < kD / 8; ++n) {
    if (n * 8 >= p.head_dim) break;
    for (int i = 0; i < 4; ++i) {
      const int slot = warp_of() * kWarpRows + i / 2 * 8 + group_of(), d = n * 8 + 2 * pair_of() + i % 2;
      to[slot * p.head_dim + d] = dk[n / 2][n % 2][i];
      to[(kKeyBlock + slot) * p.head_dim + d] = dv[n / 2][n % 2][i];
    }
  }
}

// dK and dV of a row: the sums of its slots in their order.
template <class T>
__global__ void __launch_bounds__(256) collect_kernel(const AttentionArgs<T> p, const float* sums) {
  const int64_t row = blockIdx.x;
  const int width = p.kv_heads * p.head_dim;
  for (int i = static_cast<int>(threadIdx.x); i < 2 * width; i += 256) {
    const int which = i / width, head = i % width / p.head_dim, d = i % p.head_dim;
    float sum = 0.0f;
    for (int at = p.plan.slot_begin[row]; at < p.plan.slot_begin[row + 1]; ++at) {
      const int64_t slot = p.plan.slots[at], block = slot / kKeyBlock;
      sum = __fadd_rn(
          sum, sums[(((block * p.kv_heads + head) * 2 + which) * kKeyBlock + slot % kKeyBlock) * p.head_dim + d]);
    }
    p.grad_qkv[row * p.columns() + int64_t{p.query_heads} * p.head_dim + i] = from_float<T>(sum);
  }
}

template <class T, int kD>
void backward(Launch& launch, const Attention& p) {
  const AttentionArgs<T> args(p);
  const AttentionPlan& plan = *p.plan;
  const int64_t rows = p.qkv.rows(), heads = rows * p.query_heads;
  float* const means = launch.workspace<float>(heads);
  float* const sums = launch.workspace<float>(int64_t{plan.num_blocks} * p.kv_heads * 2 * kKeyBlock * p.head_dim);
  launch.zero(p.grad_qkv.data, static_cast<size_t>(p.grad_qkv.shape.count()) * sizeof(T));
  launch.run(means_kernel<T>, blocks(divide_up(heads, 4)), 128, 0, args, means, heads);

  constexpr int kWarps = sizeof(T) == 2 ? 4 : 1;
  using Query = QueryShape<T, kD, kWarps>;
  const int64_t chunks = divide_up(int64_t{32} * args.group(), Query::kRows);
  launch.run(query_kernel<T, kD, kWarps>, blocks(plan.num_tiles, p.kv_heads, chunks), Query::kThreads,
             Query::kSharedBytes, args, static_cast<const float*>(means));
  launch.run(key_kernel<T, kD>, blocks(plan.num_blocks, p.kv_heads), KeyShape<T, kD>::kThreads,
             KeyShape<T, kD>::kSharedBytes, args, static_cast<const float*>(means), sums);
  launch.run(collect_kernel<T>, blocks(rows), 256, 0, args, static_cast<const float*>(sums));
}

}  // namespace

void attention_backward(Launch& launch, const Attention& p) {
  if (!supports_attention(launch, p) || !p.grad_qkv) return;
  with_element(p.qkv.dtype, [&](auto type) {
    using T = decltype(type);
    if (p.head_dim <= 64) {
      backward<T, 64>(launch, p);
    } else {
      backward<T, 128>(launch, p);
    }
  });
}

}  // namespace gavel::cuda
