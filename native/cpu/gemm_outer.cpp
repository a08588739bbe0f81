// The gradient of a weight: grad[n, k] += sum over rows dy[m, n] x[m, k], written in the weight's packed order. Lanes
// are 32 outputs n, tile rows are k. Every element takes up its chain from memory, so blocks of rows, and
// micro-batches, extend one chain in their order.
#include "cpu/gemm.h"
#include "cpu/vector_math.h"

namespace gavel::cpu {
namespace {

// bf16 order keeps (k, k + 1) side by side: two tile rows of 32 lanes are 32 pairs in memory.
void split_pairs_plain(const float* pairs, float* rows) {
  for (int i = 0; i < kLanes; ++i) {
    rows[i] = pairs[2 * i];
    rows[kLanes + i] = pairs[2 * i + 1];
  }
}

void join_pairs_plain(const float* rows, float* pairs) {
  for (int i = 0; i < kLanes; ++i) {
    pairs[2 * i] = rows[i];
    pairs[2 * i + 1] = rows[kLanes + i];
  }
}

#if defined(__x86_64__)

GAVEL_TARGET_AVX512 void split_pairs_avx512(const float* pairs, float* rows) {
  const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  for (int half = 0; half < 2; ++half) {
    const __m512 low = _mm512_loadu_ps(pairs + half * 32), high = _mm512_loadu_ps(pairs + half * 32 + 16);
    _mm512_storeu_ps(rows + half * 16, _mm512_permutex2var_ps(low, even, high));
    _mm512_storeu_ps(rows + kLanes + half * 16, _mm512_permutex2var_ps(low, odd, high));
  }
}

GAVEL_TARGET_AVX512 void join_pairs_avx512(const float* rows, float* pairs) {
  const __m512i low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
  for (int half = 0; half < 2; ++half) {
    const __m512 even = _mm512_loadu_ps(rows + half * 16), odd = _mm512_loadu_ps(rows + kLanes + half * 16);
    _mm512_storeu_ps(pairs + half * 32, _mm512_permutex2var_ps(even, low, odd));
    _mm512_storeu_ps(pairs + half * 32 + 16, _mm512_permutex2var_ps(even, high, odd));
  }
}

#endif

void outer_item(const GemmPath& path, const OuterProduct& product, const RowGroups& groups, int64_t panel, int panels,
                int64_t group_begin, int64_t group_end) {
  auto split = split_pairs_plain;
  auto join = join_pairs_plain;
#if defined(__x86_64__)
  if (has_avx512(path.isa)) {
    split = split_pairs_avx512;
    join = join_pairs_avx512;
  }
#endif
  alignas(64) float rows[2 * GemmPath::kUnit * kLanes];
  static_assert(2 * GemmPath::kUnit >= 2 * 2 * kHalfRows);
  const int64_t k_even = round_up(product.k_total, 2), left_steps = path.left_steps(product.steps);
  float* const grad = product.grad + panel * k_even * kLanes;
  const TileScope scope(path, path.max_rows());
  Tile tile;
  tile.b = product.dy + panel * product.steps * kLanes;
  tile.b_panel = product.steps * kLanes;
  tile.steps = product.steps;
  tile.c_row = kLanes;
  tile.panels = panels;
  tile.resume = true;
  for (int64_t group = group_begin; group < group_end; ++group) {
    const int64_t k = groups.begin(group);
    float* const to = grad + k * kLanes;
    tile.rows = groups.size(group);
    tile.a = product.x + k * left_steps;
    tile.a_half = GemmPath::kUnit * left_steps;
    if (group + 1 < group_end) {
      const int64_t after = k + tile.rows, lines = 2 * std::min<int64_t>(groups.size(group + 1), k_even - after);
      for (int p = 0; p < panels; ++p) {
        const float* const next = grad + (p * k_even + after) * kLanes;
        for (int64_t line = 0; line < lines; ++line) __builtin_prefetch(next + line * 16, 1, 2);
      }
    }
    if (path.dtype == DType::f32) {
      tile.c = to;
      tile.c_panel = k_even * kLanes;
      run_tile(path, tile);
      continue;
    }
    const int64_t valid = std::min<int64_t>(tile.rows, k_even - k);
    tile.c = rows;
    tile.c_panel = int64_t{tile.rows} * kLanes;
    for (int p = 0; p < panels; ++p) {
      float* const part = rows + p * tile.c_panel;
      for (int64_t r = 0; r < valid; r += 2) split(to + (p * k_even + r) * kLanes, part + r * kLanes);
      std::fill(part + valid * kLanes, part + tile.c_panel, 0.0f);
    }
    run_tile(path, tile);
    for (int p = 0; p < panels; ++p) {
      const float* const part = rows + p * tile.c_panel;
      for (int64_t r = 0; r < valid; r += 2) join(part + r * kLanes, to + (p * k_even + r) * kLanes);
    }
  }
}

}  // namespace

RowGroups outer_groups(const GemmPath& path, int64_t k_total) {
  if (path.amx) return path.groups(k_total);
  return RowGroups(k_total, path.dtype == DType::bf16 ? 2 : 1, k_total > kTileRows ? 2 * kHalfRows : kTileRows);
}

int64_t outer_dwords(const GemmPath& path, int64_t k_total, int64_t rows) {
  return path.padded_rows(round_up(k_total, 2)) * path.left_steps(chain_steps(rows, path.dtype));
}

void pack_outer_x(const GemmPath& path, const void* x, int64_t rows, int64_t k_total, int64_t group_begin,
                  int64_t group_end, uint32_t* dst) {
  const DType dtype = path.dtype;
  const RowGroups groups = outer_groups(path, k_total);
  const int64_t steps = chain_steps(rows, dtype), left_steps = path.left_steps(steps);
  // 128 rows at a time: the narrow columns of one group leave their cache lines to the next.
  constexpr int64_t kBand = 128;
  for (int64_t row = 0; row < rows; row += kBand) {
    const void* band = static_cast<const uint8_t*>(x) + static_cast<size_t>(row * k_total) * dtype_size(dtype);
    for (int64_t group = group_begin; group < group_end; ++group) {
      const int64_t k = groups.begin(group);
      const int width = groups.size(group);
      if (path.amx) {
        for (int64_t half = 0; half < width; half += GemmPath::kUnit) {
          pack_columns_amx(band, k_total, std::min(kBand, rows - row), k + half,
                           static_cast<int>(std::clamp<int64_t>(k_total - k - half, 0, GemmPath::kUnit)),
                           dst + (k + half) * left_steps + row / 2 * GemmPath::kUnit);
        }
        continue;
      }
      pack_columns(path.isa, dtype, band, k_total, std::min(kBand, rows - row), k,
                   static_cast<int>(std::min<int64_t>(width, k_total - k)), width,
                   dst + k * steps + chain_steps(row, dtype) * width);
    }
  }
}

void accumulate_outer(Context& context, const GemmPath& path, const OuterProduct& product) {
  const RowGroups groups = outer_groups(path, product.k_total);
  if (product.steps == 0 || groups.count == 0) return;
  const int64_t group_bytes = product.steps * 4 * path.max_rows();
  int64_t chunk = std::clamp<int64_t>(kPackedBytes / group_bytes, 1, groups.count);
  int64_t at_once = path.amx || groups.count == 1 ? 1 : 2;
  const int64_t items = int64_t{context.pool->threads()} * 3;
  while (chunk > 1 && divide_up(groups.count, chunk) * divide_up(product.panels, at_once) < items) {
    chunk = (chunk + 1) / 2;
  }
  const int64_t chunks = divide_up(groups.count, chunk);
  if (chunks * divide_up(product.panels, at_once) < items) at_once = 1;
  const int64_t columns = divide_up(product.panels, at_once);
  // Panels of dy that stay in L2 while all of x passes.
  const int64_t near =
      std::max<int64_t>(1, kNearPanelBytes * context.pool->threads() / (product.steps * kLanes * 4 * at_once));
  context.pool->parallel_for(chunks * columns, [&](int64_t item, int) {
    const int64_t first = item / (near * chunks) * near, count = std::min(near, columns - first);
    const int64_t place = item - first * chunks, part = place / count, panel = (first + place % count) * at_once;
    outer_item(path, product, groups, panel, static_cast<int>(std::min(at_once, product.panels - panel)),
               groups.cut(part, chunks), groups.cut(part + 1, chunks));
  });
}

}  // namespace gavel::cpu
