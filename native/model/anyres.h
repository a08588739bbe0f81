// How LLaVA-OneVision arranges what its tower sees of a picture (Li et al. 2024): a whole-picture tile, then the tiles
// of the best fitting grid joined, cut back to the picture, perhaps shrunk, each row ended by the newline; a video's
// frames pooled, with one newline at its end. Written as sums of tower rows for row_mix.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

namespace gavel {

struct Resolution {
  int32_t height = 0, width = 0;
};

// The resolution that keeps most of the picture and, among equals, wastes least.
Resolution best_resolution(Resolution picture, const std::vector<Resolution>& known);

inline constexpr int32_t kMixTaps = 4;

struct RowSums {
  std::vector<int32_t> index;  // [rows, kMixTaps]; -1 is nothing, kNewline the newline
  std::vector<float> weights;
  int32_t rows() const { return static_cast<int32_t>(index.size()) / kMixTaps; }
};
inline constexpr int32_t kNewline = -2;

struct TileGrid {
  int32_t rows = 1, cols = 1;     // tiles
  int32_t height = 1, width = 1;  // patches of a tile
  double most_tiles = 9;          // more features than so many tiles have are shrunk
};

// Rows are patches of `first` (the whole picture's tile) on.
void arrange_picture(Resolution picture, const TileGrid& grid, int32_t first, RowSums* sums);
// A picture of one tile.
void arrange_tile(const TileGrid& grid, int32_t first, RowSums* sums);
void arrange_video(int32_t frames, const TileGrid& grid, int32_t first, RowSums* sums);

}  // namespace gavel
