#include "model/attention_plan.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace gavel {

AttentionPlan OwnedPlan::view() const {
  AttentionPlan plan;
  plan.num_blocks = num_blocks;
  plan.most_keys = most_keys;
  plan.num_fresh = static_cast<int32_t>(fresh_blocks.size());
  plan.num_copies = static_cast<int32_t>(copies.size());
  plan.num_writes = static_cast<int32_t>(writes.size());
  plan.num_tiles = static_cast<int32_t>(tiles.size());
  plan.num_units = static_cast<int32_t>(units.size());
  plan.fresh_blocks = fresh_blocks.data();
  plan.copies = copies.data();
  plan.writes = writes.data();
  plan.tiles = tiles.data();
  plan.block_ids = block_ids.data();
  plan.row_keys = row_keys.data();
  plan.row_tail = row_tail.data();
  plan.units = units.data();
  plan.block_rows = block_rows.data();
  plan.visits = visits.data();
  plan.visit_begin = visit_begin.data();
  plan.slots = slots.data();
  plan.slot_begin = slot_begin.data();
  return plan;
}

void OwnedPlan::pad(int32_t rows) {
  const auto count = static_cast<size_t>(rows);
  row_keys.resize(count, 0);
  row_tail.resize(count, 0);
  writes.resize(count, {0, -1, 0});
  tiles.resize(std::bit_ceil(tiles.size()), {0, 0, 0, 0});
  // A decoding row opens one page at most and copies one.
  if (!fresh_blocks.empty()) fresh_blocks.resize(count, -1);
  if (!copies.empty()) copies.resize(count, {-1, -1});
}

PlanBuilder::PlanBuilder(int32_t num_rows, int32_t tile_rows) : tile_rows_(std::max(tile_rows, 1)) {
  plan_.row_keys.assign(static_cast<size_t>(num_rows), 0);
  plan_.row_tail.assign(static_cast<size_t>(num_rows), 0);
}

int32_t PlanBuilder::new_block() {
  plan_.block_rows.insert(plan_.block_rows.end(), kKeyBlock, -1);
  return plan_.num_blocks++;
}

void PlanBuilder::place(int32_t row, int32_t block, int32_t slot) {
  plan_.writes.push_back({row, block, slot});
  plan_.block_rows[static_cast<size_t>(block) * kKeyBlock + static_cast<size_t>(slot)] = row;
}

void PlanBuilder::add_tiles(RowRange rows, int32_t shared_begin, int32_t shared_count) {
  for (int32_t row = rows.begin; row < rows.end; row += tile_rows_) {
    plan_.tiles.push_back({row, std::min(tile_rows_, rows.end - row), shared_begin, shared_count});
  }
}

void PlanBuilder::add_group(RowRange prompt, std::span<const RowRange> completions) {
  const int32_t length = prompt.size();
  const int32_t full = length / kKeyBlock, partial = length % kKeyBlock;
  const auto shared_begin = static_cast<int32_t>(plan_.block_ids.size());
  AttentionUnit unit{prompt.begin, prompt.end, static_cast<int32_t>(plan_.tiles.size()), 0};

  for (int32_t block = 0; block < full; ++block) {
    const int32_t id = new_block();
    plan_.block_ids.push_back(id);
    for (int32_t slot = 0; slot < kKeyBlock; ++slot) place(prompt.begin + block * kKeyBlock + slot, id, slot);
  }
  // A list of own blocks from position full * 64 on: the prompt's remainder, then `rows`.
  const auto add_tail = [&](RowRange rows) {
    const auto tail = static_cast<int32_t>(plan_.block_ids.size());
    const int32_t total = partial + rows.size();
    int32_t id = -1;
    for (int32_t index = 0; index < total; ++index) {
      const int32_t slot = index % kKeyBlock;
      if (slot == 0) plan_.block_ids.push_back(id = new_block());
      place(index < partial ? prompt.begin + full * kKeyBlock + index : rows.begin + index - partial, id, slot);
    }
    if (total % kKeyBlock != 0) plan_.fresh_blocks.push_back(id);
    return tail;
  };

  // A lone completion continues the prompt's own blocks; several get one copy of the partial block each.
  const bool lone = completions.size() == 1;
  const int32_t prompt_tail = add_tail(lone ? completions[0] : RowRange{prompt.end, prompt.end});
  for (int32_t i = 0; i < length; ++i) {
    plan_.row_keys[static_cast<size_t>(prompt.begin + i)] = i + 1;
    plan_.row_tail[static_cast<size_t>(prompt.begin + i)] = prompt_tail;
  }
  add_tiles(prompt, shared_begin, full);
  for (const RowRange rows : completions) {
    if (rows.size() == 0) continue;
    const int32_t tail = lone ? prompt_tail : add_tail(rows);
    for (int32_t i = 0; i < rows.size(); ++i) {
      plan_.row_keys[static_cast<size_t>(rows.begin + i)] = length + i + 1;
      plan_.row_tail[static_cast<size_t>(rows.begin + i)] = tail;
    }
    add_tiles(rows, shared_begin, full);
    if (unit.row_begin == unit.row_end) unit.row_begin = rows.begin;
    unit.row_end = rows.end;
  }
  unit.tile_end = static_cast<int32_t>(plan_.tiles.size());
  plan_.units.push_back(unit);
}

