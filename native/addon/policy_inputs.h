// Options of the policy and preference objectives, one reading for model.forwardBackward() and the kernels. What the
// contract calls optional keeps the default of the native struct.
#pragma once
#include "addon/arguments.h"
#include "train/dpo_objective.h"
#include "train/grpo_objective.h"

namespace gavel {

GrpoObjective grpo_objective_from(const Argument& options);
// beta, loss and labelSmoothing alone; the kernel has its own pairs.
DpoLossOptions dpo_options_from(const Argument& options);
DpoObjective dpo_objective_from(const Argument& options);

}  // namespace gavel
