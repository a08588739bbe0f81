// The AMX micro kernel: four tdpbf16ps accumulators of 16 x 16, either 2 x 16 rows of one panel or 16 rows of two
// panels. Every block of 16 steps is one instruction per accumulator: odd and even products in two fma chains from +0,
// their sum added to the accumulator, flushed to zero, whatever MXCSR says.
#include <cstring>

#include "cpu/amx_tiles.h"
#include "cpu/gemm.h"

namespace gavel::cpu {

#if defined(__x86_64__)

namespace {

constexpr int64_t kStride = kLanes * 4;  // bytes from step to step of a panel
constexpr int64_t kBlock = GemmPath::kUnit;
constexpr int64_t kBlockDwords = kBlock * kBlock;

// Tile loads that miss wait line by line.
GAVEL_INLINE void prefetch_block(const uint32_t* block) {
  for (int64_t line = 0; line < kBlock * kLanes; line += 16) __builtin_prefetch(block + line);
}

// tmm0-3: accumulators, 4-5: rows, 6-7: lanes.
GAVEL_TARGET_AMX void tile_two_by_two(const Tile& tile, const uint32_t* tail) {
  const int64_t c_bytes = tile.c_row * 4;
  float* const c = tile.c;
  float* const c_next = c + kBlock * tile.c_row;
  memory_barrier();
  if (tile.resume) {
    _tile_loadd(0, c, c_bytes);
    _tile_loadd(1, c + 16, c_bytes);
    _tile_loadd(2, c_next, c_bytes);
    _tile_loadd(3, c_next + 16, c_bytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const uint32_t* a = tile.a;
  const uint32_t* b = tile.b;
  for (int64_t block = 0; block < divide_up(tile.steps, kBlock); ++block) {
    if (tail != nullptr && (block + 1) * kBlock > tile.steps) b = tail;
    if (tile.fetch) prefetch_block(b + kBlock * kLanes);
    _tile_loadd(6, b, kStride);
    _tile_loadd(4, a, 64);
    _tile_loadd(7, b + 16, kStride);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, a + tile.a_half, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    a += kBlockDwords;
    b += kBlock * kLanes;
  }
  _tile_stored(0, c, c_bytes);
  _tile_stored(1, c + 16, c_bytes);
  _tile_stored(2, c_next, c_bytes);
  _tile_stored(3, c_next + 16, c_bytes);
  memory_barrier();
}

// tmm0-3: accumulators, 4: rows, 6-7: lanes, one panel after the other.
GAVEL_TARGET_AMX void tile_one_row(const Tile& tile, const uint32_t* tail) {
  const int64_t c_bytes = tile.c_row * 4;
  float* const c = tile.c;
  const bool two = tile.panels == 2;
  memory_barrier();
  if (tile.resume) {
    _tile_loadd(0, c, c_bytes);
    _tile_loadd(1, c + 16, c_bytes);
    if (two) {
      _tile_loadd(2, c + tile.c_panel, c_bytes);
      _tile_loadd(3, c + tile.c_panel + 16, c_bytes);
    }
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const uint32_t* a = tile.a;
  const uint32_t* b = tile.b;
  int64_t next_panel = tile.b_panel;
  for (int64_t block = 0; block < divide_up(tile.steps, kBlock); ++block) {
    if (tail != nullptr && (block + 1) * kBlock > tile.steps) {
      b = tail;
      next_panel = kBlock * kLanes;
    }
    if (tile.fetch) prefetch_block(b + kBlock * kLanes);
    if (tile.fetch && two) prefetch_block(b + kBlock * kLanes + next_panel);
    _tile_loadd(4, a, 64);
    _tile_loadd(6, b, kStride);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + 16, kStride);
    _tile_dpbf16ps(1, 4, 7);
    if (two) {
      _tile_loadd(6, b + next_panel, kStride);
      _tile_dpbf16ps(2, 4, 6);
      _tile_loadd(7, b + next_panel + 16, kStride);
      _tile_dpbf16ps(3, 4, 7);
    }
    a += kBlockDwords;
    b += kBlock * kLanes;
  }
  _tile_stored(0, c, c_bytes);
  _tile_stored(1, c + 16, c_bytes);
  if (two) {
    _tile_stored(2, c + tile.c_panel, c_bytes);
    _tile_stored(3, c + tile.c_panel + 16, c_bytes);
  }
  memory_barrier();
}

}  // namespace

TileScope::TileScope(const GemmPath& path, int64_t rows) : amx_(path.amx) {
  if (!amx_) return;
  const auto height = static_cast<int>(std::clamp<int64_t>(rows, 1, kBlock));
  TileConfig config;
  for (int i = 0; i < 8; ++i) config.set(i, i < 6 ? height : static_cast<int>(kBlock), 64);
  load_tile_config(config);
}

TileScope::~TileScope() {
  if (amx_) release_tiles();
}

void run_tile_amx(const Tile& tile) {
  // A panel may end in the middle of a block: its last steps are copied before zeros.
  alignas(64) uint32_t tail[2 * kBlock * kLanes];
  const int64_t whole = tile.steps / kBlock * kBlock, left = tile.steps - whole;
  if (left > 0) {
    for (int panel = 0; panel < tile.panels; ++panel) {
      uint32_t* const to = tail + panel * kBlock * kLanes;
      std::memcpy(to, tile.b + panel * tile.b_panel + whole * kLanes, static_cast<size_t>(left * kLanes) * 4);
      std::memset(to + left * kLanes, 0, static_cast<size_t>((kBlock - left) * kLanes) * 4);
    }
  }
  const auto kernel = tile.rows > kBlock ? tile_two_by_two : tile_one_row;
  kernel(tile, left > 0 ? tail : nullptr);
}

#else

TileScope::TileScope(const GemmPath&, int64_t) : amx_(false) {}
TileScope::~TileScope() = default;
void run_tile_amx(const Tile& tile) { run_tile_plain(DType::bf16, tile); }

#endif

}  // namespace gavel::cpu
