// out[M, N] = a b for a weight in panels or its transpose. Rows are packed once and shared; an item is a few panels
// times a chunk of rows whose packed form stays in L2. A transpose is packed once for all rows, a bounded slice of its
// columns at a time: there is never a second copy of a weight.
#include "cpu/gemm.h"

namespace gavel::cpu {
namespace {

constexpr int64_t kAmxBlock = 512;                      // steps: 64 KiB of weight, read from L1 and L2 by every group
constexpr int64_t kNearBytes = int64_t{2} << 20;        // rows packed just before they are used
constexpr int64_t kTransposedBytes = int64_t{8} << 20;  // of a transposed weight at one time
constexpr int64_t kSmallPack = 1 << 14;                 // dwords below which one thread packs

struct Blocks {
  int64_t total, size, count;
  Blocks(int64_t steps, int64_t largest)
      : total(steps),
        size(std::max<int64_t>(16, round_up(divide_up(steps, std::max<int64_t>(1, divide_up(steps, largest))), 16))),
        count(std::max<int64_t>(1, divide_up(steps, size))) {}
  int64_t begin(int64_t block) const { return block * size; }
  int64_t length(int64_t block) const { return std::min(size, total - block * size); }
};

// Groups [group_begin, group_end) of rows, packed; group g begins at packed + (groups.begin(g) - first_row) * steps.
struct PackedRows {
  const uint32_t* data;
  int64_t group_begin, group_end, first_row;
};

// Panels [begin, end) of the right operand, the first at `data`.
struct Panels {
  const uint32_t* data;
  int64_t begin, end;
};

struct Plan {
  const RowProduct& product;
  GemmPath path;
  RowGroups groups;
  Blocks blocks;
  int64_t left_steps, columns, panel_dwords, panels_per_item, groups_per_item;
  int64_t c_row() const { return panels_per_item * kLanes; }
  int64_t c_floats() const { return (blocks.count > 1 ? groups_per_item : 1) * groups.size(0) * c_row(); }
};

void multiply_item(const Plan& plan, const PackedRows& rows, const Panels& panels, int64_t panel, int64_t group_begin,
                   float* c) {
  const RowProduct& product = plan.product;
  const TileScope scope(plan.path, product.rows);
  const int64_t group_end = std::min(group_begin + plan.groups_per_item, rows.group_end);
  const int64_t count = std::min(plan.panels_per_item, panels.end - panel);
  const int64_t columns = std::min(count * kLanes, plan.columns - panel * kLanes);
  Tile tile;
  tile.c_row = plan.c_row();
  tile.panels = static_cast<int>(count);
  tile.b_panel = plan.panel_dwords;
  for (int64_t block = 0; block < plan.blocks.count; ++block) {
    const int64_t step = plan.blocks.begin(block);
    const bool last = block + 1 == plan.blocks.count;
    tile.steps = plan.blocks.length(block);
    tile.resume = block > 0;
    tile.b = panels.data + (panel - panels.begin) * plan.panel_dwords + step * kLanes;
    for (int64_t group = group_begin; group < group_end; ++group) {
      const int64_t row = plan.groups.begin(group);
      tile.rows = plan.groups.size(group);
      tile.fetch = group == group_begin && !product.transposed;
      tile.a = rows.data + (row - rows.first_row) * plan.left_steps + plan.path.left_offset(step, tile.rows);
      tile.a_half = GemmPath::kUnit * plan.left_steps;
      tile.c = plan.blocks.count > 1 ? c + (row - plan.groups.begin(group_begin)) * tile.c_row : c;
      const int valid = static_cast<int>(std::min<int64_t>(tile.rows, product.rows - row));
      if (last) prefetch_tile(product.store, row, valid, panel * kLanes, columns);
      run_tile(plan.path, tile);
      if (last) {
        store_tile(plan.path.isa, product.store, tile.c, tile.c_row, row, valid, panel * kLanes, columns);
      }
    }
  }
}

// Rows of groups [begin, end), packed by all threads.
void pack_groups(Context& context, const Plan& plan, int64_t length, int64_t begin, int64_t end, uint32_t* packed) {
  const RowProduct& product = plan.product;
  const int64_t first = plan.groups.begin(begin);
  const int64_t dwords = (std::min(plan.groups.begin(end), product.rows) - first) * plan.blocks.total;
  const int64_t parts = std::clamp<int64_t>(dwords / kSmallPack, 1, end - begin);
  context.pool->parallel_for(parts, [&](int64_t part, int) {
    for (int64_t g = begin + part * (end - begin) / parts; g < begin + (part + 1) * (end - begin) / parts; ++g) {
      const int64_t row = plan.groups.begin(g);
      pack_matrix_rows(plan.path, product.a, row,
                       static_cast<int>(std::min<int64_t>(plan.groups.size(g), product.rows - row)), length,
                       packed + (row - first) * plan.left_steps);
    }
  });
}

}  // namespace

void multiply_rows(Context& context, DType dtype, const RowProduct& product, const Tiling& tiling) {
  const int64_t length = product.transposed ? product.weight_n : product.weight_k;
  const int64_t steps = chain_steps(length, dtype);
  const int threads = context.pool->threads();
  const GemmPath path(context, dtype);
  Plan plan{product,
            path,
            path.groups(product.rows, tiling.max_rows),
            Blocks(steps, path.amx ? std::min(tiling.chain_block, kAmxBlock) : tiling.chain_block),
            path.left_steps(steps),
            product.transposed ? product.weight_k : product.weight_n,
            0,
            1,
            1};
  if (product.rows == 0 || plan.columns == 0) return;
  const int64_t panels = divide_up(plan.columns, kLanes);
  plan.panel_dwords = product.transposed ? steps * kLanes : chain_steps(round_up(product.weight_k, 2), dtype) * kLanes;
  plan.panels_per_item = tiling.panels > 0 ? tiling.panels : path.panels(plan.groups);
  while (tiling.panels == 0 && plan.panels_per_item > 1 && panels < plan.panels_per_item * threads * 2) {
    --plan.panels_per_item;
  }

  const int64_t max_rows = plan.groups.size(0), group_bytes = std::max<int64_t>(1, plan.left_steps * 4 * max_rows);
  int64_t groups_at_once = std::clamp<int64_t>(tiling.shared_bytes / group_bytes, 1, plan.groups.count);
  // One block of the chain at a time is read by every panel: the rows of an item fit by it, not by the whole chain, and
  // each panel comes from beyond L2 as seldom as may be.
  const int64_t block_bytes = std::max<int64_t>(1, path.left_steps(plan.blocks.size) * 4);
  const int64_t chunk = tiling.row_chunk > 0 ? tiling.row_chunk : kPackedBytes / block_bytes;
  plan.groups_per_item = std::clamp<int64_t>(chunk / max_rows, 1, groups_at_once);
  const int64_t panel_items = divide_up(panels, plan.panels_per_item), enough_items = int64_t{threads} * 3;
  while (tiling.row_chunk == 0 && plan.groups_per_item > 1 &&
         panel_items * divide_up(groups_at_once, plan.groups_per_item) < enough_items) {
    plan.groups_per_item = (plan.groups_per_item + 1) / 2;
  }
  // No more rows are packed ahead than L2 keeps, unless threads would be idle.
  const int64_t near = std::max(kNearBytes / group_bytes, divide_up(enough_items, panel_items) * plan.groups_per_item);
  groups_at_once = divide_up(plan.groups.count, divide_up(plan.groups.count, std::min(groups_at_once, near)));
  // Even chunks: 9 + 9 groups, not 16 + 2.
  plan.groups_per_item = divide_up(groups_at_once, divide_up(groups_at_once, plan.groups_per_item));

  size_t stride = 0;
  uint8_t* const scratch = context.scratch->workers(threads, static_cast<size_t>(plan.c_floats()) * 4, &stride);
  // One row of whole dwords is its own packed form.
  const bool packed_already = product.rows == 1 && !path.amx && (dtype == DType::f32 || length % 2 == 0) &&
                              reinterpret_cast<uintptr_t>(product.a) % 4 == 0;
  const uint32_t* left = static_cast<const uint32_t*>(product.a);
  uint32_t* packed = nullptr;
  if (!packed_already) {
    packed = reinterpret_cast<uint32_t*>(
        context.scratch->shared(0, static_cast<size_t>(groups_at_once * max_rows * plan.left_steps) * 4));
    left = packed;
  }
  // Panels that stay in L2 while all packed rows pass; rows packed in parts pass a longer slice of a transpose, because
  // they are packed again for each.
  const bool rows_at_once = groups_at_once == plan.groups.count;
  const int64_t item_bytes = std::max<int64_t>(1, plan.panel_dwords * 4 * plan.panels_per_item);
  const int64_t near_items = std::max<int64_t>(1, kNearPanelBytes * threads / item_bytes);
  int64_t slice = panels;
  uint32_t* transposed = nullptr;
  if (product.transposed) {
    const int64_t items = rows_at_once ? near_items : kTransposedBytes / item_bytes;
    slice = std::min(std::max(items, enough_items) * plan.panels_per_item, panels);
    transposed =
        reinterpret_cast<uint32_t*>(context.scratch->shared(1, static_cast<size_t>(slice * plan.panel_dwords) * 4));
  }

  if (rows_at_once && !packed_already) pack_groups(context, plan, length, 0, groups_at_once, packed);
  for (int64_t panel = 0; panel < panels; panel += slice) {
    const Panels right{product.transposed ? transposed : static_cast<const uint32_t*>(product.weight), panel,
                       std::min(panel + slice, panels)};
    if (product.transposed) {
      context.pool->parallel_for(right.end - panel, [&](int64_t i, int) {
        pack_transposed(path.isa, dtype, product.weight, product.weight_k, panel + i, 0, steps,
                        transposed + i * plan.panel_dwords);
      });
    }
    const int64_t items = divide_up(right.end - panel, plan.panels_per_item);
    for (int64_t begin = 0; begin < plan.groups.count; begin += groups_at_once) {
      const int64_t end = std::min(begin + groups_at_once, plan.groups.count);
      const int64_t chunks = divide_up(end - begin, plan.groups_per_item);
      if (!rows_at_once) pack_groups(context, plan, length, begin, end, packed);
      const PackedRows rows{left, begin, end, plan.groups.begin(begin)};
      context.pool->parallel_for(chunks * items, [&](int64_t item, int worker) {
        const int64_t first = item / (near_items * chunks) * near_items, count = std::min(near_items, items - first);
        const int64_t place = item - first * chunks;
        multiply_item(plan, rows, right, panel + (first + place % count) * plan.panels_per_item,
                      begin + place / count * plan.groups_per_item,
                      reinterpret_cast<float*>(scratch + static_cast<size_t>(worker) * stride));
      });
    }
  }
}

}  // namespace gavel::cpu
