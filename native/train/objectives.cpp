#include "train/objectives.h"

#include <algorithm>

#include "train/completions.h"
#include "train/nll_loss.h"

namespace gavel {
StepObjectives::StepObjectives(const std::vector<Objective>& objectives, const std::vector<GroupInput>& groups,
                               const StepOptions& options)
    : objectives_(objectives), groups_(groups), counts_{options.step_completions, options.step_tokens} {
  double completions = 0;
  for (const GroupInput& group : groups) {
    for (const CompletionInput& completion : group.completions) {
      ++completions;
      call_tokens_ += static_cast<double>(active_tokens(completion));
    }
  }
  if (counts_.completions <= 0) counts_.completions = std::max(completions, 1.0);
  if (counts_.tokens <= 0) counts_.tokens = std::max(call_tokens_, 1.0);
  for (const Objective& objective : objectives) {
    if (objective.weight == 0) continue;
    has_nll_ = has_nll_ || objective.kind == Objective::Kind::nll;
    has_dpo_ = has_dpo_ || objective.kind == Objective::Kind::dpo;
    if (objective.kind != Objective::Kind::grpo) continue;
    has_grpo_ = true;
    grpo_options_ = objective.grpo.loss;
  }
}

bool StepObjectives::needs_entropy() const { return has_grpo_; }

bool StepObjectives::has_entropy_gradient() const {
  return std::any_of(objectives_.begin(), objectives_.end(), [](const Objective& objective) {
    return objective.kind == Objective::Kind::grpo && objective.weight != 0 && objective.grpo.loss.entropy_coef != 0;
  });
}

std::vector<GroupJoin> StepObjectives::joined_groups() const {
  std::vector<GroupJoin> joins;
  for (const Objective& objective : objectives_) {
    if (objective.kind == Objective::Kind::dpo && objective.weight != 0) join_pairs(objective.dpo, groups_, &joins);
  }
  return joins;
}

bool StepObjectives::needs_step_entropies() const {
  return std::any_of(objectives_.begin(), objectives_.end(), [](const Objective& objective) {
    return objective.kind == Objective::Kind::grpo && objective.weight != 0 && wants_entropy_threshold(objective.grpo);
  });
}

void StepObjectives::set_step_entropies(const std::vector<const GroupInput*>& batch,
                                        const std::vector<float>& entropies) {
  entropy_thresholds_.clear();
  const FlatBatch flat = flatten(batch);
  for (const Objective& objective : objectives_) {
    const bool wanted =
        objective.kind == Objective::Kind::grpo && objective.weight != 0 && wants_entropy_threshold(objective.grpo);
    entropy_thresholds_.push_back(wanted ? entropy_threshold<float>(static_cast<int64_t>(entropies.size()),
                                                                    entropies.data(), flat.mask.data(),
                                                                    objective.grpo.top_entropy_quantile)
                                         : objective.grpo.loss.entropy_threshold);
  }
}

Status StepObjectives::check() const {
  if (objectives_.empty())
    return Status::error(
        Code::invalid_argument,
        "Expected at least one objective but received none. Use logprobs() to compute without training.");
  for (size_t i = 0; i < objectives_.size(); ++i) {
    const Objective& objective = objectives_[i];
    if (objective.weight == 0) continue;
    const std::string name = "objectives[" + std::to_string(i) + "]";
    if (objective.kind == Objective::Kind::grpo) {
      GAVEL_RETURN_IF_ERROR(check_grpo(objective.grpo, name, groups_, counts_, call_tokens_));
    } else if (objective.kind == Objective::Kind::dpo) {
      GAVEL_RETURN_IF_ERROR(check_dpo(objective.dpo, name, groups_));
    }
  }
  return Status::success();
}

bool StepObjectives::token_local() const {
  for (const Objective& objective : objectives_) {
    if (objective.weight == 0 || objective.kind == Objective::Kind::nll) continue;
    if (objective.kind != Objective::Kind::grpo || !is_token_local(objective.grpo.loss)) return false;
    if (wants_entropy_threshold(objective.grpo) && entropy_thresholds_.empty()) return false;
  }
  return true;
}

void StepObjectives::gradients(const std::vector<const GroupInput*>& batch, const std::vector<float>& logprobs,
                               const std::vector<float>& entropies, std::vector<float>* grad_logprobs,
                               std::vector<float>* grad_entropies) const {
  Sums dropped;
  apply(batch, logprobs, entropies, grad_logprobs, grad_entropies, &dropped);
}

void StepObjectives::apply(const std::vector<const GroupInput*>& batch, const std::vector<float>& logprobs,
                           const std::vector<float>& entropies, std::vector<float>* grad_logprobs,
                           std::vector<float>* grad_entropies) {
  if (entropy_thresholds_.empty()) set_step_entropies(batch, entropies);
  apply(batch, logprobs, entropies, grad_logprobs, grad_entropies, &sums_);
}

void StepObjectives::apply(const std::vector<const GroupInput*>& batch, const std::vector<float>& logprobs,
                           const std::vector<float>& entropies, std::vector<float>* grad_logprobs,
                           std::vector<float>* grad_entropies, Sums* sums) const {
  std::fill(grad_logprobs->begin(), grad_logprobs->end(), 0.0f);
  std::fill(grad_entropies->begin(), grad_entropies->end(), 0.0f);
  std::vector<float> own_grad(logprobs.size()), own_entropy_grad(grad_entropies->size());
  for (size_t i = 0; i < objectives_.size(); ++i) {
    const Objective& objective = objectives_[i];
    if (objective.weight == 0) continue;
    if (objective.kind == Objective::Kind::nll) {
      apply_nll(objective, batch, logprobs, grad_logprobs, sums);
      continue;
    }
    const bool is_grpo = objective.kind == Objective::Kind::grpo;
    const bool moves_entropy = is_grpo && !own_entropy_grad.empty();
    // A fixed threshold is known before set_step_entropies().
    const double threshold =
        entropy_thresholds_.empty() ? objective.grpo.loss.entropy_threshold : entropy_thresholds_[i];
    sums->loss +=
        objective.weight * (is_grpo ? apply_grpo(objective.grpo, counts_, threshold, batch, logprobs, entropies,
                                                 &own_grad, moves_entropy ? &own_entropy_grad : nullptr, &sums->grpo)
                                    : apply_dpo(objective.dpo, groups_, batch, logprobs, &own_grad, &sums->dpo));
    const float weight = static_cast<float>(objective.weight);
    for (size_t t = 0; t < own_grad.size(); ++t) (*grad_logprobs)[t] += weight * own_grad[t];
    if (!moves_entropy) continue;
    for (size_t t = 0; t < own_entropy_grad.size(); ++t) (*grad_entropies)[t] += weight * own_entropy_grad[t];
  }
}

void StepObjectives::apply_nll(const Objective& objective, const std::vector<const GroupInput*>& batch,
                               const std::vector<float>& logprobs, std::vector<float>* grad, Sums* sums) const {
  std::vector<float> weights(logprobs.size()), own_grad(logprobs.size());
  for_each_completion(batch, [&](const CompletionInput& completion, size_t first) {
    double weight = objective.weight;
    if (objective.normalization == NllNormalization::tokens) weight /= counts_.tokens;
    if (objective.normalization == NllNormalization::completions) {
      weight /= counts_.completions * static_cast<double>(std::max<int64_t>(active_tokens(completion), 1));
    }
    for (size_t j = 0; j < completion.tokens.size(); ++j) {
      if (!active(completion, j)) continue;
      weights[first + j] = static_cast<float>(weight);
      sums->nll -= logprobs[first + j];
      ++sums->nll_tokens;
    }
  });
  sums->loss += nll_loss(static_cast<int64_t>(logprobs.size()), logprobs.data(), weights.data(), own_grad.data());
  for (size_t t = 0; t < own_grad.size(); ++t) (*grad)[t] += own_grad[t];
}

void StepObjectives::finish(StepResult* result) const {
  result->loss = sums_.loss;
  if (has_nll_) result->metrics["nll"] = sums_.nll_tokens > 0 ? sums_.nll / sums_.nll_tokens : 0.0;
  if (has_dpo_) name_dpo_metrics(sums_.dpo, &result->metrics);
  if (has_grpo_) name_grpo_metrics(grpo_options_, sums_.grpo, &result->metrics);
}

}  // namespace gavel
