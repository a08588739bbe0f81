#include "model/attention_plan.h"

#include <array>
#include <map>
#include <vector>

#include "test/attention_case.h"

namespace gavel::test {
namespace {

using List = std::vector<int32_t>;

// The rows a row attends to, read off the plan as a kernel would.
List visible_rows(const OwnedPlan& plan, const QueryTile& tile, int32_t row) {
  List rows;
  for (int32_t key = 0; key < plan.row_keys[static_cast<size_t>(row)]; ++key) {
    const int32_t block = key / kKeyBlock;
    const auto at = static_cast<size_t>(block < tile.shared_count
                                            ? tile.shared_begin + block
                                            : plan.row_tail[static_cast<size_t>(row)] + block - tile.shared_count);
    const auto id = static_cast<size_t>(plan.block_ids[at]);
    rows.push_back(plan.block_rows[id * kKeyBlock + static_cast<size_t>(key % kKeyBlock)]);
  }
  return rows;
}

List range(int32_t begin, int32_t end) {
  List list;
  for (int32_t i = begin; i < end; ++i) list.push_back(i);
  return list;
}

}  // namespace

TEST("attention plan: every row of a group sees its prompt and its own completion up to itself") {
  for (int32_t prompt : {0, 1, 63, 64, 65, 130}) {
    for (const List& lengths : std::vector<List>{{}, {1}, {70}, {3, 64, 1}, {0, 5, 0, 130}}) {
      const OwnedPlan plan = plan_of({{3, {2}}, {prompt, lengths}}, 16);
      const int32_t begin = 5;
      List seen(plan.row_keys.size(), 0);
      for (const QueryTile& tile : plan.tiles) {
        CHECK(tile.row_count >= 1 && tile.row_count <= 16);
        for (int32_t row = tile.row_begin; row < tile.row_begin + tile.row_count; ++row) {
          ++seen.at(static_cast<size_t>(row));
          if (row < begin) continue;
          int32_t first = begin + prompt;  // of the completion that holds the row
          for (int32_t length : lengths) {
            if (row < first + length) break;
            first += length;
          }
          List expected = range(begin, std::min(row + 1, begin + prompt));
          for (int32_t i = first; i <= row; ++i) expected.push_back(i);
          CHECK(visible_rows(plan, tile, row) == expected);
        }
      }
      CHECK(seen == List(seen.size(), 1));
      CHECK_EQ(plan.units.size(), size_t{2});
      CHECK_EQ(plan.units[1].tile_end, static_cast<int32_t>(plan.tiles.size()));
      CHECK_EQ(plan.units[1].row_end, static_cast<int32_t>(plan.row_keys.size()));
    }
  }
}

TEST("attention plan: blocks with a free slot, and only those, are zeroed; full prompt blocks exist once") {
  const OwnedPlan plan = plan_of({{130, {3, 62, 70}}});
  List fresh(static_cast<size_t>(plan.num_blocks), 0);
  for (int32_t block : plan.fresh_blocks) ++fresh[static_cast<size_t>(block)];
  for (int32_t block = 0; block < plan.num_blocks; ++block) {
    int32_t free = 0;
    for (int32_t slot = 0; slot < kKeyBlock; ++slot) {
      free += plan.block_rows[static_cast<size_t>(block * kKeyBlock + slot)] < 0;
    }
    CHECK_EQ(fresh[static_cast<size_t>(block)], free > 0 ? 1 : 0);
  }
  // Two full prompt blocks, the prompt's remainder, and 2 + 3, 2 + 62, 2 + 70 keys of the completions.
  CHECK_EQ(plan.num_blocks, 2 + 1 + 1 + 1 + 2);
  CHECK_EQ(static_cast<int32_t>(plan.writes.size()), 130 + 135 + 3 * 2);
}

TEST("attention plan: CSR groups equal groups added one by one") {
  const RowRange prompts[] = {{0, 70}, {80, 90}}, completions[] = {{70, 75}, {75, 80}, {90, 99}};
  const int32_t begin[] = {0, 2, 3};
  const OwnedPlan plan = plan_groups(99, prompts, begin, completions), other = plan_of({{70, {5, 5}}, {10, {9}}});
  CHECK(plan.block_ids == other.block_ids && plan.row_keys == other.row_keys && plan.row_tail == other.row_tail);
  CHECK(plan.block_rows == other.block_rows && plan.tiles.size() == other.tiles.size());
}

TEST("attention plan: segments see themselves whole") {
  const int32_t boundaries[] = {0, 16, 16, 150};
  const OwnedPlan plan = plan_segments(boundaries);
  for (const QueryTile& tile : plan.tiles) {
    for (int32_t row = tile.row_begin; row < tile.row_begin + tile.row_count; ++row) {
      CHECK(visible_rows(plan, tile, row) == (row < 16 ? range(0, 16) : range(16, 150)));
    }
  }
  CHECK_EQ(plan.units.size(), size_t{3});
}

TEST("attention plan: pages are opened once, when their first slot is written") {
  const List pages = {9, 4, 7};
  for (int32_t chunk : {1, 10, 63, 64, 65, 150}) {
    std::map<int32_t, int32_t> opened;
    std::map<std::pair<int32_t, int32_t>, int32_t> written;
    for (int32_t done = 0; done < 150; done += chunk) {
      const int32_t count = std::min(chunk, 150 - done);
      PlanBuilder builder(count);
      builder.add_prefill({0, count}, pages, done);
      const OwnedPlan plan = std::move(builder).finish();
      for (int32_t page : plan.fresh_blocks) ++opened[page];
      for (const KvWrite& write : plan.writes) ++written[{write.block, write.slot}];
    }
    CHECK_EQ(written.size(), size_t{150});
    // The last page has free slots; a full one needs no zeroing unless a chunk ended within it.
    CHECK_EQ(opened[7], 1);
    for (const auto& [page, count] : opened) CHECK(count <= 1);
  }
  PlanBuilder builder(2);
  const List shared = {3}, first = {5, 6}, second = {8};
  const DecodeRow rows[] = {{first, 129}, {second, 100}};
  builder.add_decode_rows(0, shared, rows);
  const OwnedPlan plan = std::move(builder).finish();
  CHECK(plan.fresh_blocks == List{6});
  CHECK_EQ(plan.writes[0].block, 6);
  CHECK_EQ(plan.writes[0].slot, 0);
  CHECK_EQ(plan.writes[1].block, 8);
  CHECK_EQ(plan.writes[1].slot, 35);
  CHECK(plan.row_keys == (List{129, 100}));
}

TEST("attention plan: visits and slots are the tiles' and writes' relations from the keys' side") {
  const RowRange completions[] = {{70, 75}, {75, 145}, {145, 146}};
  PlanBuilder builder(200, 32);
  builder.add_group({0, 70}, completions);
  builder.add_segment({146, 200});
  const OwnedPlan plan = std::move(builder).finish();
  std::map<std::array<int32_t, 3>, int32_t> seen, visited;  // row, block, first key
  for (const QueryTile& tile : plan.tiles) {
    for (int32_t row = tile.row_begin; row < tile.row_begin + tile.row_count; ++row) {
      const auto at = static_cast<size_t>(row);
      for (int32_t index = 0; index * kKeyBlock < plan.row_keys[at]; ++index) {
        const int32_t place =
            index < tile.shared_count ? tile.shared_begin + index : plan.row_tail[at] + index - tile.shared_count;
        ++seen[{row, plan.block_ids[static_cast<size_t>(place)], index * kKeyBlock}];
      }
    }
  }
  for (int32_t block = 0; block < plan.num_blocks; ++block) {
    const auto at = static_cast<size_t>(block);
    for (int32_t i = plan.visit_begin[at]; i < plan.visit_begin[at + 1]; ++i) {
      const BlockVisit& visit = plan.visits[static_cast<size_t>(i)];
      for (int32_t row = visit.row_begin; row < visit.row_end; ++row) {
        if (plan.row_keys[static_cast<size_t>(row)] > visit.key_begin) ++visited[{row, block, visit.key_begin}];
      }
    }
  }
  CHECK(seen == visited);
  size_t slots = 0;
  for (size_t row = 0; row + 1 < plan.slot_begin.size(); ++row) {
    for (int32_t i = plan.slot_begin[row]; i < plan.slot_begin[row + 1]; ++i, ++slots)
      CHECK_EQ(plan.block_rows[static_cast<size_t>(plan.slots[static_cast<size_t>(i)])], static_cast<int32_t>(row));
  }
  CHECK_EQ(slots, plan.writes.size());
}

TEST("attention plan: tiles of some rows are their runs, with what those share") {
  const RowRange completions[] = {{70, 75}, {75, 145}};
  PlanBuilder builder(145, 32);
  builder.add_group({0, 70}, completions);
  const OwnedPlan plan = std::move(builder).finish();
  const List rows{69, 71, 72, 74, 75, 106, 107, 144};
  List found, sizes;
  for (const QueryTile& tile : tiles_of_rows(plan.view(), rows)) {
    sizes.push_back(tile.row_count);
    CHECK_EQ(tile.shared_count, 1);
    for (int32_t row = 0; row < tile.row_count; ++row) found.push_back(tile.row_begin + row);
  }
  CHECK(found == rows);
  // A tile ends at 75, another at 107.
  CHECK(sizes == (List{1, 2, 1, 1, 1, 1, 1}));
  CHECK(tiles_of_rows(plan.view(), {}).empty());
}

}  // namespace gavel::test
