// How a call's groups are cut into micro-batches: units in the order of the call, up to a budget of packed rows. Groups
// joined by pairs (of a preference or ranking objective) are one unit: the loss of a pair needs both sides in one
// forward pass.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

#include "model/input.h"

namespace gavel {

// Indices of two groups that must be in one micro-batch; both may be the same.
using GroupJoin = std::pair<int32_t, int32_t>;

/// Groups joined directly or through others, by index: ascending within a unit, units by their first group.
std::vector<std::vector<int32_t>> micro_batch_units(int32_t num_groups, const std::vector<GroupJoin>& joins);

/// Consecutive units up to the budget; a larger unit stands alone. The pointers lie in `groups`; without joins that is
/// the order of the call.
std::vector<std::vector<const GroupInput*>> micro_batches(const std::vector<GroupInput>& groups,
                                                          const std::vector<GroupJoin>& joins, int64_t budget,
                                                          int32_t reward_token);

/// Where each group's completion tokens begin among all of the call; [groups + 1], the last is their number.
std::vector<size_t> first_completion_tokens(const std::vector<GroupInput>& groups);

/// Copies values of a batch, one a completion token, to their places in the call.
void place_tokens(const std::vector<GroupInput>& groups, const std::vector<size_t>& first_tokens,
                  const std::vector<const GroupInput*>& batch, const std::vector<float>& values,
                  std::vector<float>* call);

}  // namespace gavel
