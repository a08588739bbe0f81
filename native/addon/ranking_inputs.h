// Reward heads and ranking objectives of the contract (src/binding/contract.ts) as the structs of the rings below:
// checked and copied.
#pragma once
#include <cstdint>
#include <vector>

#include "addon/arguments.h"
#include "model/reward_head.h"
#include "train/ranking_objective.h"

namespace gavel {

RewardHeadOptions reward_head_options_from(const Argument& options);
RankingLossOptions ranking_loss_options_from(const Argument& given);
RankingObjective ranking_objective_from(const Argument& objective);

std::vector<int8_t> ranking_labels_from(const Argument& argument);
std::vector<double> head_weights_from(const Argument& argument);
/// Errors: bad_data for what is not finite; NaN passes where values may be missing.
void demand_finite(const Argument& argument, const std::vector<float>& values, bool missing_allowed);
void demand_finite(const Argument& argument, const std::vector<double>& values, bool missing_allowed);

}  // namespace gavel
