// Attention forward: K and V of the rows go into the block store, then tiles of queries visit their blocks in ascending
// order. A work item is (tile, key-value head): all query heads of that head, block by block, so a block is read into
// cache once for all of them. Which queries share a visit is free: see attention_block.h.
#include <algorithm>
#include <cstring>

#include "cpu/attention_block.h"
#include "cpu/kernels.h"

namespace gavel::cpu {
namespace {

struct Layout {
  const Attention& p;
  int64_t element, tile, block, row;  // sizes: bytes of an element, elements of a K tile, of a block, of a row of qkv
  int32_t group;                      // query heads per key-value head

  explicit Layout(const Attention& attention)
      : p(attention),
        element(static_cast<int64_t>(dtype_size(attention.qkv.dtype))),
        tile(attention.store.tile_size(attention.head_dim)),
        block(2 * tile * attention.kv_heads),
        row((int64_t{attention.query_heads} + 2 * attention.kv_heads) * attention.head_dim),
        group(attention.query_heads / attention.kv_heads) {}

  uint8_t* block_data(int32_t id) const { return static_cast<uint8_t*>(p.store.data) + id * block * element; }
  uint8_t* key_tile(int32_t id, int32_t head) const { return block_data(id) + 2 * tile * head * element; }
  const uint8_t* row_data(int32_t index) const {
    return static_cast<const uint8_t*>(p.qkv.data) + index * row * element;
  }
};

// K is transposed so that 64 keys lie side by side for each dimension (pair of dimensions in bf16).
void write_row_f32(const float* key, const float* value, float* tile, int32_t slot, int32_t head_dim) {
  for (int32_t d = 0; d < head_dim; ++d) tile[d * kKeyBlock + slot] = key[d];
  std::memcpy(tile + kKeyBlock * head_dim + slot * head_dim, value, static_cast<size_t>(head_dim) * sizeof(float));
}

void write_row_bf16(const bf16_t* key, const bf16_t* value, bf16_t* tile, int32_t slot, int32_t head_dim) {
  for (int32_t d = 0; d < head_dim; d += 2) std::memcpy(tile + d * kKeyBlock + slot * 2, key + d, 2 * sizeof(bf16_t));
  bf16_t* out = tile + kKeyBlock * head_dim + (slot / 2) * 2 * head_dim + slot % 2;
  for (int32_t d = 0; d < head_dim; ++d) out[2 * d] = value[d];
}

void write_rows(const Layout& layout, int32_t begin, int32_t end) {
  const Attention& p = layout.p;
  for (int32_t head = 0; head < p.kv_heads; ++head) {
    const int64_t key_offset = (int64_t{p.query_heads} + head) * p.head_dim * layout.element;
    const int64_t value_offset = key_offset + int64_t{p.kv_heads} * p.head_dim * layout.element;
    for (int32_t i = begin; i < end; ++i) {
      const KvWrite& write = p.plan->writes[i];
      const uint8_t* row = layout.row_data(write.row);
      uint8_t* tile = layout.key_tile(write.block, head);
      const void *key = row + key_offset, *value = row + value_offset;
      if (p.qkv.dtype == DType::f32) {
        write_row_f32(static_cast<const float*>(key), static_cast<const float*>(value),
                      reinterpret_cast<float*>(tile), write.slot, p.head_dim);
      } else {
        write_row_bf16(static_cast<const bf16_t*>(key), static_cast<const bf16_t*>(value),
                       reinterpret_cast<bf16_t*>(tile), write.slot, p.head_dim);
      }
    }
  }
}

void fill_store(Context& context, const Layout& layout) {
  const AttentionPlan& plan = *layout.p.plan;
  const auto block_bytes = static_cast<size_t>(layout.block * layout.element);
  context.pool->parallel_for(plan.num_fresh, [&](int64_t i, int) {
    std::memset(layout.block_data(plan.fresh_blocks[i]), 0, block_bytes);
  });
  context.pool->parallel_for(plan.num_copies, [&](int64_t i, int) {
    std::memcpy(layout.block_data(plan.copies[i].to), layout.block_data(plan.copies[i].from), block_bytes);
  });
  constexpr int32_t kChunk = 64;
  context.pool->parallel_for((plan.num_writes + kChunk - 1) / kChunk, [&](int64_t chunk, int) {
    const auto begin = static_cast<int32_t>(chunk) * kChunk;
    write_rows(layout, begin, std::min(begin + kChunk, plan.num_writes));
  });
}

class TileWalk {
 public:
  TileWalk(const Layout& layout, const AttentionKernels& kernels, const QueryTile& tile, int32_t head, float* states)
      : layout_(layout), plan_(*layout.p.plan), kernels_(kernels), tile_(tile), head_(head), states_(states) {}

