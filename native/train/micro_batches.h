// How a call's groups are cut into packs. Groups that a pair joins are one unit and stay together; units stand in the
// order of their first group, and fill a pack up to the token budget.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

#include "model/input.h"

namespace gavel {

// Two groups, by index, that a pair of scores or completions joins.
using GroupLink = std::pair<int32_t, int32_t>;

// Indices of groups by micro-batch; a unit larger than the budget stands alone.
std::vector<std::vector<int32_t>> micro_batches(const std::vector<GroupInput>& groups, int64_t budget,
                                                int32_t reward_token, const std::vector<GroupLink>& links);

}  // namespace gavel
