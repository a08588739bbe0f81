// head_logprob, forward: logits by tiles of 256, of which only sums stay. Contract in ops/head_logprob.h, row functions
// in head_tile.h. The one-pass backward (head_backward.cpp) calls head_score() for its blocks and keeps their logits.
#include "cpu/head_block.h"
#include "cpu/kernels.h"

namespace gavel::cpu {
namespace {

constexpr int64_t kForwardBytes = int64_t{12} << 20;  // packed rows and sums of a block
constexpr int64_t kChunkRows = 256;                   // rows whose tile of fp32 logits (256 KiB) a worker holds
constexpr int64_t kMergedRows = 16;                   // per item

}  // namespace

int64_t head_groups_per_item(const Context& context, const HeadRows& rows, int64_t tiles) {
  const RowGroups& groups = rows.groups;
  const int64_t fitting = std::min(kChunkRows, kPackedBytes / std::max<int64_t>(1, rows.left_steps * 4));
  int64_t chunk = std::clamp<int64_t>(fitting / groups.size(0), 1, groups.count);
  while (chunk > 1 && divide_up(groups.count, chunk) * tiles < int64_t{context.pool->threads()} * 3) {
    chunk = (chunk + 1) / 2;
  }
  return divide_up(groups.count, divide_up(groups.count, chunk));
}

void head_score(Context& context, const GemmPath& path, const HeadLogprob& p, const HeadShape& shape,
                const HeadBlock& block) {
  const HeadRows& rows = block.rows;
  const int64_t chunk = head_groups_per_item(context, rows, shape.tiles);
  const size_t own_bytes = block.kept != nullptr ? 0 : head_logits_bytes(rows, chunk);
  size_t stride = 0;
  uint8_t* const scratch = context.scratch->workers(context.pool->threads(), own_bytes, &stride);
  const int64_t chunks = divide_up(rows.groups.count, chunk);
  // All rows of a tile after one another: the weight is larger than the packed rows, and streams by once.
  context.pool->parallel_for(chunks * shape.tiles, [&](int64_t item, int worker) {
    const int64_t tile = item / chunks, group = item % chunks * chunk;
    const int64_t group_end = std::min(group + chunk, rows.groups.count), columns = shape.columns(tile);
    float* logits = block.kept != nullptr ? block.kept_tile(tile, rows.row(group))
                                          : reinterpret_cast<float*>(scratch + static_cast<size_t>(worker) * stride);
    head_tile_logits(path, shape, p.weight.data, rows, group, group_end, tile, logits);
    for (int64_t row = rows.row(group); row < rows.row(group_end); ++row, logits += kVocabularyTile) {
      const int64_t target = block.begin + row;
      const TileSums result =
          head_tile_sums(context.isa, logits, columns, p.inverse_temperature[target], block.moments != nullptr);
      float* const sums = block.sums + (row * shape.tiles + tile) * 2;
      sums[0] = result.max;
      sums[1] = result.sum;
      if (block.moments != nullptr) block.moments[row * shape.tiles + tile] = result.moment;
      if (p.logits != nullptr) {
        std::copy(logits, logits + columns, p.logits + target * shape.vocabulary + tile * kVocabularyTile);
      }
      if (p.tokens != nullptr && p.tokens[target] / kVocabularyTile == tile) {
        p.logprob[target] = logits[p.tokens[target] % kVocabularyTile];
      }
    }
  });

  context.pool->parallel_for(divide_up(rows.count, kMergedRows), [&](int64_t part, int) {
    const int64_t end = std::min(rows.count, (part + 1) * kMergedRows);
    for (int64_t row = part * kMergedRows; row < end; ++row) {
      const float* const moments = block.moments != nullptr ? block.moments + row * shape.tiles : nullptr;
      const HeadTotals totals = head_merge(block.sums + row * shape.tiles * 2, moments, shape.tiles);
      p.log_normalizer[block.begin + row] = totals.log_normalizer;
      if (p.entropy != nullptr) p.entropy[block.begin + row] = totals.entropy;
      if (p.tokens != nullptr) p.logprob[block.begin + row] -= totals.log_normalizer;
    }
  });
}

void head_logprob_forward(Context& context, const HeadLogprob& p) {
  const HeadShape shape(p);
  const GemmPath path(context, shape.dtype);
  if (p.num_targets == 0) return;
  const int64_t left_steps = path.left_steps(chain_steps(shape.hidden, shape.dtype));
  const int64_t row_bytes = left_steps * 4 + shape.tiles * 12;
  const int64_t block_rows =
      std::min<int64_t>(round_up(p.num_targets, kTileRows), std::max<int64_t>(kTileRows, kForwardBytes / row_bytes));
  HeadBlock block;
  uint32_t* packed = nullptr;
  const auto place = [&](HeadMemory memory) {
    packed = memory.take<uint32_t>(path.padded_rows(block_rows) * left_steps);
    block.moments = p.entropy != nullptr ? memory.take<float>(block_rows * shape.tiles) : nullptr;
    block.sums = memory.take<float>(p.tile_sums == nullptr ? block_rows * shape.tiles * 2 : 0);
    return memory.used();
  };
  place(HeadMemory(context.scratch->shared(0, place(HeadMemory(nullptr)))));
  for (block.begin = 0; block.begin < p.num_targets; block.begin += block.rows.count) {
    block.rows = HeadRows(path, std::min<int64_t>(block_rows, p.num_targets - block.begin), shape.hidden);
    block.rows.packed = packed;
    if (p.tile_sums != nullptr) block.sums = p.tile_sums + block.begin * shape.tiles * 2;
    head_gather(context, path, p, block.rows, block.begin, nullptr, packed);
    head_score(context, path, p, shape, block);
  }
}

}  // namespace gavel::cpu