void PlanBuilder::add_continuations(int32_t prompt_length, std::span<const RowRange> completions,
                                    std::vector<Fill>* fills) {
  const int32_t full = prompt_length / kKeyBlock, partial = prompt_length % kKeyBlock;
  const auto shared_begin = static_cast<int32_t>(plan_.block_ids.size());
  for (int32_t page = 0; page < full; ++page) {
    fills->push_back({new_block(), page});
    plan_.block_ids.push_back(fills->back().block);
  }
  for (const RowRange rows : completions) {
    if (rows.size() == 0) continue;
    const auto tail = static_cast<int32_t>(plan_.block_ids.size());
    int32_t id = -1;
    for (int32_t slot = 0; slot < partial + rows.size(); slot += kKeyBlock) {
      plan_.block_ids.push_back(id = new_block());
      if (slot == 0 && partial > 0) fills->push_back({id, full});
    }
    // The prompt's partial page is zero where it holds no row.
    const int32_t total = partial + rows.size();
    if (total % kKeyBlock != 0 && (partial == 0 || total > kKeyBlock)) plan_.fresh_blocks.push_back(id);
    for (int32_t i = 0; i < rows.size(); ++i) {
      const int32_t place_in_tail = partial + i;
      place(rows.begin + i, plan_.block_ids[static_cast<size_t>(tail + place_in_tail / kKeyBlock)],
            place_in_tail % kKeyBlock);
      plan_.row_keys[static_cast<size_t>(rows.begin + i)] = prompt_length + i + 1;
      plan_.row_tail[static_cast<size_t>(rows.begin + i)] = tail;
    }
    add_tiles(rows, shared_begin, full);
  }
}

void PlanBuilder::add_segment(RowRange rows) {
  const auto shared_begin = static_cast<int32_t>(plan_.block_ids.size());
  AttentionUnit unit{rows.begin, rows.end, static_cast<int32_t>(plan_.tiles.size()), 0};
  int32_t id = -1;
  for (int32_t index = 0; index < rows.size(); ++index) {
    if (index % kKeyBlock == 0) plan_.block_ids.push_back(id = new_block());
    place(rows.begin + index, id, index % kKeyBlock);
    plan_.row_keys[static_cast<size_t>(rows.begin + index)] = rows.size();
    plan_.row_tail[static_cast<size_t>(rows.begin + index)] = shared_begin;
  }
  if (rows.size() % kKeyBlock != 0) plan_.fresh_blocks.push_back(id);
  add_tiles(rows, shared_begin, static_cast<int32_t>(plan_.block_ids.size()) - shared_begin);
  unit.tile_end = static_cast<int32_t>(plan_.tiles.size());
  plan_.units.push_back(unit);
}

void PlanBuilder::add_prefill(RowRange rows, std::span<const int32_t> blocks, int32_t first_position) {
  const auto shared_begin = static_cast<int32_t>(plan_.block_ids.size());
  const int32_t end = first_position + rows.size();
  const int32_t used = (end + kKeyBlock - 1) / kKeyBlock;
  plan_.block_ids.insert(plan_.block_ids.end(), blocks.begin(), blocks.begin() + used);
  for (int32_t position = first_position; position < end; ++position) {
    const auto row = static_cast<size_t>(rows.begin + position - first_position);
    plan_.writes.push_back(
        {static_cast<int32_t>(row), blocks[static_cast<size_t>(position / kKeyBlock)], position % kKeyBlock});
    plan_.row_keys[row] = position + 1;
    plan_.row_tail[row] = shared_begin;
  }
  const int32_t last_begin = end / kKeyBlock * kKeyBlock;
  if (end > last_begin && first_position <= last_begin) {
    plan_.fresh_blocks.push_back(blocks[static_cast<size_t>(used - 1)]);
  }
  add_tiles(rows, shared_begin, used);
}

void PlanBuilder::add_decode_rows(int32_t row_begin, std::span<const int32_t> shared, std::span<const DecodeRow> rows) {
  const auto shared_begin = static_cast<int32_t>(plan_.block_ids.size());
  const auto shared_count = static_cast<int32_t>(shared.size());
  plan_.block_ids.insert(plan_.block_ids.end(), shared.begin(), shared.end());
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto row = static_cast<size_t>(row_begin) + i;
    const int32_t position = rows[i].keys - 1, slot = position % kKeyBlock;
    const int32_t block = rows[i].blocks[static_cast<size_t>(position / kKeyBlock - shared_count)];
    plan_.row_tail[row] = static_cast<int32_t>(plan_.block_ids.size());
    plan_.row_keys[row] = rows[i].keys;
    plan_.block_ids.insert(plan_.block_ids.end(), rows[i].blocks.begin(), rows[i].blocks.end());
    if (slot == 0) plan_.fresh_blocks.push_back(block);
    plan_.writes.push_back({static_cast<int32_t>(row), block, slot});
  }
  add_tiles({row_begin, row_begin + static_cast<int32_t>(rows.size())}, shared_begin, shared_count);
}

