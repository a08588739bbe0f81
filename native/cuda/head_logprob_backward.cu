// head_logprob backward by chunks of the vocabulary: logits again, their gradient in the dtype of hidden, then dlogits
// W and dlogits^T hidden, whose chains go on from chunk to chunk. Several targets of one row are added at the end.
#include <algorithm>

#include "cuda/head_tile.cuh"
#include "cuda/kernels.h"

namespace gavel::cuda {
namespace {

constexpr int64_t kChunkBytes = int64_t{64} << 20;  // of dlogits

struct Gradients {
  const int32_t* tokens;
  const float *inverse_temperature, *log_normalizer, *grad_logprob, *entropy, *grad_entropy;
  int64_t targets, vocabulary;
};

// dlogits [R, chunk], the chunk's columns beginning with tile `first_tile`.
template <class T>
__global__ void __launch_bounds__(HeadTile::kThreads, 1)
    dlogits_kernel(const RowMajor<T> hidden, const Panels<T> weight, const Gradients g, T* dlogits, int64_t first_tile,
                   int64_t chunk) {
  const int64_t row0 = int64_t{blockIdx.x} * HeadTile::kM, tile = first_tile + blockIdx.y;
  const int64_t column0 = tile * kVocabularyTile;
  const float* const logits = head_logits(hidden, weight, row0, column0);
  constexpr int kLanes = 16 / sizeof(T), kPacks = kVocabularyTile / kLanes;
  for (int index = static_cast<int>(threadIdx.x); index < HeadTile::kM * kPacks; index += HeadTile::kThreads) {
    const int row = index / kPacks, column = index % kPacks * kLanes;
    const int64_t target = row0 + row;
    if (target >= g.targets) break;
    const float scale = g.inverse_temperature[target], normalizer = g.log_normalizer[target];
    const float grad_logprob = g.grad_logprob == nullptr ? 0.0f : g.grad_logprob[target];
    Pack<T, kLanes> pack;
#pragma unroll
    for (int i = 0; i < kLanes; ++i) {
      const int64_t token = column0 + column + i;
      const float d = floored(__fsub_rn(__fmul_rn(logits[row * kLogitRow + column + i], scale), normalizer));
      // -grad_logprob - grad_entropy (log p + H), times p.
      float weight_of = -grad_logprob;
      if (g.grad_entropy != nullptr)
        weight_of = __fmaf_rn(-g.grad_entropy[target], __fadd_rn(d, g.entropy[target]), weight_of);
      float value = __fmul_rn(exp_one(d), weight_of);
      if (g.tokens != nullptr && g.tokens[target] == token) value = __fadd_rn(value, grad_logprob);
      value = token < g.vocabulary ? __fmul_rn(value, scale) : 0.0f;
      pack.values[i] = from_float<T>(value);
    }
    store_pack(dlogits + target * chunk + (tile - first_tile) * kVocabularyTile + column, pack);
  }
}

// dlogits W into [R, H] fp32.
template <bool kFirst>
struct StoreHidden {
  static constexpr bool kResumes = !kFirst;
  float* grad;  // of workspace
  int64_t rows, columns;

