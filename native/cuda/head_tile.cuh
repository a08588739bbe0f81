// A tile of 256 logits of one target: its largest, its sum of exponentials, and its gradient, by one warp in one order.
// Whatever block computed the logits, and for however many targets, these functions see the same 256 numbers.
#pragma once
#include "cuda/device_math.cuh"
#include "cuda/gemm.cuh"
#include "ops/head_logprob.h"

namespace gavel::cuda {

// Rows of targets by one vocabulary tile.
using HeadTile = TileShape<64, kVocabularyTile, 2, 4>;

inline constexpr int kLogitRow = kVocabularyTile + 4;  // floats between rows in shared memory

template <class T>
constexpr size_t head_shared_bytes() {
  const size_t logits = sizeof(float) * HeadTile::kM * kLogitRow, product = TileProduct<T, HeadTile>::kSharedBytes;
  return logits > product ? logits : product;
}

// exp is 0 there: a logit far below the largest, or -inf, adds exactly nothing, not even to the moment.
inline constexpr float kLowestDifference = -88.0f;

// A NaN stays one.
__device__ inline float floored(float difference) {
  return difference < kLowestDifference ? kLowestDifference : difference;
}

struct TileSums {
  float max, sum, moment;  // moment: sum of (z - max) exp(z - max), for the entropy
};

// The raw logits of this block's 64 targets and vocabulary tile, into shared memory.
template <class T>
__device__ inline float* head_logits(const RowMajor<T>& hidden, const Panels<T>& weight, int64_t row0,
                                     int64_t column0) {
  TileProduct<T, HeadTile> product;
  product.zero();
  product.run(hidden, weight, row0, column0, hidden.depth);
  float* const logits = reinterpret_cast<float*>(dynamic_shared());
  product.template for_each<false>([&](int row, int column, auto& values) {
    constexpr int kCount = sizeof(values) / sizeof(float);
    for (int i = 0; i < kCount; ++i) logits[row * kLogitRow + column + i] = values[i];
  });
  __syncthreads();
  return logits;
}

// Scales a row's logits in place, sets those from `columns` on to -inf, and sums them up. By one warp.
__device__ inline TileSums tile_sums(float* logits, int columns, float inverse_temperature) {
  constexpr int kEach = kVocabularyTile / 32;
  const int lane = static_cast<int>(threadIdx.x) & 31;
  float z[kEach], max = -infinity();
  bool bad = false;
  for (int i = 0; i < kEach; ++i) {
    const int column = i * 32 + lane;
    z[i] = column < columns ? __fmul_rn(logits[column], inverse_temperature) : -infinity();
    logits[column] = z[i];
    bad = bad || z[i] != z[i];
    max = fmaxf(max, z[i]);
  }
  max = warp_max(max);
  const float shift = max == -infinity() ? 0.0f : max;
  float sum = 0.0f, moment = 0.0f;
  for (int i = 0; i < kEach; ++i) {
    const float d = floored(__fsub_rn(z[i], shift));
    const float e = i * 32 + lane < columns ? exp_one(d) : 0.0f;
    sum = __fadd_rn(sum, e);
    moment = __fmaf_rn(e, d, moment);
  }
  // fmaxf passes over a NaN; the sum must not.
  if (__ballot_sync(kAllLanes, bad) != 0) sum = not_a_number();
  return {max, warp_sum(sum), warp_sum(moment)};
}

}  // namespace gavel::cuda
