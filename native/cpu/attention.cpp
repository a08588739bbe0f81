// Attention forward: K and V of the rows go into the block store, then tiles of queries visit their blocks in ascending
// order. A work item is (tile, key-value head): all query heads of that head, block by block, so a block is read into
// cache once for all of them. Which queries share a visit is free: see attention_block.h.
#include <algorithm>

#include "cpu/attention_amx.h"
#include "cpu/attention_block.h"
#include "cpu/attention_store.h"
#include "cpu/attention_walk.h"
#include "cpu/kernels.h"

namespace gavel::cpu {
namespace {

// From so many queries on, widening a block of bf16 once costs less than it saves.
constexpr int32_t kWidenQueries = 18;

// Floats of a worker: states of a tile's queries, and for bf16 their widened form and one widened block.
int64_t workspace_floats(int32_t queries, int32_t head_dim, bool widen) {
  return queries * (state_floats(head_dim) + (widen ? head_dim : 0)) + (widen ? int64_t{2} * kKeyBlock * head_dim : 0);
}

class TileWalk {
 public:
  TileWalk(const StoreLayout& layout, const AttentionKernels& kernels, const QueryTile& tile, int32_t head,
           float* workspace)
      : layout_(layout),
        plan_(*layout.p.plan),
        kernels_(kernels),
        tile_(tile),
        head_(head),
        queries_(tile.row_count * layout.group),
        widen_(kernels.widen_block != nullptr && queries_ >= kWidenQueries),
        states_(workspace),
        wide_queries_(states_ + queries_ * state_floats(layout.p.head_dim)),
        wide_block_(wide_queries_ + int64_t{queries_} * layout.p.head_dim) {}

  void run() {
    const int32_t head_dim = layout_.p.head_dim;
    for (int32_t i = 0; i < queries_; ++i) {
      reset_state(state(i), head_dim);
      if (widen_) kernels_.widen_query(static_cast<const bf16_t*>(query(i)), head_dim, wide_query(i));
    }
    walk_blocks(plan_, tile_,
                [&](int32_t begin, int32_t end, int32_t block, int32_t id) { return visit(begin, end, block, id); });
    finish();
  }

 private:
  // Queries of the tile are numbered row by row, heads within a row.
  float* state(int32_t index) const { return states_ + index * state_floats(layout_.p.head_dim); }
  float* wide_query(int32_t index) const { return wide_queries_ + int64_t{index} * layout_.p.head_dim; }
  const void* query(int32_t index) const {
    const int32_t row = tile_.row_begin + index / layout_.group, head = head_ * layout_.group + index % layout_.group;
    return layout_.row_data(row) + int64_t{head} * layout_.p.head_dim * layout_.element;
  }

  // Rows [begin, end) of the tile see block number `block` of their lists; false when no row reaches it.
  bool visit(int32_t begin, int32_t end, int32_t block, int32_t id) {
    const Attention& p = layout_.p;
    const int32_t base = block * kKeyBlock;
    int32_t entries = 0;
    for (int32_t row = begin; row < end; ++row) entries += plan_.row_keys[tile_.row_begin + row] > base;
    entries *= layout_.group;
    if (entries == 0) return false;

    BlockVisit step;
    step.head_dim = p.head_dim;
    step.scale = p.scale;
    step.keys = layout_.key_tile(id, head_);
    step.values = layout_.value_tile(id, head_);
    if (widen_ && entries >= kWidenQueries) {
      kernels_.widen_block(static_cast<const bf16_t*>(step.keys), p.head_dim, wide_block_);
      step.widened = true;
      step.keys = wide_block_;
      step.values = wide_block_ + layout_.tile;
    }
    // Even shares: a lone query left over would be bound by latency.
    int32_t visits = (entries + kVisitQueries - 1) / kVisitQueries;
    int32_t share = (entries + visits - 1) / visits;
    for (int32_t row = begin; row < end; ++row) {
      const int32_t visible = plan_.row_keys[tile_.row_begin + row] - base;
      if (visible <= 0) continue;
      for (int32_t index = row * layout_.group; index < (row + 1) * layout_.group; ++index) {
        step.query[step.count] = step.widened ? wide_query(index) : query(index);
        step.state[step.count] = state(index);
        step.visible[step.count] = std::min(visible, kKeyBlock);
        if (++step.count == share) {
          kernels_.visit(step);
          entries -= share;
          step.count = 0;
          if (--visits > 0) share = (entries + visits - 1) / visits;
        }
      }
    }
    return true;
  }

  void finish() {
    const Attention& p = layout_.p;
    for (int32_t row = 0; row < tile_.row_count; ++row) {
      for (int32_t i = 0; i < layout_.group; ++i) {
        const int64_t index = int64_t{tile_.row_begin + row} * p.query_heads + head_ * layout_.group + i;
        void* out = static_cast<uint8_t*>(p.out.data) + index * p.head_dim * layout_.element;
        const float lse = kernels_.finish(state(row * layout_.group + i), p.head_dim, out);
        if (p.lse) p.lse.f32()[index] = lse;
      }
    }
  }

  const StoreLayout& layout_;
  const AttentionPlan& plan_;
  const AttentionKernels& kernels_;
  const QueryTile tile_;
  const int32_t head_;
  const int32_t queries_;
  const bool widen_;
  float *const states_, *const wide_queries_, *const wide_block_;
};

}  // namespace

void attention_forward(Context& context, const Attention& p) {
  const StoreLayout layout(p);
  const AttentionPlan& plan = *p.plan;
  fill_store(context, layout);

  int32_t rows = 0;
  for (int32_t i = 0; i < plan.num_tiles; ++i) rows = std::max(rows, plan.tiles[i].row_count);
  const int32_t queries = rows * layout.group;
  const bool amx = context.amx && p.qkv.dtype == DType::bf16;
  const AttentionKernels kernels = attention_kernels(context.isa, p.qkv.dtype);
  const int64_t floats = amx ? amx_workspace_floats(queries, p.head_dim)
                             : workspace_floats(queries, p.head_dim, kernels.widen_block != nullptr);
  size_t stride = 0;
  uint8_t* scratch =
      context.scratch->workers(context.pool->threads(), static_cast<size_t>(floats) * sizeof(float), &stride);
  // Tiles of one head after another: its blocks stay in cache from tile to tile. Later rows of a sequence see more
  // keys: the long items first, so that no thread is left with one at the end.
  const int64_t items = int64_t{plan.num_tiles} * p.kv_heads;
  context.pool->parallel_for(items, [&](int64_t index, int worker) {
    const QueryTile& tile = plan.tiles[plan.num_tiles - 1 - index % plan.num_tiles];
    const auto head = static_cast<int32_t>(index / plan.num_tiles);
    if (tile.row_count == 0) return;
    float* workspace = reinterpret_cast<float*>(scratch + static_cast<size_t>(worker) * stride);
    if (amx) {
      attend_amx(layout, tile, head, workspace);
    } else {
      TileWalk(layout, kernels, tile, head, workspace).run();
    }
  });
}

}  // namespace gavel::cpu
