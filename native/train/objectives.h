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

  // The gradient of a token needs no other token's log-prob of this pass: those that are known are enough for theirs.
  bool token_local() const;
  // d loss / d logprob (and d entropy) for the completion tokens of one micro-batch (concatenated in order). Where
  // token_local(), a token's is right as soon as its own log-prob (and entropy) is there, whatever stands elsewhere.
  void gradients(const std::vector<const GroupInput*>& batch, const std::vector<float>& logprobs,
                 const std::vector<float>& entropies, std::vector<float>* grad_logprobs,
                 std::vector<float>* grad_entropies) const;
  // The same gradients, and adds the loss and metrics of the micro-batch. The first one sets the entropy thresholds
  // where nobody did: then it is the whole step.
  void apply(const std::vector<const GroupInput*>& batch, const std::vector<float>& logprobs,
             const std::vector<float>& entropies, std::vector<float>* grad_logprobs,
             std::vector<float>* grad_entropies);
  // Loss and metrics of the whole step.
  void finish(StepResult* result) const;

 private:
  // What the micro-batches add up to.
  struct Sums {
    double loss = 0, nll = 0, nll_tokens = 0;
    GrpoMetrics grpo;
    DpoMetrics dpo;
  };
  void apply(const std::vector<const GroupInput*>& batch, const std::vector<float>& logprobs,
             const std::vector<float>& entropies, std::vector<float>* grad_logprobs, std::vector<float>* grad_entropies,
             Sums* sums) const;
  void apply_nll(const Objective& objective, const std::vector<const GroupInput*>& batch,
                 const std::vector<float>& logprobs, std::vector<float>* grad, Sums* sums) const;

  const std::vector<Objective>& objectives_;
  const std::vector<GroupInput>& groups_;
  StepCounts counts_;
  double call_tokens_ = 0;
  Sums sums_;
  std::vector<double> entropy_thresholds_;  // one an objective, empty until they are known
  GrpoLossOptions grpo_options_;            // of the last GRPO objective, which names the metrics
  bool has_nll_ = false, has_grpo_ = false, has_dpo_ = false;
};

}  // namespace gavel
