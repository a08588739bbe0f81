// Reward heads and ranking objectives of the contract (src/binding/contract.ts) as the structs of the rings below:
// checked and copied.
#pragma once
#include "addon/arguments.h"
#include "model/reward_head.h"
#include "train/ranking_objective.h"

namespace gavel {

RewardHeadOptions reward_head_options_from(const Argument& options);
RankingObjective ranking_objective_from(const Argument& objective);

}  // namespace gavel
