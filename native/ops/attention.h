// Attention over ordered key blocks of 64. K and V of every row are first written into a block store (transient in
// training, paged in the sampler), then each query visits its blocks in ascending order carrying (max, sum, out)
// unnormalised (Dao et al. 2022). Blocks lie on one grid from key 0, so a row's bits do not depend on where its prompt
// ends, who shares its blocks, or whether it is decoded or trained. Rules for masks and zeros: docs/design.md,
// Exactness.
//
// Row t sees keys [0, row_keys[t]) of the list  block_ids[shared_begin .. +shared_count) ++ block_ids[row_tail[t] ..).
// That one form covers causal decoder rows (row_keys = position + 1), vision windows and full vision blocks (row_keys =
// size of the range for every row), and decoding (rows of a group share the prompt's full blocks, tails are their own).
#pragma once
#include <span>

#include "core/tensor.h"

namespace gavel {

inline constexpr int32_t kKeyBlock = 64;

struct KvWrite {
  int32_t row, block, slot;  // K and V of `row` go to `slot` of `block`
};

struct KvCopy {
  int32_t from, to;  // whole block, before the writes (a partial prompt block given to each completion)
};

struct QueryTile {
  int32_t row_begin, row_count;        // consecutive rows
  int32_t shared_begin, shared_count;  // into block_ids: blocks that every row of the tile visits first
};

// Rows [row_begin, row_end) and tiles [tile_begin, tile_end) that touch one another's keys and nobody else's: a group,
// or a vision window. The backward accumulates a unit's dK and dV in one fixed order.
struct AttentionUnit {
  int32_t row_begin, row_end, tile_begin, tile_end;
};

// Rows [row_begin, row_end) that visit a block as their keys from key_begin on; those with fewer keys pass it by.
struct BlockVisit {
  int32_t row_begin, row_end, key_begin;
};

// Entries without effect make plans equally long: block -1 (a fresh one, of a copy's `to`, of a write), and tiles of no
// rows.
struct AttentionPlan {
  int32_t num_blocks = 0;  // blocks of a transient store
  int32_t most_keys = 0;   // that a row sees, or some more; 0: not known
  int32_t num_fresh = 0, num_copies = 0, num_writes = 0, num_tiles = 0, num_units = 0;
  const int32_t* fresh_blocks = nullptr;  // zeroed first: a free slot must hold finite values
  const KvCopy* copies = nullptr;
  const KvWrite* writes = nullptr;
  const QueryTile* tiles = nullptr;
  const int32_t* block_ids = nullptr;
  const int32_t* row_keys = nullptr;  // [T]
  const int32_t* row_tail = nullptr;  // [T]: where the row's own blocks begin in block_ids
  // Training only:
  const AttentionUnit* units = nullptr;
  const int32_t* block_rows = nullptr;  // [num_blocks, 64]: row whose K and V fill the slot, or -1
  // The same relations from the keys' side: who visits block b, visits[visit_begin[b] .. visit_begin[b + 1]) by
  // ascending rows, and the slots (block * 64 + slot) of row t, slots[slot_begin[t] .. slot_begin[t + 1]).
  const BlockVisit* visits = nullptr;
  const int32_t* visit_begin = nullptr;  // [num_blocks + 1]
  const int32_t* slots = nullptr;
  const int32_t* slot_begin = nullptr;  // [T + 1]
};

// Block b, key-value head h: K tile then V tile, each 64 * D elements of the activations' dtype. D is a multiple of 16.
//   fp32: K [D][64 keys], V [64 keys][D]     bf16: K [D/2][64 keys][2], V [32 key pairs][D][2]
struct KvStore {
  void* data = nullptr;  // of one layer
  int64_t tile_size(int32_t head_dim) const { return int64_t{kKeyBlock} * head_dim; }
};

// A page of kept keys and values that fills a block of a transient store.
struct KvPage {
  int32_t block = 0;
  const uint8_t* data = nullptr;  // of layer 0
  int64_t layer_bytes = 0;        // from one layer's page to the next layer's
};

struct KvPages {
  std::span<const KvPage> pages;
  int32_t layer = 0;
};

struct Attention {
  Tensor out;  // [T, Q * D]
  Tensor lse;  // [T, Q] fp32: log of the sum of exp of the scaled scores, saved for the backward
  Tensor qkv;  // [T, (Q + 2 K) * D]: queries, keys, values of a row side by side, RoPE already applied
  KvStore store;
  const AttentionPlan* plan = nullptr;
  int32_t query_heads = 0, kv_heads = 0, head_dim = 0;
  float scale = 1.0f;  // positive; applied to q . k in fp32
  // backward
  Tensor grad_out;
  Tensor grad_qkv;  // overwritten

  template <class Binder>
  static void bind(Attention& p, Binder& b) {
    p.grad_out = b.output(p.out);
    p.grad_qkv = b.input_overwritten(p.qkv);
  }
};

}  // namespace gavel
