// Block-grid attention in bf16 on AMX tiles: the arithmetic of machines that have them, for one row and for many.
//   scores: a tdpbf16ps for every 32 dimensions (a last 16 alone), 16 queries x 16 keys of raw q . k, -inf where hidden
//   top' = max(top, max of scores * c), c = scale * log2 e > 0; while that is -inf, 0 is subtracted instead
//   p = 2^(scores * c - top'), factor = 2^(top - top'), sum = fma(sum, factor, tree(p)), the tree of
//   attention_portable.h out = out * factor, then a tdpbf16ps for 32 keys of rounded p: keys 0..31 and 32..63 of a
//   block
// An instruction treats its rows apart, so how many queries share a visit changes no bit of any.
#pragma once
#include <cstdint>

#include "cpu/attention_store.h"
#include "cpu/attention_units.h"

namespace gavel::cpu {

// Floats of a worker that attends to tiles of up to `queries` queries (rows times query heads of a key-value head).
int64_t amx_workspace_floats(int32_t queries, int32_t head_dim);

// All queries of key-value head `head` in a tile: out and lse.
void attend_amx(const StoreLayout& layout, const QueryTile& tile, int32_t head, float* workspace);

// The backward of one unit and key-value head; p and dS are rounded to bf16 for their products, sums are fp32.
size_t amx_backward_bytes(const Attention& p, const UnitBlocks& blocks);
void unit_backward_amx(const Attention& p, const UnitBlocks& blocks, int32_t unit, int32_t head, uint8_t* memory);

}  // namespace gavel::cpu
