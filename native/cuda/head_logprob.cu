// head_logprob forward: a block computes the logits of 64 targets by one vocabulary tile in shared memory and leaves
// (max, sum, moment) of each; one warp a target merges the tiles. The [R, V] logits exist only where they are asked
// for.
#include "cuda/head_tile.cuh"
#include "cuda/kernels.h"

namespace gavel::cuda {
namespace {

constexpr int kMergeThreads = 128;

struct Outputs {
  const int32_t* tokens;
  const float* inverse_temperature;
  float *logprob, *logits, *sums, *moments;  // sums [R, tiles, 2], moments [R, tiles] or null
  int64_t targets, vocabulary, tiles;
};

template <class T>
__global__ void __launch_bounds__(HeadTile::kThreads, 1)
    tiles_kernel(const RowMajor<T> hidden, const Panels<T> weight, const Outputs out) {
  const int64_t row0 = int64_t{blockIdx.x} * HeadTile::kM, tile = blockIdx.y, column0 = tile * kVocabularyTile;
  float* const logits = head_logits(hidden, weight, row0, column0);
  const int64_t left = out.vocabulary - column0;
  const int columns = static_cast<int>(left < kVocabularyTile ? left : kVocabularyTile);
  const int lane = static_cast<int>(threadIdx.x) & 31;
  for (int row = static_cast<int>(threadIdx.x) / 32; row < HeadTile::kM; row += HeadTile::kThreads / 32) {
    const int64_t target = row0 + row;
    if (target >= out.targets) break;
    float* const z = logits + row * kLogitRow;
    const TileSums sums = tile_sums(z, columns, out.inverse_temperature[target]);
    __syncwarp();
    if (lane == 0) {
      out.sums[(target * out.tiles + tile) * 2] = sums.max;
      out.sums[(target * out.tiles + tile) * 2 + 1] = sums.sum;
      if (out.moments != nullptr) out.moments[target * out.tiles + tile] = sums.moment;
      if (out.tokens != nullptr && out.tokens[target] / kVocabularyTile == tile)
        out.logprob[target] = z[out.tokens[target] % kVocabularyTile];
    }
    if (out.logits != nullptr)
      for (int i = lane; i < columns; i += 32) out.logits[target * out.vocabulary + column0 + i] = z[i];
  }
}

struct State {
  float max, sum, moment;
};

// The state of two sets of logits together; an empty one (max -inf) changes nothing.
__device__ State merge(const State& a, const State& b) {
  const float max = fmaxf(a.max, b.max);
  if (max == -infinity()) return {max, __fadd_rn(a.sum, b.sum), 0.0f};
  const float shift_a = a.max == -infinity() ? 0.0f : __fsub_rn(a.max, max);
  const float shift_b = b.max == -infinity() ? 0.0f : __fsub_rn(b.max, max);
  const float scale_a = a.max == -infinity() ? 0.0f : exp_one(shift_a);
  const float scale_b = b.max == -infinity() ? 0.0f : exp_one(shift_b);
  // (z - max) e = (z - own + own - max) e.
  const float moment_a = __fmul_rn(scale_a, __fmaf_rn(shift_a, a.sum, a.moment));
  const float moment_b = __fmul_rn(scale_b, __fmaf_rn(shift_b, b.sum, b.moment));
  return {max, __fmaf_rn(scale_a, a.sum, __fmul_rn(scale_b, b.sum)), __fadd_rn(moment_a, moment_b)};
}

// A lane merges every 32nd tile in ascending order, then the lanes are merged by a tree: fixed by the vocabulary.
template <class Normalizer>
__global__ void __launch_bounds__(kMergeThreads)
    merge_kernel(const Outputs out, Normalizer* log_normalizer, Normalizer* entropy) {
  const int64_t target = int64_t{blockIdx.x} * (kMergeThreads / 32) + threadIdx.x / 32;
  if (target >= out.targets) return;
  State state{-infinity(), 0.0f, 0.0f};
  for (int64_t tile = threadIdx.x % 32; tile < out.tiles; tile += 32) {
    const int64_t at = target * out.tiles + tile;
    state = merge(state, {out.sums[2 * at], out.sums[2 * at + 1], out.moments == nullptr ? 0.0f : out.moments[at]});
  }
  for (int offset = 16; offset > 0; offset >>= 1) {
    const State other{__shfl_xor_sync(kAllLanes, state.max, offset), __shfl_xor_sync(kAllLanes, state.sum, offset),
                      __shfl_xor_sync(kAllLanes, state.moment, offset)};
    // Lanes must agree on the order, or they would not agree on the bits.
    const bool lower = (static_cast<int>(threadIdx.x) & offset) == 0;
    state = lower ? merge(state, other) : merge(other, state);
  }
  if (threadIdx.x % 32 != 0) return;
  const float log_sum = log_one(state.sum), normalizer = __fadd_rn(state.max, log_sum);
  log_normalizer[target] = normalizer;
  if (entropy != nullptr) entropy[target] = __fsub_rn(log_sum, __fdiv_rn(state.moment, state.sum));
  if (out.tokens != nullptr) out.logprob[target] = __fsub_rn(out.logprob[target], normalizer);
}

template <class T>
void forward(Launch& launch, const HeadLogprob& p) {
  const RowMajor<T> hidden(p.hidden.data, p.num_targets, p.hidden.cols(), p.rows);
  const Panels<T> weight(p.weight);
  const int64_t targets = p.num_targets, tiles = divide_up(p.weight.rows(), kVocabularyTile);
  Outputs out{p.tokens, p.inverse_temperature, p.logprob, p.logits, p.tile_sums, nullptr,
              targets,  p.weight.rows(),       tiles};
  if (out.sums == nullptr) out.sums = launch.workspace<float>(targets * tiles * 2);
  if (p.entropy != nullptr) out.moments = launch.workspace<float>(targets * tiles);
  launch.run(tiles_kernel<T>, blocks(divide_up(targets, HeadTile::kM), tiles), HeadTile::kThreads,
             head_shared_bytes<T>(), hidden, weight, out);
  launch.run(merge_kernel<float>, blocks(divide_up(targets, kMergeThreads / 32)), kMergeThreads, 0, out,
             p.log_normalizer, p.entropy);
}

}  // namespace

void head_logprob_forward(Launch& launch, const HeadLogprob& p) {
  if (!launch.expect(p.weight.layout == Layout::panels && p.weight.dtype == p.hidden.dtype,
                     "Expected `head_logprob` on CUDA to get a packed weight of the dtype of hidden.") ||
      p.num_targets == 0)
    return;
  with_element(p.hidden.dtype, [&](auto type) { forward<decltype(type)>(launch, p); });
}

}  // namespace gavel::cuda
