// What the AMX kernels share: the tile configuration of a thread and how the compiler is told about it.
#pragma once
#include <cstdint>

#include "cpu/vector_math.h"

#if defined(__x86_64__)

#define GAVEL_TARGET_AMX __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16")))

namespace gavel::cpu {

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  void set(int tile, int row_count, int bytes) {
    rows[tile] = static_cast<uint8_t>(row_count);
    row_bytes[tile] = static_cast<uint16_t>(bytes);
  }
};
static_assert(sizeof(TileConfig) == 64);

// The intrinsics do not tell the compiler that they touch memory.
GAVEL_INLINE void memory_barrier() { asm volatile("" ::: "memory"); }

// Clears all tiles.
GAVEL_INLINE void load_tile_config(const TileConfig& config) { asm volatile("ldtilecfg %0" : : "m"(config)); }
GAVEL_INLINE void release_tiles() { asm volatile("tilerelease"); }

}  // namespace gavel::cpu

#endif
