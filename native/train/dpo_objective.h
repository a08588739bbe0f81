// Direct preference optimization as an objective of one optimizer step: pairs of completions of a call, counted over
// its groups in order. The two sides of a pair may be in one group (a shared prompt) or in two, which then stay in one
// micro-batch.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "core/status.h"
#include "model/input.h"
#include "train/dpo_loss.h"
#include "train/micro_batches.h"

namespace gavel {

struct DpoObjective {
  DpoLossOptions loss;                    // num_pairs of the whole step; 0: those of the call
  std::vector<int32_t> chosen, rejected;  // one a pair
};

/// Pairs are pairs, of completions that are there and have reference log-probs. `name` is the objective's, for errors.
Status check_dpo(const DpoObjective& objective, const std::string& name, const std::vector<GroupInput>& groups);

/// Adds the groups that the pairs join.
void join_pairs(const DpoObjective& objective, const std::vector<GroupInput>& groups, std::vector<GroupJoin>* joins);

/// Returns the loss of the pairs of one micro-batch (whose groups lie in `groups`), without weight, and writes the
/// gradient of every log-prob.
double apply_dpo(const DpoObjective& objective, const std::vector<GroupInput>& groups,
                 const std::vector<const GroupInput*>& batch, const std::vector<float>& logprobs,
                 std::vector<float>* grad_logprobs, DpoMetrics* metrics);

/// Means under TRL's names: rewards/chosen, rewards/rejected, rewards/accuracies, rewards/margins, logps/chosen,
/// logps/rejected.
void name_dpo_metrics(const DpoMetrics& metrics, std::map<std::string, double>* named);

}  // namespace gavel
