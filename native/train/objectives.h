// The objectives of one optimizer step over its micro-batches. Denominators (completions, active tokens) are taken over
// the whole step before its first micro-batch, so the gradient does not depend on how groups are split.
#pragma once
#include <vector>

#include "train/grpo_loss.h"
#include "train/trainer.h"

namespace gavel {

// The loss of TRL's name, false when there is none.
bool parse_loss_type(const std::string& name, PolicyLoss* loss);
// Means under the field's names: kl, entropy, clip_ratio/low_mean ..., those that `loss` has.
void name_grpo_metrics(PolicyLoss loss, const GrpoMetrics& metrics, std::map<std::string, double>* named);

class StepObjectives {
 public:
  StepObjectives(const std::vector<Objective>& objectives, const std::vector<GroupInput>& groups,
                 const StepOptions& options);

  // Every input an objective needs is there.
  Status check() const;
  bool needs_entropy() const;
  bool has_entropy_gradient() const { return false; }

  // Adds the loss of one micro-batch and gives d loss / d logprob for its completion tokens (concatenated in order).
  Status apply(const std::vector<const GroupInput*>& batch, const std::vector<float>& logprobs,
               const std::vector<float>& entropies, std::vector<float>* grad_logprobs,
               std::vector<float>* grad_entropies);
  // Loss and metrics of the whole step.
  void finish(StepResult* result) const;

 private:
  void apply_nll(const Objective& objective, const std::vector<const GroupInput*>& batch,
                 const std::vector<float>& logprobs, std::vector<float>* grad);
  void apply_grpo(const Objective& objective, const std::vector<const GroupInput*>& batch,
                  const std::vector<float>& logprobs, const std::vector<float>& entropies, std::vector<float>* grad);

  const std::vector<Objective>& objectives_;
  const std::vector<GroupInput>& groups_;
  double completions_ = 0, tokens_ = 0;
  double loss_ = 0, nll_sum_ = 0, nll_tokens_ = 0;
  GrpoMetrics grpo_metrics_;
  PolicyLoss grpo_loss_ = PolicyLoss::grpo;  // of the last GRPO objective, which names the metrics
  bool has_nll_ = false, has_grpo_ = false;
};

}  // namespace gavel
