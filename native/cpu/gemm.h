// The pieces of every matrix product: packed operands, the micro kernel, and the store of a finished tile.
// A chain step is one dword per operand: one fp32, or a pair of bf16 of which the odd element is added first. The left
// operand is packed by row groups, the right one lies in panels, [panel][step][32 lanes].
// Tile height, panels, blocks of the chain and dealing change no bit: an element is one chain that may be stored in
// fp32 and taken up again, never two sums added. Threads: everything here runs with flush-to-zero set, inside
// parallel_for.
#pragma once
#include <algorithm>
#include <cstdint>

#include "core/context.h"
#include "core/tensor.h"

namespace gavel::cpu {

inline constexpr int kTileRows = 14;   // 14 x 32 lanes: 28 accumulators, 2 weights, 1 broadcast of 32 registers
inline constexpr int kHalfRows = 6;    // 6 x 64 lanes: 24 accumulators, 4 weights, 1 broadcast; fewer loads a product
inline constexpr int kTilePanels = 4;  // only where rows * panels <= 14 or so, see panels_for_rows
inline constexpr int kLanes = static_cast<int>(kPanel);
inline constexpr int64_t kPackedBytes = int64_t{448} << 10;   // packed rows that stay in L2 while panels stream by
inline constexpr int64_t kNearPanelBytes = int64_t{1} << 20;  // panels of a thread that stay in L2 while all rows pass
inline constexpr int64_t kSharedBytes = int64_t{16} << 20;    // packed operands that exist at one time

constexpr int64_t chain_steps(int64_t length, DType dtype) { return dtype == DType::bf16 ? (length + 1) / 2 : length; }
constexpr int64_t divide_up(int64_t value, int64_t by) { return (value + by - 1) / by; }

// `total` rows cut into balanced groups of at most `max_rows`, each a multiple of `unit` (the last row may be padding).
struct RowGroups {
  int64_t units, count, unit;

  explicit RowGroups(int64_t total, int64_t unit_rows = 1, int64_t max_rows = kTileRows)
      : units(divide_up(total, unit_rows)), count(divide_up(units, max_rows / unit_rows)), unit(unit_rows) {}
  int64_t begin(int64_t group) const {
    return count == 0 ? 0 : (group * (units / count) + std::min(group, units % count)) * unit;
  }
  int size(int64_t group) const { return static_cast<int>(begin(group + 1) - begin(group)); }
  // First group that begins at or after the even cut `part` of `parts`.
  int64_t cut(int64_t part, int64_t parts) const { return part * count / parts; }
};

// Which micro kernel a product uses, and the form it wants the left operand in:
//   vector: [group][step][rows of the group], groups of up to 14 rows; up to 12 where there are several, computed by
//   halves of 6 rows and two panels.
//   AMX:    [16 rows][16 steps] dwords at a time, zero-filled, groups of up to 2 x 16 rows. A block of 16 steps adds
//   the odd
//           and the even products in two chains, their sum is added to the accumulator (tdpbf16ps); blocks start at
//           step 0.
struct GemmPath {
  static constexpr int64_t kUnit = 16;  // rows and steps of an AMX tile
  Isa isa = Isa::generic;
  DType dtype = DType::f32;
  bool amx = false;

  GemmPath(const Context& context, DType dtype_)
      : isa(context.isa), dtype(dtype_), amx(context.amx && dtype_ == DType::bf16) {}
  // Dwords that a packed row of `steps` takes; group g begins at groups.begin(g) * left_steps.
  int64_t left_steps(int64_t steps) const { return amx ? round_up(steps, kUnit) : steps; }
  // Rows that groups cover, padding included.
  int64_t padded_rows(int64_t rows) const { return amx ? round_up(rows, kUnit) : rows; }
  int max_rows() const { return amx ? 2 * static_cast<int>(kUnit) : kTileRows; }
  // Panels that one tile of a group takes.
  int panels(const RowGroups& groups) const;
  RowGroups groups(int64_t rows, int limit = kTileRows) const {
    if (amx) return RowGroups(rows, kUnit, limit < kUnit / 2 ? kUnit : 2 * kUnit);
    return RowGroups(rows, 1, rows > kTileRows ? std::min(limit, 2 * kHalfRows) : limit);
  }
  // Where step `step` of a packed group of `rows` rows begins. AMX: a multiple of 16.
  int64_t left_offset(int64_t step, int64_t rows) const { return step * (amx ? kUnit : rows); }
};

// How many panels one kernel of `rows` rows takes: enough independent chains to hide the latency of an addition.
constexpr int panels_for_rows(int64_t rows) {
  if (rows <= 3) return 4;
  if (rows == 4) return 3;
  return rows <= kHalfRows ? 2 : 1;
}

inline int GemmPath::panels(const RowGroups& groups) const {
  const int rows = groups.size(0);
  if (amx) return rows <= kUnit ? 2 : 1;
  // The halves of a lone group would read the weight twice.
  return groups.count > 1 && rows > kHalfRows && rows <= 2 * kHalfRows ? 2 : panels_for_rows(rows);
}

// AMX tile state of the calling thread, for products of `rows` rows in all; does nothing on other paths. One per item.
class TileScope {
 public:
  TileScope(const GemmPath& path, int64_t rows);
  ~TileScope();
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;

