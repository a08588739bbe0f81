#include "train/micro_batches.h"

#include <numeric>

#include "model/pack.h"

namespace gavel {
namespace {

// Union-find: every group's representative is the smallest index of its unit.
int32_t root_of(std::vector<int32_t>& parents, int32_t group) {
  while (parents[static_cast<size_t>(group)] != group) {
    int32_t& parent = parents[static_cast<size_t>(group)];
    parent = parents[static_cast<size_t>(parent)];
    group = parent;
  }
  return group;
}

}  // namespace

std::vector<std::vector<int32_t>> micro_batches(const std::vector<GroupInput>& groups, int64_t budget,
                                                int32_t reward_token, const std::vector<GroupLink>& links) {
  std::vector<int32_t> parents(groups.size());
  std::iota(parents.begin(), parents.end(), 0);
  for (const auto& [first, second] : links) {
    const int32_t a = root_of(parents, first), b = root_of(parents, second);
    parents[static_cast<size_t>(std::max(a, b))] = std::min(a, b);
  }
  std::vector<std::vector<int32_t>> units(groups.size());
  for (size_t g = 0; g < groups.size(); ++g)
    units[static_cast<size_t>(root_of(parents, static_cast<int32_t>(g)))].push_back(static_cast<int32_t>(g));

  std::vector<std::vector<int32_t>> batches;
  int64_t rows = 0;
  for (const std::vector<int32_t>& unit : units) {
    if (unit.empty()) continue;
    int64_t own = 0;
    for (int32_t g : unit) own += Pack::rows_of(groups[static_cast<size_t>(g)], reward_token);
    if (batches.empty() || rows + own > budget) {
      batches.emplace_back();
      rows = 0;
    }
    batches.back().insert(batches.back().end(), unit.begin(), unit.end());
    rows += own;
  }
  return batches;
}

}  // namespace gavel
