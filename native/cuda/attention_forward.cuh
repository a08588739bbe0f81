// Attention forward of a query tile and one key-value head by a block of threads: it visits the key blocks in ascending
// order with (max, sum, out) of each query in registers (Dao et al. 2022). A query's arithmetic is that of its own
// 16-row fragment line: it does not depend on who shares the tile, and a block that it does not see leaves its state as
// it is.
#pragma once
#include "cuda/attention_parts.cuh"

namespace gavel::cuda {

// kParts: of the key blocks only those of this block's part, whose state is left for merge_parts_kernel.
template <class T, int kD, int kWarps, bool kParts = false>
class Forward {
 public:
  static constexpr int kRows = kWarps * kWarpRows, kThreads = 32 * kWarps;
  static constexpr int kQueryStride = tile_stride<T>(kD), kScoreStride = tile_stride<T>(kKeyBlock);
  // Keys lie as [D][64] (fp32) or words [D / 2][64], values as [64][D] or words [32][D].
  static constexpr int kKeyStride = sizeof(T) == 2 ? kKeyBlock : kKeyBlock + 4;
  static constexpr int kValueStride = sizeof(T) == 2 ? kD : kD + 4;
  static constexpr int kKeyElements = kD * kKeyStride, kValueElements = kKeyBlock * kValueStride;
  static constexpr RightTile kKind = sizeof(T) == 2 ? RightTile::words : RightTile::by_depth;
  static constexpr size_t kSharedBytes =
      sizeof(T) * (kRows * kQueryStride + kKeyElements + kValueElements + kRows * kScoreStride);

  __device__ explicit Forward(const AttentionArgs<T>& args, const AttentionParts* parts = nullptr)
      : p_(args), parts_(parts), tile_(args.plan.tiles[blockIdx.x]) {
    queries_ = reinterpret_cast<T*>(dynamic_shared());
    keys_ = queries_ + kRows * kQueryStride;
    values_ = keys_ + kKeyElements;
    scores_ = values_ + kValueElements + warp_of() * kWarpRows * kScoreStride;
  }

  __device__ void run() {
    const int count = tile_.row_count * p_.group(), parts = kParts ? parts_->count : 1;
    const int chunk = static_cast<int>(blockIdx.z) / parts, chunks = static_cast<int>(gridDim.z) / parts;
    for (int first = chunk * kRows; first < count; first += chunks * kRows) run_chunk(first, count);
  }

 private:
  __device__ int head() const { return static_cast<int>(blockIdx.y); }

  __device__ __forceinline__ void run_chunk(int first, int count) {
    load_queries(first, count);
    for (int half = 0; half < 2; ++half) {
      const int query = first + warp_of() * kWarpRows + half * 8 + group_of();
      row_[half] = query < count ? tile_.row_begin + query / p_.group() : -1;
      visible_[half] = query < count ? p_.plan.row_keys[row_[half]] : 0;
      max_[half] = -infinity();
      sum_[half] = 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kD / 2; ++i) out_[i / 8][i / 4 % 2][i % 4] = 0.0f;

    const int last = first + kRows < count ? first + kRows : count;
    const int row_begin = tile_.row_begin + first / p_.group(), row_end = tile_.row_begin + (last - 1) / p_.group() + 1;
    Blocks blocks(*this, row_begin, row_end);
    int left = 0x7fffffff;  // blocks to visit
    if constexpr (kParts) {
      int total = 0;
      for (Blocks counted = blocks; counted.next().id >= 0;) ++total;
      const int from = total * this_part() / parts_->count;
      left = total * (this_part() + 1) / parts_->count - from;
      for (int i = 0; i < from; ++i) blocks.next();
    }
    const auto next = [&] { return left-- > 0 ? blocks.next() : Block{}; };
    Block block = next();
    load_keys(block.id);
    load_values(block.id);
    while (block.id >= 0) {
      const Block after = next();
      visit(block, after.id);
      block = after;
    }
    if constexpr (kParts) {
      finish_part(first);
    } else {
      finish(first);
    }
  }

  // A key block, its first key, and the rows that it is visited for. id -1: none.
  struct Block {
    int id = -1, key_begin = 0, row_begin = 0, row_end = 0;
  };