  void run() {
    const int32_t head_dim = layout_.p.head_dim;
    for (int32_t i = 0; i < tile_.row_count * layout_.group; ++i) reset_state(state(i), head_dim);
    for (int32_t block = 0; block < tile_.shared_count; ++block) {
      if (!visit(0, tile_.row_count, block, plan_.block_ids[tile_.shared_begin + block])) break;
    }
    // Rows with one and the same list of own blocks (a completion) go on together.
    for (int32_t begin = 0, end; begin < tile_.row_count; begin = end) {
      const int32_t tail = plan_.row_tail[tile_.row_begin + begin];
      for (end = begin + 1; end < tile_.row_count && plan_.row_tail[tile_.row_begin + end] == tail;) ++end;
      int32_t last = 0;
      for (int32_t row = begin; row < end; ++row) last = std::max(last, plan_.row_keys[tile_.row_begin + row]);
      const int32_t blocks = (last + kKeyBlock - 1) / kKeyBlock;
      for (int32_t block = tile_.shared_count; block < blocks; ++block) {
        visit(begin, end, block, plan_.block_ids[tail + block - tile_.shared_count]);
      }
    }
    finish();
  }

 private:
  float* state(int32_t entry) const { return states_ + entry * state_floats(layout_.p.head_dim); }

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
    step.values = static_cast<const uint8_t*>(step.keys) + layout_.tile * layout_.element;
    // Even shares: a lone query left over would be bound by latency.
    int32_t visits = (entries + kVisitQueries - 1) / kVisitQueries;
    int32_t share = (entries + visits - 1) / visits;
    for (int32_t row = begin; row < end; ++row) {
      const int32_t visible = plan_.row_keys[tile_.row_begin + row] - base;
      if (visible <= 0) continue;
      const uint8_t* queries = layout_.row_data(tile_.row_begin + row);
      for (int32_t i = 0; i < layout_.group; ++i) {
        const int32_t query_head = head_ * layout_.group + i;
        step.query[step.count] = queries + int64_t{query_head} * p.head_dim * layout_.element;
        step.state[step.count] = state(row * layout_.group + i);
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

  const Layout& layout_;
  const AttentionPlan& plan_;
  const AttentionKernels& kernels_;
  const QueryTile tile_;
  const int32_t head_;
  float* const states_;
};

}  // namespace

void attention_forward(Context& context, const Attention& p) {
  const Layout layout(p);
  const AttentionPlan& plan = *p.plan;
  fill_store(context, layout);

  int32_t rows = 0;
  for (int32_t i = 0; i < plan.num_tiles; ++i) rows = std::max(rows, plan.tiles[i].row_count);
  size_t stride = 0;
  uint8_t* scratch = context.scratch->workers(
      context.pool->threads(),
      static_cast<size_t>(int64_t{rows} * layout.group * state_floats(p.head_dim)) * sizeof(float), &stride);
  const AttentionKernels kernels = attention_kernels(context.isa, p.qkv.dtype);
  // Later rows of a sequence see more keys: the long items first, so that no thread is left with one at the end.
  const int64_t items = int64_t{plan.num_tiles} * p.kv_heads;
  context.pool->parallel_for(items, [&](int64_t index, int worker) {
    const int64_t item = items - 1 - index;
    float* states = reinterpret_cast<float*>(scratch + static_cast<size_t>(worker) * stride);
    TileWalk(layout, kernels, plan.tiles[item / p.kv_heads], static_cast<int32_t>(item % p.kv_heads), states).run();
  });
}

}  // namespace gavel::cpu
