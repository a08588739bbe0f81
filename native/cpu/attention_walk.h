// The order in which a tile of queries meets its key blocks: the shared ones, then those of each run of rows with one
// list of own blocks (a completion).
#pragma once
#include <algorithm>

#include "ops/attention.h"

namespace gavel::cpu {

// visit(begin, end, block, id): rows [begin, end) of the tile meet block number `block` of their lists; false when none
// of them reaches it.
template <class Visit>
void walk_blocks(const AttentionPlan& plan, const QueryTile& tile, const Visit& visit) {
  for (int32_t block = 0; block < tile.shared_count; ++block) {
    if (!visit(0, tile.row_count, block, plan.block_ids[tile.shared_begin + block])) break;
  }
  for (int32_t begin = 0, end; begin < tile.row_count; begin = end) {
    const int32_t tail = plan.row_tail[tile.row_begin + begin];
    for (end = begin + 1; end < tile.row_count && plan.row_tail[tile.row_begin + end] == tail;) ++end;
    int32_t last = 0;
    for (int32_t row = begin; row < end; ++row) last = std::max(last, plan.row_keys[tile.row_begin + row]);
    const int32_t blocks = (last + kKeyBlock - 1) / kKeyBlock;
    for (int32_t block = tile.shared_count; block < blocks; ++block) {
      visit(begin, end, block, plan.block_ids[tail + block - tile.shared_count]);
    }
  }
}

}  // namespace gavel::cpu