  template <int kCount>
  __device__ void init(int64_t row, int64_t column, float (&values)[kCount]) const {
    for (float& value : values) value = 0.0f;
    if (row >= rows || column >= columns) return;
    const auto pack = load_part_of<kCount>(grad + row * columns + column, columns - column, columns % kCount == 0);
    for (int i = 0; i < kCount; ++i) values[i] = pack.values[i];
  }
  template <int kCount>
  __device__ void store(int64_t row, int64_t column, const float (&values)[kCount]) const {
    if (row >= rows || column >= columns) return;
    Pack<float, kCount> pack;
    for (int i = 0; i < kCount; ++i) pack.values[i] = values[i];
    store_part_of<kCount>(grad + row * columns + column, pack, columns - column, columns % kCount == 0);
  }
};

// Rows of targets ascend: a block finds its row's targets and adds them in order. Rows without any become zero.
template <class T, int kLanes>
__global__ void __launch_bounds__(256)
    collect_kernel(T* grad_hidden, const float* grad, const int32_t* rows, int64_t targets, int64_t columns) {
  const int32_t row = static_cast<int32_t>(blockIdx.x);
  const auto first_not_below = [&](int32_t bound) {
    int64_t low = 0, high = targets;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (rows[middle] < bound) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  };
  const int64_t begin = first_not_below(row), end = first_not_below(row + 1);
  for (int64_t k = threadIdx.x * kLanes; k < columns; k += 256 * kLanes) {
    float sums[kLanes] = {};
    for (int64_t target = begin; target < end; ++target) {
      const auto added = load_pack<float, kLanes>(grad + target * columns + k);
#pragma unroll
      for (int i = 0; i < kLanes; ++i) sums[i] = __fadd_rn(sums[i], added.values[i]);
    }
    Pack<T, kLanes> pack;
#pragma unroll
    for (int i = 0; i < kLanes; ++i) pack.values[i] = from_float<T>(sums[i]);
    store_pack(grad_hidden + row * columns + k, pack);
  }
}

template <class T>
void backward(Launch& launch, const HeadLogprob& p) {
  const int64_t targets = p.num_targets, vocabulary = p.weight.rows(), hidden = p.weight.cols();
  const int64_t tiles = divide_up(vocabulary, kVocabularyTile);
  const int64_t tile_bytes = targets * kVocabularyTile * static_cast<int64_t>(sizeof(T));
  const int64_t chunk_tiles = std::clamp<int64_t>(kChunkBytes / tile_bytes, 1, tiles),
                chunk = chunk_tiles * kVocabularyTile;
  T* const dlogits = launch.workspace<T>(targets * chunk);
  float* const grad = p.grad_hidden ? launch.workspace<float>(targets * hidden) : nullptr;
  const RowMajor<T> rows(p.hidden.data, targets, hidden, p.rows);
  const ColumnMajor<T> columns(p.hidden.data, targets, hidden, p.rows);
  const Gradients gradients{p.tokens,  p.inverse_temperature, p.log_normalizer, p.grad_logprob,
                            p.entropy, p.grad_entropy,        targets,          vocabulary};
  for (int64_t first = 0; first < tiles; first += chunk_tiles) {
    const int64_t count = std::min(chunk_tiles, tiles - first), token = first * kVocabularyTile;
    const int64_t tokens = std::min(count * kVocabularyTile, vocabulary - token);
    launch.run(dlogits_kernel<T>, blocks(divide_up(targets, HeadTile::kM), count), HeadTile::kThreads,
               head_shared_bytes<T>(), rows, Panels<T>(p.weight), gradients, dlogits, first, chunk);
    if (p.grad_hidden) {
      const RowMajor<T> left(dlogits, targets, chunk);
      const PanelsTransposed<T> right(p.weight, token, tokens);
      if (first == 0) {
        gemm<T, MiddleTile>(launch, left, right, tokens, StoreHidden<true>{grad, targets, hidden});
      } else {
        gemm<T, MiddleTile>(launch, left, right, tokens, StoreHidden<false>{grad, targets, hidden});
      }
    }
    if (p.grad_weight) {
      ColumnMajor<T> left(dlogits, targets, chunk);
      left.extent = tokens;
      const AddToPanels<T> store{p.grad_weight.f32() + panel_count(token, hidden), tokens, hidden};
      gemm<T, MiddleTile>(launch, left, columns, targets, store);
    }
  }
  if (p.grad_hidden)
    with_lanes<T>(hidden, {p.grad_hidden.data}, [&](auto lanes) {
      launch.run(collect_kernel<T, lanes()>, blocks(p.grad_hidden.rows()), 256, 0, static_cast<T*>(p.grad_hidden.data),
                 static_cast<const float*>(grad), p.rows, targets, hidden);
    });
}

}  // namespace

void head_logprob_backward(Launch& launch, const HeadLogprob& p) {
  if (p.num_targets == 0 && p.grad_hidden)
    launch.zero(p.grad_hidden.data, static_cast<size_t>(p.grad_hidden.shape.count()) * dtype_size(p.grad_hidden.dtype));
  if (p.num_targets == 0 || (!p.grad_hidden && !p.grad_weight)) return;
  with_element(p.hidden.dtype, [&](auto type) { backward<decltype(type)>(launch, p); });
}

}  // namespace gavel::cuda
