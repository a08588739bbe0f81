#include "model/mrope.h"

#include <algorithm>

namespace gavel {

void mrope_positions(const GroupInput& group, std::span<const PlaceholderRun> runs, std::span<const RunGrid> grids,
                     Positions* positions) {
  const int32_t count = static_cast<int32_t>(group.prompt_tokens.size());
  int32_t next = 0, i = 0;
  const auto add_text = [&](int32_t end) {
    for (; i < end; ++i, ++next) {
      for (auto& axis : positions->axes) axis.push_back(next);
    }
  };
  for (size_t r = 0; r < runs.size(); ++r) {
    add_text(runs[r].begin);
    const auto [rows, cols, interval] = grids[r];
    for (int32_t n = 0; n < runs[r].tokens; ++n, ++i) {
      const int32_t in_frame = n % (rows * cols);
      positions->axes[0].push_back(next + n / (rows * cols) * interval);
      positions->axes[1].push_back(next + in_frame / cols);
      positions->axes[2].push_back(next + in_frame % cols);
    }
    next += std::max(rows, cols);
  }
  add_text(count);
  positions->next = next;
}

}  // namespace gavel
