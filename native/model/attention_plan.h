// Builds AttentionPlans: which blocks hold which rows' keys, and which rows attend to them together. Packs of groups
// (training, scoring), full segments (vision) and steps over a paged store (prefill, decoding) come from one builder,
// so that all of them put position p of a sequence into slot p % 64 of its block p / 64: the grid that makes rows
// bit-equal.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "ops/attention.h"

namespace gavel {

struct RowRange {
  int32_t begin = 0, end = 0;
  int32_t size() const { return end - begin; }
};

// A plan and the memory it points into. view() stays valid until the vectors change or the OwnedPlan dies; moving keeps
// it.
struct OwnedPlan {
  int32_t num_blocks = 0;  // of the transient store; 0 when every block is a page of somebody else's store
  int32_t most_keys = 0;   // that a row sees, to a power of two: a decode step is seldom another call
  std::vector<int32_t> fresh_blocks, block_ids, row_keys, row_tail, block_rows;
  std::vector<KvCopy> copies;
  std::vector<KvWrite> writes;
  std::vector<QueryTile> tiles;
  std::vector<AttentionUnit> units;
  std::vector<BlockVisit> visits;
  std::vector<int32_t> visit_begin, slots, slot_begin;

  AttentionPlan view() const;
  // Of pages alone: adds entries without effect, so that steps of up to `rows` rows have few different sizes.
  void pad(int32_t rows);
  // Elements (of the activations' dtype) of the transient store, for one layer.
  int64_t store_elements(int32_t kv_heads, int32_t head_dim) const {
    return int64_t{num_blocks} * kv_heads * 2 * kKeyBlock * head_dim;
  }
};

// One decoding row: it stands at position keys - 1 of its sequence, and its own blocks follow the shared ones.
struct DecodeRow {
  std::span<const int32_t> blocks;  // pages from block `shared.size()` on; must reach position keys - 1
  int32_t keys = 0;                 // keys the row sees, itself included
};

class PlanBuilder {
 public:
  explicit PlanBuilder(int32_t num_rows, int32_t tile_rows = 32);

  // A causal group of a pack: prompt rows, then the rows of each completion, all consecutive (empty ranges are
  // allowed). Full prompt blocks are shared; the last partial one is written again into each completion's first block.
  void add_group(RowRange prompt, std::span<const RowRange> completions);

  // As add_group for a prompt whose keys and values are kept elsewhere: only the completions have rows. The blocks that
  // must hold pages of the prompt before attention runs are appended to `fills`.
  struct Fill {
    int32_t block, page;
  };
  void add_continuations(int32_t prompt_length, std::span<const RowRange> completions, std::vector<Fill>* fills);

  // Rows that all see one another: an image or a window of one.
  void add_segment(RowRange rows);

  // Rows [rows.begin, rows.end) are positions first_position.. of a sequence whose pages are `blocks` (from position 0
  // on). Earlier positions must be in the store already. Opens (zeroes) the last page when this chunk begins it.
  void add_prefill(RowRange rows, std::span<const int32_t> blocks, int32_t first_position = 0);

  // Rows row_begin.. decode one token each; every row's list is `shared` (full blocks) and then its own. A page is
  // zeroed when its first slot is written; give a partial prompt block to a row with add_copy before.
  void add_decode_rows(int32_t row_begin, std::span<const int32_t> shared, std::span<const DecodeRow> rows);
  void add_copy(int32_t from, int32_t to) { plan_.copies.push_back({from, to}); }

  OwnedPlan finish() &&;

 private:
  int32_t new_block();
  void place(int32_t row, int32_t block, int32_t slot);
  void add_tiles(RowRange rows, int32_t shared_begin, int32_t shared_count);
  void list_visits();
  void list_slots();

  int32_t tile_rows_;
  OwnedPlan plan_;
};

// Groups in CSR form: group g has the prompt prompts[g] and completions[completion_begin[g] .. completion_begin[g +
// 1]).
OwnedPlan plan_groups(int32_t num_rows, std::span<const RowRange> prompts, std::span<const int32_t> completion_begin,
                      std::span<const RowRange> completions);

// The runs of `rows` (ascending) in the plan's tiles: what a pass without a gradient needs to attend for them alone.
std::vector<QueryTile> tiles_of_rows(const AttentionPlan& plan, std::span<const int32_t> rows);

// Full segments [boundaries[i], boundaries[i + 1]): images or windows (the cu_seqlens of Hugging Face's vision towers).
OwnedPlan plan_segments(std::span<const int32_t> boundaries);

}  // namespace gavel
