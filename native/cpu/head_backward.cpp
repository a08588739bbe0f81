// head_logprob, backward, per (block of targets, chunk of vocabulary): the gradient of the logits in the dtype of
// `hidden`, then grad_hidden += dlogits W and grad_weight += dlogits^T hidden, all chains in fp32 and in ascending
// order. The logits are computed again (two passes), or, where coefficients are asked for by blocks and that is faster,
// scored here and kept from one to the other (one pass). Same chains, same bits.
#include <cstring>

#include "cpu/head_block.h"
#include "cpu/kernels.h"

namespace gavel::cpu {
namespace {

constexpr int64_t kTwoPassBytes = int64_t{12} << 20;
constexpr int64_t kOnePassBytes = int64_t{118} << 20;

// Everything one row block keeps in memory; sizes in elements of the tensors' dtype or fp32.
struct BackwardBlock : HeadBlock {
  uint8_t* gathered = nullptr;   // [rows, H]
  uint32_t* packed = nullptr;    // the same as left operand
  uint32_t* packed_x = nullptr;  // for grad_weight, see OuterProduct
  float* grad = nullptr;         // [k panels][padded][32]
  uint8_t* dlogits = nullptr;    // [rows][chunk columns]
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
  const int64_t groups = head_groups_per_item(context, rows, tiles);
  const size_t own_bytes = block.kept != nullptr ? 0 : head_logits_bytes(rows, groups);
  size_t stride = 0;
  uint8_t* const scratch = context.scratch->workers(context.pool->threads(), own_bytes, &stride);
  const int64_t parts = divide_up(rows.groups.count, groups);
  context.pool->parallel_for(parts * tiles, [&](int64_t item, int worker) {
    const int64_t tile = chunk.tile_begin + item / parts, group = item % parts * groups;
    const int64_t group_end = std::min(group + groups, rows.groups.count), columns = shape.columns(tile);
    const int64_t column = (tile - chunk.tile_begin) * kVocabularyTile;
    float* logits = block.kept != nullptr ? block.kept_tile(tile, rows.row(group))
                                          : reinterpret_cast<float*>(scratch + static_cast<size_t>(worker) * stride);
    if (block.kept == nullptr) {
      head_tile_logits(path, shape, p.weight.data, rows, group, group_end, tile, logits);
    }
    TileStore store;
    store.out = block.dlogits;
    store.dtype = shape.dtype;
    store.columns = chunk.padded;
    for (int64_t row = rows.row(group); row < rows.row(group_end); ++row, logits += kVocabularyTile) {
      const int64_t target = block.begin + row;
      HeadGradient gradient;
      gradient.inverse_temperature = p.inverse_temperature[target];
      gradient.scale = block.kept != nullptr ? 1.0f : gradient.inverse_temperature;
      gradient.log_normalizer = p.log_normalizer[target];
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

  const int64_t panels = chunk.padded / kLanes, panel_steps = chain_steps(block.rows.count, shape.dtype);
  const int64_t row_parts = p.grad_hidden ? rows.groups.count : 0,
                left_steps = path.left_steps(chain_steps(chunk.padded, shape.dtype));
  context.pool->parallel_for(row_parts + (p.grad_weight ? panels : 0), [&](int64_t item, int) {
    if (item < row_parts) {
      const int64_t row = rows.row(item);
      pack_matrix_rows(path, block.dlogits, row, rows.size(item), chunk.padded, block.dlogits_rows + row * left_steps);
    } else {
      const int64_t panel = item - row_parts;
      pack_columns(context.isa, shape.dtype, block.dlogits, chunk.padded, block.rows.count, panel * kLanes, kLanes,
                   kLanes, block.dlogits_panels + panel * panel_steps * kLanes);
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
  int64_t at_once = std::min<int64_t>(path.panels(groups), k_panels);
  const int64_t items = int64_t{context.pool->threads()} * 3;
  if (divide_up(k_panels, at_once) < items) at_once = 1;
  const int64_t columns = divide_up(k_panels, at_once);
  while (parts * 2 <= groups.count && columns * parts < items) parts *= 2;
  size_t stride = 0;
  uint8_t* const scratch =
      context.scratch->workers(context.pool->threads(), static_cast<size_t>(at_once * steps * kLanes) * 4, &stride);
  context.pool->parallel_for(parts * columns, [&](int64_t item, int worker) {
    const int64_t k_panel = item % columns * at_once, part = item / columns;
    const int64_t panels = std::min(at_once, k_panels - k_panel);
    uint32_t* const transposed = reinterpret_cast<uint32_t*>(scratch + static_cast<size_t>(worker) * stride);
    for (int64_t i = 0; i < panels; ++i) {
      pack_transposed(context.isa, shape.dtype, p.weight.data, shape.hidden, k_panel + i, first_step, steps,
                      transposed + i * steps * kLanes);
    }
    const TileScope scope(path, block.rows.count);
    Tile tile;
    tile.a_half = GemmPath::kUnit * left_steps;
    tile.b = transposed;
    tile.b_panel = steps * kLanes;
    tile.panels = static_cast<int>(panels);
    tile.steps = steps;
    tile.c_row = kLanes;
    tile.c_panel = block.padded * kLanes;
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
  const bool continues =
      block.begin + block.rows.count < p.num_targets && rows[block.rows.count] == rows[block.rows.count - 1];
  context.pool->parallel_for(block.rows.count, [&](int64_t first, int) {
    if (first > 0 && rows[first] == rows[first - 1]) return;
    int64_t end = first + 1;
    while (end < block.rows.count && rows[end] == rows[first]) ++end;
    const bool from_carry = first == 0 && continued, to_carry = end == block.rows.count && continues;
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

void head_logprob_backward(Context& context, const HeadLogprob& p) {
  const HeadShape shape(p);
  const GemmPath path(context, shape.dtype);
  if (p.grad_hidden) zero_hidden(context, p.grad_hidden);
  if (p.num_targets == 0) return;
  const bool wanted = p.grad_hidden || p.grad_weight, asked = p.coefficients.fill != nullptr;
  // AMX computes logits again in less time than memory takes for them, and for a grad_weight that every block of few
  // rows reads and writes.
  const bool one_pass = wanted && asked && !path.amx;
  if (asked && !one_pass) {
    head_logprob_forward(context, p);
    p.coefficients.fill(p.coefficients.objective, 0, p.num_targets);
  }
  if (!wanted) return;
  const int64_t size = static_cast<int64_t>(dtype_size(shape.dtype)), k_even = round_up(shape.hidden, 2);
  const int64_t k_panels = divide_up(shape.hidden, kLanes);
  const int64_t left_steps = path.left_steps(chain_steps(shape.hidden, shape.dtype));
  const int64_t chunk_tiles = std::min<int64_t>(shape.tiles, std::clamp(context.pool->threads(), 4, 16));
  const int64_t chunk_columns = chunk_tiles * kVocabularyTile;
  const int64_t kept_columns = one_pass ? shape.tiles * kVocabularyTile : 0;
  // Multiples of 32, so that neither a pair of rows nor an AMX block of 16 pairs straddles two.
  const int64_t row_bytes = k_even * 3 * size + k_panels * kLanes * 4 + chunk_columns * 3 * size + kept_columns * 4 +
                            (one_pass ? shape.tiles * 12 : 0);
  const int64_t bytes = one_pass ? kOnePassBytes : kTwoPassBytes;
  const int64_t block_rows =
      std::min<int64_t>(round_up(p.num_targets, 32), std::clamp<int64_t>(bytes / row_bytes / 32 * 32, 32, 1024));
  const int64_t row_steps = chain_steps(block_rows, shape.dtype);
  BackwardBlock block;
  float* carry[2] = {};
  const auto place = [&](HeadMemory memory) {
    block.gathered = memory.take<uint8_t>(p.grad_weight ? block_rows * shape.hidden * size : 0);
    block.packed = memory.take<uint32_t>(block_rows * left_steps);
    block.packed_x = memory.take<uint32_t>(p.grad_weight ? outer_dwords(path, shape.hidden, block_rows) : 0);
    block.grad = memory.take<float>(p.grad_hidden ? block_rows * k_panels * kLanes : 0);
    block.dlogits = memory.take<uint8_t>(block_rows * chunk_columns * size);
    block.dlogits_rows =
        memory.take<uint32_t>(p.grad_hidden ? block_rows * chain_steps(chunk_columns, shape.dtype) : 0);
    block.dlogits_panels = memory.take<uint32_t>(p.grad_weight ? row_steps * chunk_columns : 0);
    for (float*& row : carry) row = memory.take<float>(shape.hidden);
    if (one_pass) {
      block.kept = memory.take<float>(block_rows * kept_columns);
      block.sums = memory.take<float>(p.tile_sums == nullptr ? block_rows * shape.tiles * 2 : 0);
      block.moments = p.entropy != nullptr ? memory.take<float>(block_rows * shape.tiles) : nullptr;
    }
    return memory.used();
  };
  place(HeadMemory(context.scratch->shared(0, place(HeadMemory(nullptr)))));

  for (block.begin = 0; block.begin < p.num_targets; block.begin += block.rows.count) {
    const int64_t count = std::min<int64_t>(block_rows, p.num_targets - block.begin);
    block.padded = path.padded_rows(count);
    block.rows = HeadRows(path, count, shape.hidden);
    block.rows.packed = block.packed;
    head_gather(context, path, p, block.rows, block.begin, p.grad_weight ? block.gathered : nullptr, block.packed);
    if (p.grad_weight) {
      const RowGroups groups = outer_groups(path, shape.hidden);
      const int64_t parts = divide_up(groups.count, 8);
      context.pool->parallel_for(parts, [&](int64_t part, int) {
        pack_outer_x(path, block.gathered, count, shape.hidden, groups.cut(part, parts), groups.cut(part + 1, parts),
                     block.packed_x);
      });
    }
    if (one_pass) {
      if (p.tile_sums != nullptr) block.sums = p.tile_sums + block.begin * shape.tiles * 2;
      head_score(context, path, p, shape, block);
      p.coefficients.fill(p.coefficients.objective, static_cast<int32_t>(block.begin),
                          static_cast<int32_t>(block.begin + count));
    }
    for (int64_t tile = 0; tile < shape.tiles; tile += chunk_tiles) {
      Chunk chunk{tile, std::min(tile + chunk_tiles, shape.tiles), 0};
      chunk.padded =
          round_up(std::min(chunk.tile_end * kVocabularyTile, shape.vocabulary) - tile * kVocabularyTile, kLanes);
      chunk_gradients(context, path, p, shape, block, chunk);
      if (p.grad_hidden) chunk_hidden(context, path, p, shape, block, chunk);
      if (p.grad_weight) {
        accumulate_outer(context, path,
                         {block.packed_x, block.dlogits_panels, chain_steps(count, shape.dtype), chunk.padded / kLanes,
                          shape.hidden, p.grad_weight.f32() + tile * kVocabularyTile * k_even});
      }
    }
    if (p.grad_hidden) store_hidden(context, p, shape, block, carry[0], carry[1]);
    std::swap(carry[0], carry[1]);
  }
}

}  // namespace gavel::cpu