  // The blocks of a chunk's rows in order: the shared ones with all rows, then, run by run, those of rows with one
  // tail.
  class Blocks {
   public:
    __device__ Blocks(const Forward& forward, int row_begin, int row_end)
        : forward_(forward), row_begin_(row_begin), row_end_(row_end), begin_(row_begin), end_(row_end) {
      take(forward.tile_.shared_begin, 0, forward.tile_.shared_count);
    }
    __device__ __forceinline__ Block next() {
      while (block_ >= limit_) {
        const auto& plan = forward_.p_.plan;
        begin_ = shared_ ? row_begin_ : end_;
        shared_ = false;
        if (begin_ >= row_end_) return {};
        for (end_ = begin_ + 1; end_ < row_end_ && plan.row_tail[end_] == plan.row_tail[begin_];) ++end_;
        const int first = forward_.tile_.shared_count;
        take(plan.row_tail[begin_] - first, first, 0x7fffffff);
      }
      const int block = block_++;
      return {forward_.p_.plan.block_ids[ids_ + block], block * kKeyBlock, begin_, end_};
    }

   private:
    // From block `first` on to `limit`, and no further than a row of the run sees.
    __device__ void take(int ids, int first, int limit) {
      const int seen = (forward_.p_.most_keys(begin_, end_) + kKeyBlock - 1) / kKeyBlock;
      ids_ = ids;
      block_ = first;
      limit_ = seen < limit ? seen : limit;
    }
    const Forward& forward_;
    int row_begin_, row_end_, begin_, end_, ids_ = 0, block_ = 0, limit_ = 0;
    bool shared_ = true;
  };

  __device__ __forceinline__ void load_queries(int first, int count) {
    constexpr int kChunk = 16 / sizeof(T);
    __syncthreads();  // the last chunk's queries were read
    for (int i = static_cast<int>(threadIdx.x); i < kRows * (kD / kChunk); i += kThreads) {
      const int line = i / (kD / kChunk), d = i % (kD / kChunk) * kChunk, query = first + line;
      const bool valid = query < count && d < p_.head_dim;
      const T* const from =
          valid ? p_.query_row(tile_.row_begin + query / p_.group(), head() * p_.group() + query % p_.group()) + d
                : p_.qkv;
      copy_chunk(queries_, line, d, kQueryStride, from, valid);
    }
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    left_.load(queries_ + warp_of() * kWarpRows * kQueryStride, kQueryStride, p_.head_dim);
  }

  // A block's keys as they lie in the store, on their way when this returns; nothing for block -1.
  __device__ __forceinline__ void load_keys(int block) {
    constexpr int kChunk = 16 / sizeof(T);
    const T* const keys = p_.key_tile(block, head());
    const int chunks = block < 0 ? 0 : p_.tile_size() / kChunk;
    for (int i = static_cast<int>(threadIdx.x); i < chunks; i += kThreads) {
      const int line = i / 16, key = i % 16 * 4;
      if constexpr (sizeof(T) == 2) {
        // Words: 4 to a chunk.
        copy_async(keys_ + 2 * (line * kKeyStride + (key ^ ((line & 3) << 3))), keys + i * kChunk, true);
      } else {
        copy_async(keys_ + line * kKeyStride + key, keys + i * kChunk, true);
      }
    }
    copy_commit();
  }
  __device__ __forceinline__ void load_values(int block) {
    constexpr int kChunk = 16 / sizeof(T);
    const T* const values = p_.value_tile(block, head());
    const int chunks = block < 0 ? 0 : p_.tile_size() / kChunk;
    for (int i = static_cast<int>(threadIdx.x); i < chunks; i += kThreads) {
      const int line = i / (p_.head_dim / 4), d = i % (p_.head_dim / 4) * 4;
      if constexpr (sizeof(T) == 2) {
        copy_async(values_ + 2 * (line * kValueStride + (d ^ ((line & 3) << 3))), values + i * kChunk, true);
      } else {
        copy_async(values_ + line * kValueStride + d, values + i * kChunk, true);
      }
    }
    copy_commit();
  }

