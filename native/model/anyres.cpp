#include "model/anyres.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace gavel {
namespace {

// Python's int(round(value, 7)).
int32_t whole(double value) { return static_cast<int32_t>(std::round(value * 1e7) / 1e7); }

// Python's a // b of floats, which rounds the exact quotient down and not the rounded one: 135 // (5 / 3) is 80.
int32_t floor_quotient(double a, double b) {
  const double quotient = (a - std::fmod(a, b)) / b, whole = std::floor(quotient);
  return static_cast<int32_t>(quotient - whole > 0.5 ? whole + 1 : whole);
}

struct Range {
  int32_t begin, end;
  int32_t size() const { return end - begin; }
};

struct Tap {
  int32_t low, high;
  double upper;
};

// Bilinear, pixel centres on pixel centres (align_corners off), no antialiasing.
Tap bilinear(int32_t i, int32_t to, int32_t from) {
  const double place = std::max((i + 0.5) * from / to - 0.5, 0.0);
  const int32_t low = std::min(static_cast<int32_t>(place), from - 1);
  return {low, std::min(low + 1, from - 1), place - low};
}

void add(RowSums* sums, int32_t row, double weight) {
  sums->index.push_back(weight == 0 ? -1 : row);
  sums->weights.push_back(static_cast<float>(weight));
}

void add_one(RowSums* sums, int32_t row) {
  add(sums, row, 1.0);
  for (int32_t tap = 1; tap < kMixTaps; ++tap) add(sums, -1, 0.0);
}

template <class Row>
void add_four(RowSums* sums, const Tap& y, const Tap& x, const Row& row_at) {
  add(sums, row_at(y.low, x.low), (1 - y.upper) * (1 - x.upper));
  add(sums, row_at(y.low, x.high), (1 - y.upper) * x.upper);
  add(sums, row_at(y.high, x.low), y.upper * (1 - x.upper));
  add(sums, row_at(y.high, x.high), y.upper * x.upper);
}

}  // namespace

Resolution best_resolution(Resolution picture, const std::vector<Resolution>& known) {
  Resolution best;
  int64_t most_kept = 0, least_wasted = std::numeric_limits<int64_t>::max();
  for (const Resolution& one : known) {
    const double scale =
        std::min(static_cast<double>(one.width) / picture.width, static_cast<double>(one.height) / picture.height);
    const int64_t width = static_cast<int64_t>(picture.width * scale),
                  height = static_cast<int64_t>(picture.height * scale);
    const int64_t kept = std::min(width * height, int64_t{picture.width} * picture.height),
                  wasted = int64_t{one.width} * one.height - kept;
    if (kept < most_kept || (kept == most_kept && wasted >= least_wasted)) continue;
    best = one;
    most_kept = kept;
    least_wasted = wasted;
  }
  return best;
}

void arrange_tile(const TileGrid& grid, int32_t first, RowSums* sums) {
  for (int32_t i = 0; i < grid.height * grid.width; ++i) add_one(sums, first + i);
  add_one(sums, kNewline);
}

void arrange_picture(Resolution picture, const TileGrid& grid, int32_t first, RowSums* sums) {
  const int32_t tile = grid.height * grid.width, height = grid.rows * grid.height, width = grid.cols * grid.width;
  for (int32_t i = 0; i < tile; ++i) add_one(sums, first + i);
  // The padding that the processor put around the picture, in patches, is cut off on both sides alike.
  Range rows{0, height}, cols{0, width};
  if (static_cast<double>(picture.width) / picture.height > static_cast<double>(width) / height) {
    rows.begin = (height - whole(picture.height * (static_cast<double>(width) / picture.width))) / 2;
    rows.end = height - rows.begin;
  } else {
    cols.begin = (width - whole(picture.width * (static_cast<double>(height) / picture.height))) / 2;
    cols.end = width - cols.begin;
  }
  const auto row_at = [&](int32_t y, int32_t x) {
    y += rows.begin;
    x += cols.begin;
    const int32_t of_tile = y / grid.height * grid.cols + x / grid.width;
    return first + tile * (1 + of_tile) + y % grid.height * grid.width + x % grid.width;
  };
  const double ratio =
      std::sqrt(static_cast<double>(rows.size()) * cols.size() / (grid.most_tiles * grid.height * grid.height));
  const bool shrunk = ratio > 1.1;
  const int32_t out_rows = shrunk ? floor_quotient(rows.size(), ratio) : rows.size(),
                out_cols = shrunk ? floor_quotient(cols.size(), ratio) : cols.size();
  for (int32_t y = 0; y < out_rows; ++y) {
    for (int32_t x = 0; x < out_cols; ++x) {
      if (shrunk) {
        add_four(sums, bilinear(y, out_rows, rows.size()), bilinear(x, out_cols, cols.size()), row_at);
      } else {
        add_one(sums, row_at(y, x));
      }
    }
    add_one(sums, kNewline);
  }
}

void arrange_video(int32_t frames, const TileGrid& grid, int32_t first, RowSums* sums) {
  const int32_t out_rows = (grid.height + 1) / 2, out_cols = (grid.width + 1) / 2;
  for (int32_t frame = 0; frame < frames; ++frame) {
    const auto row_at = [&](int32_t y, int32_t x) { return first + (frame * grid.height + y) * grid.width + x; };
    for (int32_t y = 0; y < out_rows; ++y) {
      for (int32_t x = 0; x < out_cols; ++x)
        add_four(sums, bilinear(y, out_rows, grid.height), bilinear(x, out_cols, grid.width), row_at);
    }
  }
  add_one(sums, kNewline);
}

}  // namespace gavel