void PlanBuilder::list_visits() {
  std::vector<std::vector<BlockVisit>> by_block(static_cast<size_t>(plan_.num_blocks));
  const auto add = [&](int32_t block, const BlockVisit& visit) {
    std::vector<BlockVisit>& list = by_block[static_cast<size_t>(block)];
    const bool continues =
        !list.empty() && list.back().row_end == visit.row_begin && list.back().key_begin == visit.key_begin;
    if (continues) {
      list.back().row_end = visit.row_end;
    } else {
      list.push_back(visit);
    }
  };
  for (const QueryTile& tile : plan_.tiles) {
    const int32_t tile_end = tile.row_begin + tile.row_count;
    for (int32_t begin = tile.row_begin, end; begin < tile_end; begin = end) {
      const int32_t tail = plan_.row_tail[static_cast<size_t>(begin)];
      int32_t keys = 0;
      for (end = begin; end < tile_end && plan_.row_tail[static_cast<size_t>(end)] == tail; ++end)
        keys = std::max(keys, plan_.row_keys[static_cast<size_t>(end)]);
      for (int32_t index = 0; index * kKeyBlock < keys; ++index) {
        const int32_t place = index < tile.shared_count ? tile.shared_begin + index : tail + index - tile.shared_count;
        int32_t first = begin;
        while (plan_.row_keys[static_cast<size_t>(first)] <= index * kKeyBlock) ++first;
        add(plan_.block_ids[static_cast<size_t>(place)], {first, end, index * kKeyBlock});
      }
    }
  }
  plan_.visit_begin.push_back(0);
  for (const std::vector<BlockVisit>& list : by_block) {
    plan_.visits.insert(plan_.visits.end(), list.begin(), list.end());
    plan_.visit_begin.push_back(static_cast<int32_t>(plan_.visits.size()));
  }
}

void PlanBuilder::list_slots() {
  plan_.slot_begin.assign(plan_.row_keys.size() + 1, 0);
  for (const KvWrite& write : plan_.writes) ++plan_.slot_begin[static_cast<size_t>(write.row) + 1];
  for (size_t row = 1; row < plan_.slot_begin.size(); ++row) plan_.slot_begin[row] += plan_.slot_begin[row - 1];
  std::vector<int32_t> next(plan_.slot_begin.begin(), plan_.slot_begin.end() - 1);
  plan_.slots.resize(plan_.writes.size());
  for (const KvWrite& write : plan_.writes)
    plan_.slots[static_cast<size_t>(next[static_cast<size_t>(write.row)]++)] = write.block * kKeyBlock + write.slot;
}

// Pages of somebody else's store are never trained on.
OwnedPlan PlanBuilder::finish() && {
  int32_t most = 1;
  for (const int32_t keys : plan_.row_keys) most = std::max(most, keys);
  plan_.most_keys = static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(most)));
  if (plan_.num_blocks > 0) {
    list_visits();
    list_slots();
  }
  return std::move(plan_);
}

OwnedPlan plan_groups(int32_t num_rows, std::span<const RowRange> prompts, std::span<const int32_t> completion_begin,
                      std::span<const RowRange> completions) {
  PlanBuilder builder(num_rows);
  for (size_t group = 0; group < prompts.size(); ++group) {
    const auto begin = static_cast<size_t>(completion_begin[group]);
    builder.add_group(prompts[group],
                      completions.subspan(begin, static_cast<size_t>(completion_begin[group + 1]) - begin));
  }
  return std::move(builder).finish();
}

std::vector<QueryTile> tiles_of_rows(const AttentionPlan& plan, std::span<const int32_t> rows) {
  std::vector<QueryTile> runs;
  for (const QueryTile& tile : std::span(plan.tiles, static_cast<size_t>(plan.num_tiles))) {
    const int32_t end = tile.row_begin + tile.row_count;
    auto row = std::lower_bound(rows.begin(), rows.end(), tile.row_begin);
    while (row != rows.end() && *row < end) {
      QueryTile run{*row, 1, tile.shared_begin, tile.shared_count};
      for (++row; row != rows.end() && *row < end && *row == run.row_begin + run.row_count; ++row) ++run.row_count;
      runs.push_back(run);
    }
  }
  return runs;
}

OwnedPlan plan_segments(std::span<const int32_t> boundaries) {
  PlanBuilder builder(boundaries.empty() ? 0 : boundaries.back());
  for (size_t i = 0; i + 1 < boundaries.size(); ++i) builder.add_segment({boundaries[i], boundaries[i + 1]});
  return std::move(builder).finish();
}

}  // namespace gavel
