// A tile of 256 logits: the part of the language model head that sampling, scoring and training share, so that all of
// them get the same bits. Used by head_logprob_forward and head_logprob_backward.
#pragma once
#include "cpu/gemm.h"
#include "ops/head_logprob.h"

namespace gavel::cpu {

// Rows of targets, gathered and packed by groups; row numbers are relative to the block.
struct HeadRows {
  const uint32_t* packed = nullptr;
  int64_t count = 0, steps = 0, left_steps = 0;
  RowGroups groups{0};
  HeadRows() = default;
  HeadRows(const GemmPath& path, int64_t rows, int64_t hidden)
      : count(rows),
        steps(chain_steps(hidden, path.dtype)),
        left_steps(path.left_steps(steps)),
        groups(path.groups(rows)) {}
  // Rows of groups [0, group) without padding.
  int64_t row(int64_t group) const { return std::min(groups.begin(group), count); }
  int size(int64_t group) const { return static_cast<int>(row(group + 1) - row(group)); }
};

struct HeadShape {
  DType dtype;
  int64_t vocabulary, hidden, tiles, panel_dwords;
  explicit HeadShape(const HeadLogprob& p)
      : dtype(p.hidden.dtype),
        vocabulary(p.weight.rows()),
        hidden(p.weight.cols()),
        tiles(divide_up(vocabulary, kVocabularyTile)),
        panel_dwords(chain_steps(round_up(hidden, 2), dtype) * kLanes) {}
  int64_t columns(int64_t tile) const {
    return std::min<int64_t>(kVocabularyTile, vocabulary - tile * kVocabularyTile);
  }
};

// (max, sum of exp(z - max)) of scaled logits z, and sum of (z - max) exp(z - max) for the entropy.
struct TileSums {
  float max, sum, moment;
};

// logits[row - first][256] (all padded rows) of vocabulary tile `tile` for the rows of groups [group_begin, group_end);
// lanes past the vocabulary hold anything.
void head_tile_logits(const GemmPath& path, const HeadShape& shape, const void* weight, const HeadRows& rows,
                      int64_t group_begin, int64_t group_end, int64_t tile, float* logits);

// Scales 256 logits in place, sets those from `columns` on to -inf, and sums them up.
TileSums head_tile_sums(Isa isa, float* logits, int64_t columns, float inverse_temperature, bool with_moment);

struct HeadTotals {
  float log_normalizer, entropy;
};
// Merges (max, sum) pairs, and moments unless null, in tile order.
HeadTotals head_merge(const float* tile_sums, const float* moments, int64_t tiles);

// What one target contributes to d loss / d logits.
struct HeadGradient {
  float inverse_temperature = 1;
  float scale = 1;  // what the logits are still to be multiplied by: inverse_temperature, or 1 where that is done
  float log_normalizer = 0, entropy = 0, grad_logprob = 0, grad_entropy = 0;
};
// 256 logits -> d loss / d logits in place, zero from `columns` on. token is relative to the tile; outside: no
// token.
void head_tile_gradient(Isa isa, float* logits, int64_t columns, int64_t token, const HeadGradient& gradient);

// Copies the hidden rows of targets [begin, begin + rows.count) to `gathered` [count, H] (unless null) and packs them.
void head_gather(Context& context, const GemmPath& path, const HeadLogprob& p, const HeadRows& rows, int64_t begin,
                 void* gathered, uint32_t* packed);

}  // namespace gavel::cpu