  // The next block's keys travel while this one's values are multiplied, its values while its keys are.
  __device__ __forceinline__ void visit(const Block& block, int after) {
    int seen[2];
    for (int half = 0; half < 2; ++half) {
      const bool takes_part = row_[half] >= block.row_begin && row_[half] < block.row_end;
      seen[half] = takes_part ? visible_[half] - block.key_begin : 0;
    }
    const bool sees = __ballot_sync(kAllLanes, seen[0] > 0 || seen[1] > 0) != 0;
    float scores[4][2][4];
    copy_wait<1>();
    __syncthreads();  // the keys are there
    if (sees) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
#pragma unroll
        for (int i = 0; i < 8; ++i) scores[n][i / 4][i % 4] = 0.0f;
        multiply<kKind, kD / 16>(scores[n], left_, keys_, kKeyStride, n * 16, p_.head_dim);
      }
    }
    __syncthreads();  // and were read
    load_keys(after);
    float factor[2];
    LeftFragments<T, kKeyBlock / 16> probabilities;
    if (sees) {
#pragma unroll
      for (int half = 0; half < 2; ++half) factor[half] = update(scores, half, seen[half]);
      __syncwarp();
      probabilities.load(scores_, kScoreStride, kKeyBlock);
    }
    copy_wait<1>();
    __syncthreads();  // the values are there
    if (sees) {
#pragma unroll
      for (int n = 0; n < kD / 16; ++n) {
        if (n * 16 >= p_.head_dim) break;
        float products[2][4] = {};
        multiply<kKind, kKeyBlock / 16>(products, probabilities, values_, kValueStride, n * 16, kKeyBlock);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const int half = i % 4 / 2;
          float& to = out_[n][i / 4][i % 4];
          to = seen[half] > 0 ? __fmaf_rn(to, factor[half], products[i / 4][i % 4]) : to;
        }
      }
    }
    __syncthreads();  // and were read
    load_values(after);
  }

  // Takes a block's scores into the state of one row, leaves its probabilities in shared memory and returns what the
  // sums so far are multiplied by. Masked by selection: whatever lies in a free slot does not matter.
  __device__ __forceinline__ float update(const float (&scores)[4][2][4], int half, int seen) {
    float z[16], block_max = -infinity();
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const int key = i / 2 * 8 + 2 * pair_of() + i % 2;
      z[i] = key < seen ? __fmul_rn(scores[i / 4][i / 2 % 2][half * 2 + i % 2], p_.scale) : -infinity();
      block_max = fmaxf(block_max, z[i]);
    }
    for (int offset = 1; offset < 4; offset <<= 1)
      block_max = fmaxf(block_max, __shfl_xor_sync(kAllLanes, block_max, offset));
    const float new_max = fmaxf(max_[half], block_max), shift = new_max == -infinity() ? 0.0f : new_max;
    const float factor = exp_one(__fsub_rn(max_[half], shift));
    float sum = 0.0f;
    const int row = half * 8 + group_of();
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const float probability = exp_one(__fsub_rn(z[i], shift));
      sum = __fadd_rn(sum, probability);
      scores_[tile_place<T>(row, i / 2 * 8 + 2 * pair_of() + i % 2, kScoreStride)] = from_float<T>(probability);
    }
    for (int offset = 1; offset < 4; offset <<= 1) sum = __fadd_rn(sum, __shfl_xor_sync(kAllLanes, sum, offset));
    if (seen > 0) {
      max_[half] = new_max;
      sum_[half] = __fmaf_rn(sum_[half], factor, sum);
    }
    return factor;
  }

  __device__ __forceinline__ void finish(int first) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (row_[half] < 0) continue;
      const int query = first + warp_of() * kWarpRows + half * 8 + group_of();
      const int own_head = head() * p_.group() + query % p_.group();
      const float inverse = __frcp_rn(sum_[half]);
      T* const out = p_.out + (int64_t{row_[half]} * p_.query_heads + own_head) * p_.head_dim;
#pragma unroll
      for (int n = 0; n < kD / 8; ++n) {
        if (n * 8 >= p_.head_dim) break;
        // Adding 0 makes one zero of two.
        for (int i = 0; i < 2; ++i)
          out[n * 8 + 2 * pair_of() + i] =
              from_float<T>(__fadd_rn(__fmul_rn(out_[n / 2][n % 2][half * 2 + i], inverse), 0.0f));
      }
      if (pair_of() == 0 && p_.lse != nullptr)
        p_.lse[int64_t{row_[half]} * p_.query_heads + own_head] = __fadd_rn(max_[half], log_one(sum_[half]));
    }
  }

  __device__ int this_part() const { return static_cast<int>(blockIdx.z) % parts_->count; }

  __device__ __forceinline__ void finish_part(int first) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (row_[half] < 0) continue;
      const int query = first + warp_of() * kWarpRows + half * 8 + group_of();
      const int64_t place = parts_->place(this_part(), row_[half], head() * p_.group() + query % p_.group());
      float* const out = parts_->out + place * p_.head_dim;
#pragma unroll
      for (int n = 0; n < kD / 8; ++n) {
        if (n * 8 >= p_.head_dim) break;
        const float(&pair)[4] = out_[n / 2][n % 2];
        *reinterpret_cast<float2*>(out + n * 8 + 2 * pair_of()) = float2{pair[half * 2], pair[half * 2 + 1]};
      }
      if (pair_of() == 0) parts_->states[place] = float2{max_[half], sum_[half]};
    }
  }

  const AttentionArgs<T>& p_;
  const AttentionParts* parts_;
  QueryTile tile_;
  T *queries_, *keys_, *values_, *scores_;
  LeftFragments<T, kD / 16> left_;
  int row_[2], visible_[2];
  float max_[2], sum_[2], out_[kD / 16][2][4];
};

}  // namespace gavel::cuda
