#include "train/micro_batches.h"

#include <algorithm>
#include <numeric>

#include "model/pack.h"

namespace gavel {
namespace {

// The smallest index of a group's set, paths halved on the way.
int32_t root_of(std::vector<int32_t>& parent, int32_t group) {
  while (parent[static_cast<size_t>(group)] != group) {
    int32_t& above = parent[static_cast<size_t>(group)];
    above = parent[static_cast<size_t>(above)];
    group = above;
  }
  return group;
}

}  // namespace

std::vector<std::vector<int32_t>> micro_batch_units(int32_t num_groups, const std::vector<GroupJoin>& joins) {
  std::vector<int32_t> parent(static_cast<size_t>(num_groups));
  std::iota(parent.begin(), parent.end(), 0);
  for (const auto& [a, b] : joins) {
    const int32_t one = root_of(parent, a), other = root_of(parent, b);
    parent[static_cast<size_t>(std::max(one, other))] = std::min(one, other);
  }
  std::vector<std::vector<int32_t>> units;
  std::vector<size_t> unit_of(static_cast<size_t>(num_groups));
  for (int32_t group = 0; group < num_groups; ++group) {
    const int32_t root = root_of(parent, group);
    if (root == group) {
      unit_of[static_cast<size_t>(group)] = units.size();
      units.emplace_back();
    }
    units[unit_of[static_cast<size_t>(root)]].push_back(group);
  }
  return units;
}

std::vector<std::vector<const GroupInput*>> micro_batches(const std::vector<GroupInput>& groups,
                                                          const std::vector<GroupJoin>& joins, int64_t budget,
                                                          int32_t reward_token) {
  std::vector<std::vector<const GroupInput*>> result;
  int64_t rows = 0;
  for (const std::vector<int32_t>& unit : micro_batch_units(static_cast<int32_t>(groups.size()), joins)) {
    int64_t own = 0;
    for (int32_t group : unit) own += Pack::rows_of(groups[static_cast<size_t>(group)], reward_token);
    if (result.empty() || rows + own > budget) {
      result.emplace_back();
      rows = 0;
    }
    for (int32_t group : unit) result.back().push_back(&groups[static_cast<size_t>(group)]);
    rows += own;
  }
  return result;
}

std::vector<size_t> first_completion_tokens(const std::vector<GroupInput>& groups) {
  std::vector<size_t> first{0};
  first.reserve(groups.size() + 1);
  for (const GroupInput& group : groups) {
    size_t tokens = 0;
    for (const CompletionInput& completion : group.completions) tokens += completion.tokens.size();
    first.push_back(first.back() + tokens);
  }
  return first;
}

void place_tokens(const std::vector<GroupInput>& groups, const std::vector<size_t>& first_tokens,
                  const std::vector<const GroupInput*>& batch, const std::vector<float>& values,
                  std::vector<float>* call) {
  size_t at = 0;
  for (const GroupInput* group : batch) {
    const size_t index = static_cast<size_t>(group - groups.data());
    const size_t count = first_tokens[index + 1] - first_tokens[index];
    std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(at), count,
                call->begin() + static_cast<std::ptrdiff_t>(first_tokens[index]));
    at += count;
  }
}

}  // namespace gavel
