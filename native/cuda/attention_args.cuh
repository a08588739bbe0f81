// What attention's kernels are given, and where the rows and tiles of it lie.
#pragma once
#include "cuda/attention_tile.cuh"
#include "cuda/launch.cuh"

namespace gavel::cuda {

inline constexpr int kMostHeadDim = 128;

template <class T>
struct AttentionArgs {
  AttentionPlan plan;
  const T *qkv, *grad_out, *saved_out;
  T *out, *store, *grad_qkv;
  float* lse;
  int32_t query_heads, kv_heads, head_dim;
  float scale;

  explicit AttentionArgs(const Attention& p)
      : plan(*p.plan),
        qkv(static_cast<const T*>(p.qkv.data)),
        grad_out(static_cast<const T*>(p.grad_out.data)),
        saved_out(static_cast<const T*>(p.out.data)),
        out(static_cast<T*>(p.out.data)),
        store(static_cast<T*>(p.store.data)),
        grad_qkv(static_cast<T*>(p.grad_qkv.data)),
        lse(p.lse.f32()),
        query_heads(p.query_heads),
        kv_heads(p.kv_heads),
        head_dim(p.head_dim),
        scale(p.scale) {}

  __host__ __device__ int group() const { return query_heads / kv_heads; }
  __device__ int64_t columns() const { return (int64_t{query_heads} + 2 * kv_heads) * head_dim; }
  __device__ const T* query_row(int64_t row, int head) const {
    return qkv + row * columns() + int64_t{head} * head_dim;
  }
  __device__ const T* key_row(int64_t row, int head) const { return query_row(row, query_heads + head); }
  __device__ const T* value_row(int64_t row, int head) const { return query_row(row, query_heads + kv_heads + head); }

  __device__ int tile_size() const { return kKeyBlock * head_dim; }
  __device__ T* key_tile(int64_t block, int64_t head) const {
    return store + (block * kv_heads + head) * 2 * tile_size();
  }
  __device__ T* value_tile(int64_t block, int64_t head) const { return key_tile(block, head) + tile_size(); }
  // ops/attention.h, KvStore.
  __device__ int key_place(int slot, int d) const {
    return sizeof(T) == 2 ? (d / 2 * kKeyBlock + slot) * 2 + d % 2 : d * kKeyBlock + slot;
  }
  __device__ int value_place(int slot, int d) const {
    return sizeof(T) == 2 ? (slot / 2 * head_dim + d) * 2 + slot % 2 : slot * head_dim + d;
  }

  // The most keys that one of the rows [begin, end) sees.
  __device__ int most_keys(int begin, int end) const {
    int most = 0;
    for (int row = begin; row < end; ++row) most = most > plan.row_keys[row] ? most : plan.row_keys[row];
    return most;
  }
};

inline bool supports_attention(Launch& launch, const Attention& p) {
  return launch.expect(p.head_dim % 16 == 0 && p.head_dim <= kMostHeadDim && p.query_heads % p.kv_heads == 0,
                       "Expected heads of a multiple of 16 columns, at most 128, for `attention` on CUDA.");
}

}  // namespace gavel::cuda
