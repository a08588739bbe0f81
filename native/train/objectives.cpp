#include "train/objectives.h"

#include <algorithm>

#include "train/nll_loss.h"

namespace gavel {
namespace {

// Calls visit(group, completion, first token's index) over a batch, completions concatenated in order.
template <class Visit>
void for_each_completion(const std::vector<const GroupInput*>& batch, const Visit& visit) {
  size_t first = 0;
  for (const GroupInput* group : batch) {
    for (const CompletionInput& completion : group->completions) {
      visit(completion, first);
      first += completion.tokens.size();
    }
  }
}

bool active(const CompletionInput& completion, size_t token) {
  return completion.mask.empty() || completion.mask[token] != 0;
}

int64_t active_tokens(const CompletionInput& completion) {
  if (completion.mask.empty()) return static_cast<int64_t>(completion.tokens.size());
  return std::count_if(completion.mask.begin(), completion.mask.end(), [](uint8_t one) { return one != 0; });
}

}  // namespace

StepObjectives::StepObjectives(const std::vector<Objective>& objectives, const std::vector<GroupInput>& groups,
                               const StepOptions& options)
    : objectives_(objectives), groups_(groups), completions_(options.step_completions), tokens_(options.step_tokens) {
  double completions = 0, tokens = 0;
  for (const GroupInput& group : groups) {
    for (const CompletionInput& completion : group.completions) {
      ++completions;
      tokens += static_cast<double>(active_tokens(completion));
    }
  }
  if (completions_ <= 0) completions_ = std::max(completions, 1.0);
  if (tokens_ <= 0) tokens_ = std::max(tokens, 1.0);
  for (const Objective& objective : objectives) {
    (objective.kind == Objective::Kind::nll ? has_nll_ : has_grpo_) = true;
    if (objective.kind == Objective::Kind::grpo) parse_loss_type(objective.grpo.loss_type, &grpo_loss_);
  }
}

bool StepObjectives::needs_entropy() const { return has_grpo_; }

Status StepObjectives::check() const {
  if (objectives_.empty())
    return Status::error(
        Code::invalid_argument,
        "Expected at least one objective but received none. Use logprobs() to compute without training.");
  for (const Objective& objective : objectives_) {
    if (objective.kind != Objective::Kind::grpo) continue;
    PolicyLoss ignored;
    if (!parse_loss_type(objective.grpo.loss_type, &ignored)) {
      return Status::error(
          Code::invalid_argument,
          "Expected grpo, bnpo, dr_grpo, dapo, cispo, sapo, luspo or vespo for `lossType` but received \"" +
              objective.grpo.loss_type + "\". Use one of these names.");
    }
    for (const GroupInput& group : groups_) {
      for (const CompletionInput& completion : group.completions) {
        if (objective.grpo.beta != 0 && completion.reference_logprobs.size() != completion.tokens.size()) {
          return Status::error(Code::invalid_argument,
                               "Expected `referenceLogprobs` for every token because beta is not 0, but received " +
                                   std::to_string(completion.reference_logprobs.size()) + " for " +
                                   std::to_string(completion.tokens.size()) +
                                   " tokens. Score them with logprobs() of the frozen reference.");
        }
        if (!completion.old_logprobs.empty() && completion.old_logprobs.size() != completion.tokens.size()) {
          return Status::error(Code::invalid_argument, "Expected `oldLogprobs` for every token but received " +
                                                           std::to_string(completion.old_logprobs.size()) + " for " +
                                                           std::to_string(completion.tokens.size()) +
                                                           " tokens. Give those that sampling stored, or none.");
        }
      }
    }
  }
  return Status::success();
}

Status StepObjectives::apply(const std::vector<const GroupInput*>& batch, const std::vector<float>& logprobs,
                             const std::vector<float>& entropies, std::vector<float>* grad_logprobs,
                             std::vector<float>*) {
  for (const Objective& objective : objectives_) {
    if (objective.weight == 0) continue;
    if (objective.kind == Objective::Kind::nll) {
      apply_nll(objective, batch, logprobs, grad_logprobs);
    } else {
      apply_grpo(objective, batch, logprobs, entropies, grad_logprobs);
    }
  }
  return Status::success();
}

void StepObjectives::apply_nll(const Objective& objective, const std::vector<const GroupInput*>& batch,
                               const std::vector<float>& logprobs, std::vector<float>* grad) {
  std::vector<float> weights(logprobs.size()), own_grad(logprobs.size());
  for_each_completion(batch, [&](const CompletionInput& completion, size_t first) {
    double weight = objective.weight;
    if (objective.normalization == NllNormalization::tokens) weight /= tokens_;
    if (objective.normalization == NllNormalization::completions) {
      weight /= completions_ * static_cast<double>(std::max<int64_t>(active_tokens(completion), 1));
    }
    for (size_t j = 0; j < completion.tokens.size(); ++j) {
      if (!active(completion, j)) continue;
      weights[first + j] = static_cast<float>(weight);
      nll_sum_ -= logprobs[first + j];
      ++nll_tokens_;
    }
  });
  loss_ += nll_loss(static_cast<int64_t>(logprobs.size()), logprobs.data(), weights.data(), own_grad.data());
  for (size_t t = 0; t < own_grad.size(); ++t) (*grad)[t] += own_grad[t];
}

void StepObjectives::apply_grpo(const Objective& objective, const std::vector<const GroupInput*>& batch,
                                const std::vector<float>& logprobs, const std::vector<float>& entropies,
                                std::vector<float>* grad) {
  std::vector<int32_t> offsets{0};
  std::vector<double> advantages;
  std::vector<uint8_t> mask(logprobs.size(), 1);
  std::vector<float> old, reference, own_grad(logprobs.size());
  for_each_completion(batch, [&](const CompletionInput& completion, size_t first) {
    const size_t count = completion.tokens.size();
    offsets.push_back(static_cast<int32_t>(first + count));
    advantages.push_back(completion.advantage);
    if (!completion.mask.empty())
      std::copy(completion.mask.begin(), completion.mask.end(), mask.begin() + static_cast<std::ptrdiff_t>(first));
    if (!completion.old_logprobs.empty()) {
      // Completions of the batch without stored log-probs are on-policy: their own value, without gradient.
      if (old.empty()) old = logprobs;
      std::copy(completion.old_logprobs.begin(), completion.old_logprobs.end(),
                old.begin() + static_cast<std::ptrdiff_t>(first));
    }
    if (objective.grpo.beta != 0) {
      reference.resize(logprobs.size());
      std::copy(completion.reference_logprobs.begin(), completion.reference_logprobs.end(),
                reference.begin() + static_cast<std::ptrdiff_t>(first));
    }
  });

  GrpoLossOptions options;
  parse_loss_type(objective.grpo.loss_type, &options.loss);
  options.level = objective.grpo.sequence_level ? ImportanceLevel::sequence : ImportanceLevel::token;
  options.eps_low = objective.grpo.epsilon_low;
  options.eps_high = objective.grpo.epsilon_high;
  options.delta = objective.grpo.delta;
  options.beta = objective.grpo.beta;
  options.kl_bias_correction = objective.grpo.kl_bias_correction;
  options.kl_clamp = objective.grpo.kl_clamp;
  options.num_sequences = completions_;
  options.num_tokens = tokens_;
  options.max_completion_length = static_cast<double>(std::max<int64_t>(objective.grpo.max_completion_length, 1));

  GrpoLossInputs<float> inputs;
  inputs.num_sequences = static_cast<int64_t>(advantages.size());
  inputs.offsets = offsets.data();
  inputs.logprob = logprobs.data();
  inputs.old = old.empty() ? nullptr : old.data();
  inputs.reference = reference.empty() ? nullptr : reference.data();
  inputs.entropy = entropies.empty() ? nullptr : entropies.data();
  inputs.mask = mask.data();
  inputs.advantages = advantages.data();
  GrpoMetrics metrics;
  loss_ += objective.weight * grpo_loss<float>(options, inputs, own_grad.data(), nullptr, &metrics);
  grpo_metrics_.merge(metrics);
  const float weight = static_cast<float>(objective.weight);
  for (size_t t = 0; t < own_grad.size(); ++t) (*grad)[t] += weight * own_grad[t];
}

void StepObjectives::finish(StepResult* result) const {
  result->loss = loss_;
  if (has_nll_) result->metrics["nll"] = nll_tokens_ > 0 ? nll_sum_ / nll_tokens_ : 0.0;
  if (!has_grpo_) return;
  name_grpo_metrics(grpo_loss_, grpo_metrics_, &result->metrics);
}

void name_grpo_metrics(PolicyLoss loss, const GrpoMetrics& m, std::map<std::string, double>* named) {
  const double tokens = std::max(m.num_tokens, 1.0), clips = std::max(m.clip_count, 1.0);
  (*named)["kl"] = m.kl / tokens;
  (*named)["entropy"] = m.entropy / tokens;
  (*named)["policy_loss"] = m.policy_loss;
  if (loss == PolicyLoss::cispo) (*named)["cispo_clip_ratio"] = m.cispo_clipped / clips;
  if (loss == PolicyLoss::vespo) (*named)["vespo/phi_seq_mean"] = m.vespo_phi / std::max(m.num_sequences, 1.0);
  if (loss == PolicyLoss::cispo || loss == PolicyLoss::sapo || loss == PolicyLoss::vespo) return;
  (*named)["clip_ratio/low_mean"] = m.clip_low / clips;
  (*named)["clip_ratio/high_mean"] = m.clip_high / clips;
  (*named)["clip_ratio/region_mean"] = (m.clip_low + m.clip_high) / clips;
  if (m.num_sequences > 0 && m.clip_low_min <= m.clip_count) (*named)["clip_ratio/low_min"] = m.clip_low_min;
  if (m.num_sequences > 0 && m.clip_high_max >= 0) (*named)["clip_ratio/high_max"] = m.clip_high_max;
}

bool parse_loss_type(const std::string& name, PolicyLoss* loss) {
  constexpr std::pair<const char*, PolicyLoss> kNames[] = {
      {"grpo", PolicyLoss::grpo},   {"bnpo", PolicyLoss::bnpo},   {"dr_grpo", PolicyLoss::dr_grpo},
      {"dapo", PolicyLoss::dapo},   {"cispo", PolicyLoss::cispo}, {"sapo", PolicyLoss::sapo},
      {"luspo", PolicyLoss::luspo}, {"vespo", PolicyLoss::vespo}};
  for (const auto& [known, value] : kNames) {
    if (name == known) {
      *loss = value;
      return true;
    }
  }
  return false;
}

}  // namespace gavel
