// Multimodal rotary positions (Wang et al. 2024, Qwen2-VL): text counts on all three axes; the tokens of a run of
// placeholders stand at (start + frame * interval, start + row, start + column), and the text after it begins past the
// larger of its rows and columns, as transformers 5 has it.
#pragma once
#include "model/architecture.h"

namespace gavel {

struct RunGrid {
  int32_t rows, cols;    // merged units
  int32_t interval = 1;  // temporal positions from frame to frame
};

// `grids` are in the order of `runs`.
void mrope_positions(const GroupInput& group, std::span<const PlaceholderRun> runs, std::span<const RunGrid> grids,
                     Positions* positions);

}  // namespace gavel
