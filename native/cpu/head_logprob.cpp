// head_logprob: forward and backward by tiles of 256 logits. Contract in ops/head_logprob.h, tile functions in
// head_tile.h. Backward per (block of targets, chunk of vocabulary): logits again, their gradient in the dtype of
// `hidden`, then grad_hidden += dlogits W and grad_weight += dlogits^T hidden, all chains in fp32 and in ascending
// order.
#include <cstring>

#include "cpu/head_tile.h"
#include "cpu/kernels.h"

namespace gavel::cpu {
namespace {

constexpr int64_t kPartialBytes = int64_t{4} << 20;
constexpr int64_t kBackwardBytes = int64_t{12} << 20;
constexpr int64_t kChunkRows = 256;  // rows whose tile of fp32 logits (256 KiB) a worker holds

// Groups of rows per item: packed rows in L2, and several items per worker.
int64_t groups_per_item(const Context& context, const HeadRows& rows, int64_t tiles) {
  const RowGroups& groups = rows.groups;
  const int64_t fitting = std::min(kChunkRows, kPackedBytes / std::max<int64_t>(1, rows.left_steps * 4));
  int64_t chunk = std::clamp<int64_t>(fitting / groups.size(0), 1, groups.count);
  while (chunk > 1 && divide_up(groups.count, chunk) * tiles < int64_t{context.pool->threads()} * 3) {
    chunk = (chunk + 1) / 2;
  }
  return divide_up(groups.count, divide_up(groups.count, chunk));
}

size_t logits_bytes(const HeadRows& rows, int64_t groups) {
  return static_cast<size_t>(groups * rows.groups.size(0) * kVocabularyTile) * sizeof(float);
}

// One row block of the forward: targets [begin, begin + count).
void forward_block(Context& context, const HeadLogprob& p, const HeadShape& shape, int64_t begin, int64_t count) {
  const GemmPath path(context, shape.dtype);
  HeadRows rows(path, count, shape.hidden);
  uint32_t* const packed = reinterpret_cast<uint32_t*>(
      context.scratch->shared(0, static_cast<size_t>(path.padded_rows(count) * rows.left_steps) * 4));
  rows.packed = packed;
  float* moments = nullptr;
  if (p.entropy != nullptr) {
    moments = reinterpret_cast<float*>(context.scratch->shared(1, static_cast<size_t>(count * shape.tiles) * 4));
  }
  float* sums = p.tile_sums != nullptr ? p.tile_sums + begin * shape.tiles * 2 : nullptr;
  if (sums == nullptr) {
    sums = reinterpret_cast<float*>(context.scratch->shared(2, static_cast<size_t>(count * shape.tiles) * 8));
  }
  const int64_t chunk = groups_per_item(context, rows, shape.tiles);
  size_t stride = 0;
  uint8_t* const scratch = context.scratch->workers(context.pool->threads(), logits_bytes(rows, chunk), &stride);
  head_gather(context, path, p, rows, begin, nullptr, packed);

  context.pool->parallel_for(divide_up(rows.groups.count, chunk) * shape.tiles, [&](int64_t item, int worker) {
    const int64_t tile = item % shape.tiles, group = item / shape.tiles * chunk;
    const int64_t group_end = std::min(group + chunk, rows.groups.count), columns = shape.columns(tile);
    float* logits = reinterpret_cast<float*>(scratch + static_cast<size_t>(worker) * stride);
    head_tile_logits(path, shape, p.weight.data, rows, group, group_end, tile, logits);
    for (int64_t row = rows.row(group); row < rows.row(group_end); ++row, logits += kVocabularyTile) {
      const int64_t target = begin + row;
      const TileSums result =
          head_tile_sums(context.isa, logits, columns, p.inverse_temperature[target], moments != nullptr);
      sums[(row * shape.tiles + tile) * 2] = result.max;
      sums[(row * shape.tiles + tile) * 2 + 1] = result.sum;
      if (moments != nullptr) moments[row * shape.tiles + tile] = result.moment;
      if (p.logits != nullptr) {
        std::copy(logits, logits + columns, p.logits + target * shape.vocabulary + tile * kVocabularyTile);
      }
      if (p.tokens != nullptr && p.tokens[target] / kVocabularyTile == tile) {
        p.logprob[target] = logits[p.tokens[target] % kVocabularyTile];
      }
    }
  });

  context.pool->parallel_for(divide_up(count, 16), [&](int64_t part, int) {
    for (int64_t row = part * 16; row < std::min(count, part * 16 + 16); ++row) {
      const HeadTotals totals = head_merge(sums + row * shape.tiles * 2,
                                           moments != nullptr ? moments + row * shape.tiles : nullptr, shape.tiles);
      p.log_normalizer[begin + row] = totals.log_normalizer;
      if (p.entropy != nullptr) p.entropy[begin + row] = totals.entropy;
      if (p.tokens != nullptr) p.logprob[begin + row] -= totals.log_normalizer;
    }
  });
}

// Everything one row block of the backward keeps in memory; sizes in elements of the tensors' dtype or fp32.
struct BackwardBlock {
  int64_t begin = 0, count = 0;
  HeadRows rows;
  int64_t padded = 0;            // count with the padding of the last group
  uint32_t* packed_x = nullptr;  // for grad_weight, see OuterProduct
  float* grad = nullptr;         // [k panels][padded][32]
  uint8_t* dlogits = nullptr;    // [count][chunk columns]
  uint32_t* dlogits_rows = nullptr;
  uint32_t* dlogits_panels = nullptr;
};

struct Chunk {
  int64_t tile_begin, tile_end, padded;  // columns of the vocabulary, up to whole panels
};

void chunk_gradients(Context& context, const GemmPath& path, const HeadLogprob& p, const HeadShape& shape,
                     const BackwardBlock& block, const Chunk& chunk) {
  const HeadRows& rows = block.rows;
  const int64_t tiles = chunk.tile_end - chunk.tile_begin;
  const int64_t groups = groups_per_item(context, rows, tiles);
  size_t stride = 0;
  uint8_t* const scratch = context.scratch->workers(context.pool->threads(), logits_bytes(rows, groups), &stride);
  context.pool->parallel_for(divide_up(rows.groups.count, groups) * tiles, [&](int64_t item, int worker) {
    const int64_t tile = chunk.tile_begin + item % tiles, group = item / tiles * groups;
    const int64_t group_end = std::min(group + groups, rows.groups.count), columns = shape.columns(tile);
    const int64_t column = (tile - chunk.tile_begin) * kVocabularyTile;
    float* logits = reinterpret_cast<float*>(scratch + static_cast<size_t>(worker) * stride);
    head_tile_logits(path, shape, p.weight.data, rows, group, group_end, tile, logits);
    TileStore store;
    store.out = block.dlogits;
    store.dtype = shape.dtype;
    store.columns = chunk.padded;
    for (int64_t row = rows.row(group); row < rows.row(group_end); ++row, logits += kVocabularyTile) {
      const int64_t target = block.begin + row;
      HeadGradient gradient{p.inverse_temperature[target], p.log_normalizer[target], 0, 0, 0};
      if (p.grad_logprob != nullptr) gradient.grad_logprob = p.grad_logprob[target];
      if (p.grad_entropy != nullptr) {
        gradient.grad_entropy = p.grad_entropy[target];
        gradient.entropy = p.entropy[target];
      }
      const int64_t token = p.tokens != nullptr ? p.tokens[target] - tile * kVocabularyTile : -1;
      head_tile_gradient(context.isa, logits, columns, token, gradient);
      store_tile(context.isa, store, logits, kVocabularyTile, row, 1, column,
                 std::min<int64_t>(kVocabularyTile, chunk.padded - column));
    }
  });

  const int64_t panels = chunk.padded / kLanes, panel_steps = chain_steps(block.count, shape.dtype);
  const int64_t row_parts = p.grad_hidden ? rows.groups.count : 0,
                left_steps = path.left_steps(chain_steps(chunk.padded, shape.dtype));
  context.pool->parallel_for(row_parts + (p.grad_weight ? panels : 0), [&](int64_t item, int) {
    if (item < row_parts) {
      const int64_t row = rows.row(item);
      pack_matrix_rows(path, block.dlogits, row, rows.size(item), chunk.padded, block.dlogits_rows + row * left_steps);
    } else {
      const int64_t panel = item - row_parts;
      pack_columns(context.isa, shape.dtype, block.dlogits, chunk.padded, block.count, panel * kLanes, kLanes, kLanes,
                   block.dlogits_panels + panel * panel_steps * kLanes);
    }
  });
}

// grad[k panel][row][32] += dlogits W, the chain over the vocabulary taken up from chunk to chunk.
void chunk_hidden(Context& context, const GemmPath& path, const HeadLogprob& p, const HeadShape& shape,
                  const BackwardBlock& block, const Chunk& chunk) {
  const int64_t steps = chain_steps(chunk.padded, shape.dtype), left_steps = path.left_steps(steps);
  const int64_t k_panels = divide_up(shape.hidden, kLanes);
  const int64_t first_step = chain_steps(chunk.tile_begin * kVocabularyTile, shape.dtype);
  const RowGroups& groups = block.rows.groups;
  int64_t parts = 1;
  while (parts * 2 <= groups.count && k_panels * parts < int64_t{context.pool->threads()} * 3) parts *= 2;
  size_t stride = 0;
  uint8_t* const scratch =
      context.scratch->workers(context.pool->threads(), static_cast<size_t>(steps * kLanes) * 4, &stride);
  context.pool->parallel_for(parts * k_panels, [&](int64_t item, int worker) {
    const int64_t k_panel = item % k_panels, part = item / k_panels;
    uint32_t* const transposed = reinterpret_cast<uint32_t*>(scratch + static_cast<size_t>(worker) * stride);
    pack_transposed(context.isa, shape.dtype, p.weight.data, shape.hidden, k_panel, first_step, steps, transposed);
    const TileScope scope(path, block.count);
    Tile tile;
    tile.a_half = GemmPath::kUnit * left_steps;
    tile.b = transposed;
    tile.steps = steps;
    tile.c_row = kLanes;
    tile.resume = chunk.tile_begin > 0;
    for (int64_t group = groups.cut(part, parts); group < groups.cut(part + 1, parts); ++group) {
      const int64_t row = groups.begin(group);
      tile.rows = groups.size(group);
      tile.a = block.dlogits_rows + row * left_steps;
      tile.c = block.grad + (k_panel * block.padded + row) * kLanes;
      run_tile(path, tile);
    }
  });
}

// Adds the targets of each row in their order and rounds once. A row whose targets go on in the next block is carried.
void store_hidden(Context& context, const HeadLogprob& p, const HeadShape& shape, const BackwardBlock& block,
                  const float* carry_in, float* carry_out) {
  const int32_t* const rows = p.rows + block.begin;
  const bool continued = block.begin > 0 && rows[-1] == rows[0];
  const bool continues = block.begin + block.count < p.num_targets && rows[block.count] == rows[block.count - 1];
  context.pool->parallel_for(block.count, [&](int64_t first, int) {
    if (first > 0 && rows[first] == rows[first - 1]) return;
    int64_t end = first + 1;
    while (end < block.count && rows[end] == rows[first]) ++end;
    const bool from_carry = first == 0 && continued, to_carry = end == block.count && continues;
    const int64_t to = rows[first] * shape.hidden;
    for (int64_t k = 0; k < shape.hidden; ++k) {
      const float* const column = block.grad + k / kLanes * block.padded * kLanes + k % kLanes;
      float sum = from_carry ? carry_in[k] + column[0] : column[first * kLanes];
      for (int64_t row = first + 1; row < end; ++row) sum += column[row * kLanes];
      if (to_carry) {
        carry_out[k] = sum;
      } else if (shape.dtype == DType::bf16) {
        p.grad_hidden.bf16()[to + k] = float_to_bf16(sum);
      } else {
        p.grad_hidden.f32()[to + k] = sum;
      }
    }
  });
}

void zero_hidden(Context& context, const Tensor& grad_hidden) {
  const size_t row_bytes = static_cast<size_t>(grad_hidden.cols()) * dtype_size(grad_hidden.dtype);
  context.pool->parallel_for(divide_up(grad_hidden.rows(), 64), [&](int64_t part, int) {
    const int64_t begin = part * 64, end = std::min(grad_hidden.rows(), begin + 64);
    std::memset(static_cast<uint8_t*>(grad_hidden.data) + static_cast<size_t>(begin) * row_bytes, 0,
                static_cast<size_t>(end - begin) * row_bytes);
  });
}

}  // namespace

void head_logprob_forward(Context& context, const HeadLogprob& p) {
  const HeadShape shape(p);
  if (p.num_targets == 0) return;
  const int64_t fitting = std::min(kSharedBytes / std::max<int64_t>(1, chain_steps(shape.hidden, shape.dtype) * 4),
                                   kPartialBytes / (shape.tiles * 12));
  const int64_t block = std::max<int64_t>(kTileRows, fitting);
  for (int64_t begin = 0; begin < p.num_targets; begin += block) {
    forward_block(context, p, shape, begin, std::min<int64_t>(block, p.num_targets - begin));
  }
}

void head_logprob_backward(Context& context, const HeadLogprob& p) {
  const HeadShape shape(p);
  const GemmPath path(context, shape.dtype);
  if (p.grad_hidden) zero_hidden(context, p.grad_hidden);
  if (p.num_targets == 0 || (!p.grad_hidden && !p.grad_weight)) return;
  Scratch& scratch = *context.scratch;
  const int64_t size = static_cast<int64_t>(dtype_size(shape.dtype)), k_even = round_up(shape.hidden, 2);
  const int64_t k_panels = divide_up(shape.hidden, kLanes);
  const int64_t left_steps = path.left_steps(chain_steps(shape.hidden, shape.dtype));
  const int64_t chunk_tiles = std::min<int64_t>(shape.tiles, std::clamp(context.pool->threads(), 4, 16));
  const int64_t chunk_columns = chunk_tiles * kVocabularyTile;
  // Multiples of 32, so that neither a pair of rows nor an AMX block of 16 pairs straddles two.
  const int64_t row_bytes = k_even * 3 * size + k_panels * kLanes * 4 + chunk_columns * 3 * size;
  const int64_t block_rows = std::min<int64_t>(round_up(p.num_targets, 32),
                                               std::clamp<int64_t>(kBackwardBytes / row_bytes / 32 * 32, 64, 1024));
  const int64_t row_steps = chain_steps(block_rows, shape.dtype);
  const auto dwords = [&](int slot, int64_t count) {
    return reinterpret_cast<uint32_t*>(scratch.shared(slot, static_cast<size_t>(count) * 4));
  };
  BackwardBlock block;
  void* const gathered = dwords(0, divide_up(block_rows * shape.hidden * size, 4));
  uint32_t* const packed = dwords(1, block_rows * left_steps);
  block.packed_x = dwords(2, p.grad_weight ? outer_dwords(path, shape.hidden, block_rows) : 1);
  block.grad = reinterpret_cast<float*>(dwords(3, block_rows * k_panels * kLanes));
  block.dlogits = reinterpret_cast<uint8_t*>(dwords(4, divide_up(block_rows * chunk_columns * size, 4)));
  block.dlogits_rows = dwords(5, p.grad_hidden ? block_rows * chain_steps(chunk_columns, shape.dtype) : 1);
  block.dlogits_panels = dwords(6, p.grad_weight ? row_steps * chunk_columns : 1);
  float* carry[2];
  carry[0] = reinterpret_cast<float*>(dwords(7, 2 * shape.hidden));
  carry[1] = carry[0] + shape.hidden;

  for (block.begin = 0; block.begin < p.num_targets; block.begin += block.count) {
    block.count = std::min<int64_t>(block_rows, p.num_targets - block.begin);
    block.padded = path.padded_rows(block.count);
    block.rows = HeadRows(path, block.count, shape.hidden);
    block.rows.packed = packed;
    head_gather(context, path, p, block.rows, block.begin, p.grad_weight ? gathered : nullptr, packed);
    if (p.grad_weight) {
      const RowGroups groups = outer_groups(path, shape.hidden);
      const int64_t parts = divide_up(groups.count, 8);
      context.pool->parallel_for(parts, [&](int64_t part, int) {
        pack_outer_x(path, gathered, block.count, shape.hidden, groups.cut(part, parts), groups.cut(part + 1, parts),
                     block.packed_x);
      });
    }
    for (int64_t tile = 0; tile < shape.tiles; tile += chunk_tiles) {
      Chunk chunk{tile, std::min(tile + chunk_tiles, shape.tiles), 0};
      chunk.padded =
          round_up(std::min(chunk.tile_end * kVocabularyTile, shape.vocabulary) - tile * kVocabularyTile, kLanes);
      chunk_gradients(context, path, p, shape, block, chunk);
      if (p.grad_hidden) chunk_hidden(context, path, p, shape, block, chunk);
      if (p.grad_weight) {
        accumulate_outer(context, path,
                         {block.packed_x, block.dlogits_panels, chain_steps(block.count, shape.dtype),
                          chunk.padded / kLanes, shape.hidden, p.grad_weight.f32() + tile * kVocabularyTile * k_even});
      }
    }
    if (p.grad_hidden) store_hidden(context, p, shape, block, carry[0], carry[1]);
    std::swap(carry[0], carry[1]);
  }
}

}  // namespace gavel::cpu
