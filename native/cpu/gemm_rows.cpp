// out[M, N] = a b for a weight in panels or its transpose. Rows are packed once and shared; an item is a few panels
// times a chunk of rows whose packed form stays in L2. The transpose is packed by blocks into a worker's own buffer,
// per item: there is never a second copy of a weight.
#include "cpu/gemm.h"

namespace gavel::cpu {
namespace {

constexpr int64_t kTransposedBlock = 512;  // steps: 128 KiB of transposed weight beside the packed rows in L2
constexpr int64_t kAmxBlock = 512;         // steps: 64 KiB of weight, read from L1 and L2 by every group of rows
constexpr int64_t kTransposedRows = 280;   // rows per item that pay for packing it
constexpr int64_t kSmallPack = 1 << 14;    // dwords below which one thread packs

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

struct Plan {
  const RowProduct& product;
  GemmPath path;
  RowGroups groups;
  Blocks blocks;
  int64_t steps, left_steps, columns, panels, panel_dwords, panels_per_item, groups_per_item;
  int64_t c_row() const { return panels_per_item * kLanes; }
  int64_t c_floats() const { return (blocks.count > 1 ? groups_per_item : 1) * groups.size(0) * c_row(); }
};

void multiply_item(const Plan& plan, const PackedRows& rows, int64_t panel, int64_t group_begin, uint8_t* scratch) {
  const RowProduct& product = plan.product;
  const Isa isa = plan.path.isa;
  const TileScope scope(plan.path, product.rows);
  float* const c = reinterpret_cast<float*>(scratch);
  uint32_t* const transposed = reinterpret_cast<uint32_t*>(scratch) + plan.c_floats();
  const int64_t group_end = std::min(group_begin + plan.groups_per_item, rows.group_end);
  const int64_t count = std::min(plan.panels_per_item, plan.panels - panel);
  const int64_t columns = std::min(count * kLanes, plan.columns - panel * kLanes);
  Tile tile;
  tile.c_row = plan.c_row();
  tile.panels = static_cast<int>(count);
  for (int64_t block = 0; block < plan.blocks.count; ++block) {
    const int64_t step = plan.blocks.begin(block);
    tile.steps = plan.blocks.length(block);
    tile.resume = block > 0;
    if (product.transposed) {
      tile.b = transposed;
      tile.b_panel = plan.blocks.size * kLanes;
      for (int64_t i = 0; i < count; ++i) {
        pack_transposed(isa, plan.path.dtype, product.weight, product.weight_k, panel + i, step, tile.steps,
                        transposed + i * tile.b_panel);
      }
    } else {
      tile.b = static_cast<const uint32_t*>(product.weight) + panel * plan.panel_dwords + step * kLanes;
      tile.b_panel = plan.panel_dwords;
    }
    for (int64_t group = group_begin; group < group_end; ++group) {
      const int64_t row = plan.groups.begin(group);
      tile.rows = plan.groups.size(group);
      tile.a = rows.data + (row - rows.first_row) * plan.left_steps + plan.path.left_offset(step, tile.rows);
      tile.a_half = GemmPath::kUnit * plan.left_steps;
      tile.c = plan.blocks.count > 1 ? c + (row - plan.groups.begin(group_begin)) * tile.c_row : c;
      run_tile(plan.path, tile);
      if (block + 1 == plan.blocks.count) {
        store_tile(isa, product.store, tile.c, tile.c_row, row,
                   static_cast<int>(std::min<int64_t>(tile.rows, product.rows - row)), panel * kLanes, columns);
      }
    }
  }
}

}  // namespace

void multiply_rows(Context& context, DType dtype, const RowProduct& product, const Tiling& tiling) {
  const int64_t length = product.transposed ? product.weight_n : product.weight_k;
  const int64_t steps = chain_steps(length, dtype);
  const int threads = context.pool->threads();
  const GemmPath path(context, dtype);
  const int64_t largest_block = path.amx ? kAmxBlock : product.transposed ? kTransposedBlock : tiling.chain_block;
  Plan plan{product,
            path,
            path.groups(product.rows, tiling.max_rows),
            Blocks(steps, std::min(tiling.chain_block, largest_block)),
            steps,
            path.left_steps(steps),
            product.transposed ? product.weight_k : product.weight_n,
            0,
            0,
            1,
            1};
  if (product.rows == 0 || plan.columns == 0) return;
  plan.panels = divide_up(plan.columns, kLanes);
  plan.panel_dwords = chain_steps(round_up(product.weight_k, 2), dtype) * kLanes;
  plan.panels_per_item = tiling.panels > 0 ? tiling.panels : path.panels(plan.groups);
  // Of a transpose one panel at a time where few rows share its packing.
  if (product.transposed && plan.groups.count == 1) plan.panels_per_item = 1;
  while (tiling.panels == 0 && plan.panels_per_item > 1 && plan.panels < plan.panels_per_item * threads * 2) {
    --plan.panels_per_item;
  }

  const int64_t max_rows = plan.groups.size(0), group_bytes = std::max<int64_t>(1, plan.left_steps * 4 * max_rows);
  const int64_t groups_at_once = std::clamp<int64_t>(tiling.shared_bytes / group_bytes, 1, plan.groups.count);
  // One block of the chain at a time is read by every panel: the rows of an item fit by it, not by the whole chain, and
  // each panel comes from beyond L2 as seldom as may be.
  const int64_t block_bytes = std::max<int64_t>(1, path.left_steps(plan.blocks.size) * 4);
  int64_t chunk = tiling.row_chunk > 0 ? tiling.row_chunk : kPackedBytes / block_bytes;
  if (tiling.row_chunk == 0 && product.transposed) chunk = std::max(chunk, kTransposedRows);
  plan.groups_per_item = std::clamp<int64_t>(chunk / max_rows, 1, groups_at_once);
  const int64_t panel_items = divide_up(plan.panels, plan.panels_per_item);
  while (tiling.row_chunk == 0 && plan.groups_per_item > 1 &&
         panel_items * divide_up(groups_at_once, plan.groups_per_item) < int64_t{threads} * 3) {
    plan.groups_per_item = (plan.groups_per_item + 1) / 2;
  }
  // Even chunks: 9 + 9 groups, not 16 + 2.
  plan.groups_per_item = divide_up(groups_at_once, divide_up(groups_at_once, plan.groups_per_item));

  size_t stride = 0;
  const int64_t transposed_floats = product.transposed ? plan.panels_per_item * plan.blocks.size * kLanes : 0;
  uint8_t* const scratch =
      context.scratch->workers(threads, static_cast<size_t>(plan.c_floats() + transposed_floats) * 4, &stride);
  // One row of whole dwords is its own packed form.
  const bool packed_already = product.rows == 1 && !path.amx && (dtype == DType::f32 || length % 2 == 0) &&
                              reinterpret_cast<uintptr_t>(product.a) % 4 == 0;
  uint32_t* packed = nullptr;
  if (!packed_already) {
    packed = reinterpret_cast<uint32_t*>(
        context.scratch->shared(0, static_cast<size_t>(groups_at_once * max_rows * plan.left_steps) * 4));
  }

  for (int64_t begin = 0; begin < plan.groups.count; begin += groups_at_once) {
    const int64_t end = std::min(begin + groups_at_once, plan.groups.count);
    PackedRows rows{packed_already ? static_cast<const uint32_t*>(product.a) : packed, begin, end,
                    plan.groups.begin(begin)};
    if (!packed_already) {
      const int64_t dwords = (std::min(plan.groups.begin(end), product.rows) - rows.first_row) * steps;
      const int64_t parts = std::clamp<int64_t>(dwords / kSmallPack, 1, end - begin);
      context.pool->parallel_for(parts, [&](int64_t part, int) {
        for (int64_t g = begin + part * (end - begin) / parts; g < begin + (part + 1) * (end - begin) / parts; ++g) {
          const int64_t row = plan.groups.begin(g);
          pack_matrix_rows(path, product.a, row,
                           static_cast<int>(std::min<int64_t>(plan.groups.size(g), product.rows - row)), length,
                           packed + (row - rows.first_row) * plan.left_steps);
        }
      });
    }
    const int64_t chunks = divide_up(end - begin, plan.groups_per_item);
    context.pool->parallel_for(chunks * panel_items, [&](int64_t item, int worker) {
      multiply_item(plan, rows, item % panel_items * plan.panels_per_item,
                    begin + item / panel_items * plan.groups_per_item, scratch + static_cast<size_t>(worker) * stride);
    });
  }
}

}  // namespace gavel::cpu
