// The fastest mode of attention for few queries: parts of a query's key blocks, each by a block of threads of its own,
// and their merge in ascending order (Dao et al. 2023, flash-decoding).
#pragma once
#include "cuda/attention_args.cuh"
#include "cuda/split.h"

namespace gavel::cuda {

// What the parts leave: (max, sum) and the sum of values, unnormalised, at [part][row][query head].
struct AttentionParts {
  float2* states = nullptr;
  float* out = nullptr;
  int32_t count = 1, rows = 0, heads = 0;

  AttentionParts() = default;
  // Room for `most_queries`, the queries of all parts together whatever the number of rows, so that a plan holds for
  // all.
  AttentionParts(Launch& launch, int64_t most_queries, int64_t parts, int64_t rows_, int32_t heads_, int32_t head_dim)
      : states(launch.workspace<float2>(most_queries)),
        out(launch.workspace<float>(most_queries * head_dim)),
        count(static_cast<int32_t>(parts)),
        rows(static_cast<int32_t>(rows_)),
        heads(heads_) {}

  __device__ int64_t place(int part, int row, int head) const { return (int64_t{part} * rows + row) * heads + head; }
};

inline constexpr int kPartThreads = 256;

// A query a warp, four columns a lane.
template <class T>
__global__ void __launch_bounds__(kPartThreads)
    merge_parts_kernel(const __grid_constant__ AttentionArgs<T> p, const __grid_constant__ AttentionParts parts) {
  const QueryTile tile = p.plan.tiles[blockIdx.x];
  const int head = static_cast<int>(blockIdx.y), column = lane_of() * 4;
  for (int i = warp_of(); i < tile.row_count; i += kPartThreads / 32) {
    const int row = tile.row_begin + i;
    float max = -infinity();
    for (int part = 0; part < parts.count; ++part) max = fmaxf(max, parts.states[parts.place(part, row, head)].x);
    const float shift = max == -infinity() ? 0.0f : max;
    float sum = 0.0f, out[4] = {};
    for (int part = 0; part < parts.count; ++part) {
      const int64_t place = parts.place(part, row, head);
      const float2 state = parts.states[place];
      const float factor = exp_one(__fsub_rn(state.x, shift));
      sum = __fmaf_rn(state.y, factor, sum);
      if (column >= p.head_dim) continue;
      const float4 four = *reinterpret_cast<const float4*>(parts.out + place * p.head_dim + column);
      out[0] = __fmaf_rn(four.x, factor, out[0]);
      out[1] = __fmaf_rn(four.y, factor, out[1]);
      out[2] = __fmaf_rn(four.z, factor, out[2]);
      out[3] = __fmaf_rn(four.w, factor, out[3]);
    }
    const int64_t place = int64_t{row} * p.query_heads + head;
    const float inverse = __frcp_rn(sum);
    if (column < p.head_dim) {
      for (int j = 0; j < 4; ++j)
        p.out[place * p.head_dim + column + j] = from_float<T>(__fadd_rn(__fmul_rn(out[j], inverse), 0.0f));
    }
    if (lane_of() == 0 && p.lse != nullptr) p.lse[place] = __fadd_rn(max, log_one(sum));
  }
}

}  // namespace gavel::cuda
