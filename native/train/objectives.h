// The objectives of one optimizer step over its micro-batches. Denominators (completions, active tokens) are taken over
// the whole step before its first micro-batch, so the gradient does not depend on how groups are split.
#pragma once
#include <vector>

#include "train/trainer.h"

namespace gavel {

class StepObjectives {
 public:
  StepObjectives(const std::vector<Objective>& objectives, const std::vector<GroupInput>& groups,
                 const StepOptions& options);

  // Every input an objective needs is there.
  Status check() const;
  bool needs_entropy() const;
  bool has_entropy_gradient() const;
  // Groups that must be in one micro-batch; only after check().
  std::vector<GroupJoin> joined_groups() const;
  // Entropy thresholds are of the whole step: with several micro-batches, its entropies are needed before the first.
  bool needs_step_entropies() const;
  // Entropies of the whole step: of its completions, concatenated in the order of `batch`.
  void set_step_entropies(const std::vector<const GroupInput*>& batch, const std::vector<float>& entropies);

  // Adds the loss of one micro-batch and gives d loss / d logprob (and d entropy) for its completion tokens
  // (concatenated in order). The first one sets the entropy thresholds where nobody did: then it is the whole step.
  Status apply(const std::vector<const GroupInput*>& batch, const std::vector<float>& logprobs,
               const std::vector<float>& entropies, std::vector<float>* grad_logprobs,
               std::vector<float>* grad_entropies);
  // Loss and metrics of the whole step.
  void finish(StepResult* result) const;

 private:
  void apply_nll(const Objective& objective, const std::vector<const GroupInput*>& batch,
                 const std::vector<float>& logprobs, std::vector<float>* grad);

  const std::vector<Objective>& objectives_;
  const std::vector<GroupInput>& groups_;
  StepCounts counts_;
  double call_tokens_ = 0;
  double loss_ = 0, nll_sum_ = 0, nll_tokens_ = 0;
  std::vector<double> entropy_thresholds_;  // one an objective, empty until they are known
  GrpoMetrics grpo_metrics_;
  GrpoLossOptions grpo_options_;  // of the last GRPO objective, which names the metrics
  DpoMetrics dpo_metrics_;
  bool has_nll_ = false, has_grpo_ = false, has_dpo_ = false;
};

}  // namespace gavel