 private:
  bool amx_;
};

// One call of the micro kernel: c[panel][row][lane] (+)= sum over steps of a[step][row] * b[panel][step][lane].
struct Tile {
  const uint32_t* a = nullptr;  // packed rows of a group from the first step on
  int64_t a_half = 0;           // AMX: from the first 16 rows to the next
  const uint32_t* b = nullptr;  // panel p begins at b + p * b_panel
  float* c = nullptr;           // row r of panel p begins at c + p * c_panel + r * c_row; its 32 lanes are contiguous
  int64_t steps = 0, b_panel = 0, c_row = 0, c_panel = kLanes;
  int rows = 1, panels = 1;
  bool resume = false;  // take the chain up from c instead of +0
  bool fetch = false;   // b comes from memory: the first rows that read it
};

// The only place that chooses an instruction set for products. rows <= path.max_rows(), panels <= path.panels(groups).
void run_tile(const GemmPath& path, const Tile& tile);
// The path of machines without vector instructions known here; run_tile's bits.
void run_tile_plain(DType dtype, const Tile& tile);
// tdpbf16ps tiles; c needs all padded rows, except that fewer than 16 rows in all are exactly those of TileScope.
void run_tile_amx(const Tile& tile);

// Where finished chains go: + bias, then + residual (or + what is there), then one rounding.
struct TileStore {
  void* out = nullptr;  // [rows, columns] row-major, of `dtype`
  const void* residual = nullptr;
  const void* bias = nullptr;
  DType dtype = DType::f32, bias_dtype = DType::f32;
  int64_t columns = 0;  // row stride of out and residual
};
// Rows [row, row + rows) and columns [column, column + count) from c[rows][c_row].
void store_tile(Isa isa, const TileStore& store, const float* c, int64_t c_row, int64_t row, int rows, int64_t column,
                int64_t count);

// Asks for the lines that store_tile will write, while the tile is computed.
inline void prefetch_tile(const TileStore& store, int64_t row, int rows, int64_t column, int64_t count) {
  const auto size = static_cast<int64_t>(dtype_size(store.dtype));
  const char* line = static_cast<const char*>(store.out) + (row * store.columns + column) * size;
  for (int r = 0; r < rows; ++r, line += store.columns * size) {
    for (int64_t at = 0; at < count * size; at += 64) __builtin_prefetch(line + at, 1, 2);
  }
}

// A group of `count` rows (without padding) of `length` elements; an odd bf16 length is filled with zero.
void pack_rows(const GemmPath& path, const void* const* rows, int count, int64_t length, uint32_t* dst);
// The same for rows [first, first + count) of a row-major matrix with `length` columns.
void pack_matrix_rows(const GemmPath& path, const void* matrix, int64_t first, int count, int64_t length,
                      uint32_t* dst);
// dst[step over rows][width] from columns [column, column + count) of `rows` rows of a row-major matrix; lanes from
// count to width, and the partner of an odd last row, are zero.
void pack_columns(Isa isa, DType dtype, const void* matrix, int64_t stride, int64_t rows, int64_t column, int count,
                  int width, uint32_t* dst);
// 16 columns from `column` on (those past `count` zero) as 16 rows of an AMX left operand whose steps are pairs of
// rows.
void pack_columns_amx(const void* matrix, int64_t stride, int64_t rows, int64_t column, int count, uint32_t* dst);
// dst[step over n][32 lanes of k] from a weight [n_total, k_total] in panels: its transpose, k panel `k_panel`, steps
// [step, step + steps). step is a multiple of 16.
void pack_transposed(Isa isa, DType dtype, const void* weight, int64_t k_total, int64_t k_panel, int64_t step,
                     int64_t steps, uint32_t* dst);
// sums[i] += column i of `rows` rows, rows ascending: one chain per column.
void add_column_sums(Isa isa, DType dtype, const void* matrix, int64_t stride, int64_t rows, int64_t column, int count,
                     float* sums);

// Widths of the blocks that a linear product is cut into. Any positive values give the same bits; tests draw them at
// random.
struct Tiling {
  int max_rows = kTileRows;  // AMX: 16 rows below 8, else 32
  int panels = 0;            // 0: as many as the path takes
  int64_t row_chunk = 0;     // rows per item, 0: what fits kPackedBytes
  int64_t chain_block = 768;
  int64_t shared_bytes = kSharedBytes;
};

// out[M, N] = a[M, chain] b, where b is a weight in panels (transposed = false: N = weight rows, the forward) or its
// transpose (N = weight columns: the gradient of the input).
struct RowProduct {
  const void* a = nullptr;  // row-major
  const void* weight = nullptr;
  int64_t rows = 0, weight_n = 0, weight_k = 0;
  bool transposed = false;
  TileStore store;
};
void multiply_rows(Context& context, DType dtype, const RowProduct& product, const Tiling& tiling = {});

// grad[n, k] += sum over rows m of dy[m, n] x[m, k] for panels of n, in the weight's packed order. Both operands
// packed: x as left operand by outer_groups of k, dy by panels; the chains are taken up from `grad`.
struct OuterProduct {
  const uint32_t* x = nullptr;   // groups of k, chains over rows
  const uint32_t* dy = nullptr;  // [panels][steps][32]
  int64_t steps = 0, panels = 0, k_total = 0;
  float* grad = nullptr;  // of the first panel
};
RowGroups outer_groups(const GemmPath& path, int64_t k_total);
// Dwords of the packed x.
int64_t outer_dwords(const GemmPath& path, int64_t k_total, int64_t rows);
// dst for columns of groups [group_begin, group_end) of a row-major [rows, k_total]; dst is the whole packed operand.
void pack_outer_x(const GemmPath& path, const void* x, int64_t rows, int64_t k_total, int64_t group_begin,
                  int64_t group_end, uint32_t* dst);
void accumulate_outer(Context& context, const GemmPath& path, const OuterProduct& product);

}  // namespace gavel::cpu
