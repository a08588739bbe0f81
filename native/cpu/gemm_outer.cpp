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

void outer_item(const GemmPath& path, const OuterProduct& product, const RowGroups& groups, int64_t panel,
                int64_t group_begin, int64_t group_end) {
  auto split = split_pairs_plain;
  auto join = join_pairs_plain;
#if defined(__x86_64__)
  if (path.isa == Isa::avx512_bf16) {
    split = split_pairs_avx512;
    join = join_pairs_avx512;
  }
#endif
  alignas(64) float rows[2 * GemmPath::kUnit * kLanes];
  const int64_t k_even = round_up(product.k_total, 2), left_steps = path.left_steps(product.steps);
  float* const grad = product.grad + panel * k_even * kLanes;
  const TileScope scope(path, path.max_rows());
  Tile tile;
  tile.b = product.dy + panel * product.steps * kLanes;
  tile.steps = product.steps;
  tile.c_row = kLanes;
  tile.resume = true;
  for (int64_t group = group_begin; group < group_end; ++group) {
    const int64_t k = groups.begin(group);
    float* const to = grad + k * kLanes;
    tile.rows = groups.size(group);
    tile.a = product.x + k * left_steps;
    tile.a_half = GemmPath::kUnit * left_steps;
    if (path.dtype == DType::f32) {
      tile.c = to;
      run_tile(path, tile);
      continue;
    }
    const int64_t valid = std::min<int64_t>(tile.rows, k_even - k);
    for (int64_t r = 0; r < valid; r += 2) split(to + r * kLanes, rows + r * kLanes);
    std::fill(rows + valid * kLanes, rows + tile.rows * kLanes, 0.0f);
    tile.c = rows;
    run_tile(path, tile);
    for (int64_t r = 0; r < valid; r += 2) join(rows + r * kLanes, to + r * kLanes);
  }
}

}  // namespace

RowGroups outer_groups(const GemmPath& path, int64_t k_total) {
  return path.amx ? path.groups(k_total) : RowGroups(k_total, path.dtype == DType::bf16 ? 2 : 1);
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
  while (chunk > 1 && divide_up(groups.count, chunk) * product.panels < int64_t{context.pool->threads()} * 3) {
    chunk = (chunk + 1) / 2;
  }
  const int64_t chunks = divide_up(groups.count, chunk);
  context.pool->parallel_for(chunks * product.panels, [&](int64_t item, int) {
    const int64_t part = item / product.panels;
    outer_item(path, product, groups, item % product.panels, groups.cut(part, chunks), groups.cut(part + 1, chunks));
  });
}

}  // namespace gavel::cpu
