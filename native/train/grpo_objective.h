// The GRPO family as an objective of one optimizer step: what grpo_loss() needs, gathered from groups, and its metrics
// under the field's names.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "core/status.h"
#include "model/input.h"
#include "train/grpo_loss.h"

namespace gavel {

struct GrpoObjective {
  GrpoLossOptions loss;  // denominators are the step's, whatever stands there
  double top_entropy_quantile =
      1;  // share of the highest entropies that is trained; 1: loss.entropy_threshold as given
};

// Denominators of the whole optimizer step; tokens are active ones.
struct StepCounts {
  double completions = 1, tokens = 1;
};

// The threshold must be found from the entropies of the whole step.
inline bool wants_entropy_threshold(const GrpoObjective& objective) { return objective.top_entropy_quantile < 1; }

/// Every input is there. `call_tokens` are the active tokens of the call; `name` is the objective's, for errors.
Status check_grpo(const GrpoObjective& objective, const std::string& name, const std::vector<GroupInput>& groups,
                  const StepCounts& counts, double call_tokens);

/// Returns the loss of one micro-batch, without weight, and writes its gradients to log-probs and (not null) entropies.
double apply_grpo(const GrpoObjective& objective, const StepCounts& counts, double entropy_threshold,
                  const std::vector<const GroupInput*>& batch, const std::vector<float>& logprobs,
                  const std::vector<float>& entropies, std::vector<float>* grad_logprobs,
                  std::vector<float>* grad_entropies, GrpoMetrics* metrics);

/// Means under the field's names: kl, entropy, clip_ratio/low_mean ..., those that these options have.
void name_grpo_metrics(const GrpoLossOptions& options, const GrpoMetrics& metrics,
                       std::map<std::string, double>* named);

}  // namespace gavel
