// Where K and V of a block lie, and how rows get there.
#pragma once
#include <cstdint>

#include "core/context.h"
#include "ops/attention.h"

namespace gavel::cpu {

struct StoreLayout {
  const Attention& p;
  int64_t element, tile, block, row;  // sizes: bytes of an element, elements of a K tile, of a block, of a row of qkv
  int32_t group;                      // query heads per key-value head

  explicit StoreLayout(const Attention& attention)
      : p(attention),
        element(static_cast<int64_t>(dtype_size(attention.qkv.dtype))),
        tile(attention.store.tile_size(attention.head_dim)),
        block(2 * tile * attention.kv_heads),
        row((int64_t{attention.query_heads} + 2 * attention.kv_heads) * attention.head_dim),
        group(attention.query_heads / attention.kv_heads) {}

  uint8_t* block_data(int32_t id) const { return static_cast<uint8_t*>(p.store.data) + id * block * element; }
  uint8_t* key_tile(int32_t id, int32_t head) const { return block_data(id) + 2 * tile * head * element; }
  uint8_t* value_tile(int32_t id, int32_t head) const { return key_tile(id, head) + tile * element; }
  const uint8_t* row_data(int32_t index) const {
    return static_cast<const uint8_t*>(p.qkv.data) + index * row * element;
  }
};

// Fresh blocks, copies, then writes, in that order.
void fill_store(Context& context, const StoreLayout& layout);

}  // namespace gavel::cpu
