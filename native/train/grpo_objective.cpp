#include "train/grpo_objective.h"

#include <algorithm>
#include <cmath>

#include "train/completions.h"

namespace gavel {
namespace {

using Values = std::vector<float> CompletionInput::*;

// One value a token of the batch, `absent` where a completion brings none; empty when none does.
std::vector<float> gather(const std::vector<const GroupInput*>& batch, Values values,
                          const std::vector<float>& absent) {
  std::vector<float> flat;
  for_each_completion(batch, [&](const CompletionInput& completion, size_t first) {
    const std::vector<float>& given = completion.*values;
    if (given.empty()) return;
    if (flat.empty()) flat = absent;
    std::copy(given.begin(), given.end(), flat.begin() + static_cast<std::ptrdiff_t>(first));
  });
  return flat;
}

const float* data_or_null(const std::vector<float>& values) { return values.empty() ? nullptr : values.data(); }

std::string counted(double number) { return std::to_string(static_cast<int64_t>(number)); }

}  // namespace

Status check_grpo(const GrpoObjective& objective, const std::string& name, const std::vector<GroupInput>& groups,
                  const StepCounts& counts, double call_tokens) {
  if (wants_entropy_threshold(objective) && counts.tokens != call_tokens) {
    return Status::error(
        Code::invalid_argument,
        "Expected all " + counted(counts.tokens) + " active tokens of the step in one call because `" + name +
            ".topEntropyQuantile` is taken over the whole step, but received " + counted(call_tokens) +
            ". Give every completion, those of advantage 0 too, or `entropyThreshold` instead of the quantile.");
  }
  const auto demand = [](const char* what, const std::string& why, size_t received, size_t tokens,
                         const char* advice) -> Status {
    return Status::error(Code::invalid_argument, "Expected `" + std::string(what) + "` for every token" + why +
                                                     " but received " + std::to_string(received) + " for " +
                                                     std::to_string(tokens) + " tokens. " + advice);
  };
  for (const GroupInput& group : groups) {
    for (const CompletionInput& completion : group.completions) {
      if (!completion.has_advantage) {
        return Status::error(Code::invalid_argument,
                             "Expected `advantage` of every completion because `" + name +
                                 "` trains on it but received one without. Give 0 where nothing is to be learned.");
      }
      const size_t tokens = completion.tokens.size();
      if (objective.loss.beta != 0 && completion.reference_logprobs.size() != tokens) {
        return demand("referenceLogprobs", " because beta is not 0,", completion.reference_logprobs.size(), tokens,
                      "Score them with logprobs() of the frozen reference.");
      }
      for (const auto& [what, values] : {std::pair<const char*, Values>{"oldLogprobs", &CompletionInput::old_logprobs},
                                         {"samplingLogprobs", &CompletionInput::sampling_logprobs},
                                         {"importanceRatio", &CompletionInput::importance_ratio}}) {
        const size_t received = (completion.*values).size();
        if (received != 0 && received != tokens) {
          return demand(what, "", received, tokens, "Give those that sampling stored, or none.");
        }
      }
    }
  }
  return Status::success();
}

double apply_grpo(const GrpoObjective& objective, const StepCounts& counts, double entropy_threshold,
                  const std::vector<const GroupInput*>& batch, const std::vector<float>& logprobs,
                  const std::vector<float>& entropies, std::vector<float>* grad_logprobs,
                  std::vector<float>* grad_entropies, GrpoMetrics* metrics) {
  const FlatBatch flat = flatten(batch);
  std::vector<double> advantages;
  for_each_completion(batch,
                      [&](const CompletionInput& completion, size_t) { advantages.push_back(completion.advantage); });
  // Completions without stored log-probs are on-policy: their own value, without gradient.
  const std::vector<float> old = gather(batch, &CompletionInput::old_logprobs, logprobs);
  const std::vector<float> sampling = gather(batch, &CompletionInput::sampling_logprobs, old.empty() ? logprobs : old);
  const std::vector<float> ratio =
      gather(batch, &CompletionInput::importance_ratio, std::vector<float>(logprobs.size(), 1.0f));
  std::vector<float> reference;
  if (objective.loss.beta != 0) {
    reference = gather(batch, &CompletionInput::reference_logprobs, std::vector<float>(logprobs.size()));
  }

  GrpoLossOptions options = objective.loss;
  options.num_sequences = counts.completions;
  options.num_tokens = counts.tokens;
  options.entropy_threshold = entropy_threshold;
  GrpoLossInputs<float> inputs;
  inputs.num_sequences = static_cast<int64_t>(advantages.size());
  inputs.offsets = flat.offsets.data();
  inputs.logprob = logprobs.data();
  inputs.old = data_or_null(old);
  inputs.reference = data_or_null(reference);
  inputs.sampling = data_or_null(sampling);
  inputs.importance_ratio = data_or_null(ratio);
  inputs.entropy = data_or_null(entropies);
  inputs.mask = flat.mask.data();
  inputs.advantages = advantages.data();
  return grpo_loss<float>(options, inputs, grad_logprobs->data(),
                          grad_entropies == nullptr ? nullptr : grad_entropies->data(), metrics);
}

void name_grpo_metrics(const GrpoLossOptions& options, const GrpoMetrics& m, std::map<std::string, double>* named) {
  const double sequences = std::max(m.num_sequences, 1.0), tokens = std::max(m.num_tokens, 1.0);
  const double clips = std::max(m.clip_count, 1.0);
  (*named)["kl"] = m.kl / tokens;
  (*named)["entropy"] = m.entropy / tokens;
  (*named)["policy_loss"] = m.policy_loss;
  if (std::isfinite(options.off_policy_threshold))
    (*named)["off_policy_mask_ratio"] = m.off_policy_sequences / sequences;
  if (m.has_sampling) {
    (*named)["sampling/sampling_logp_difference/mean"] = m.sampling_gap / tokens;
    (*named)["sampling/sampling_logp_difference/max"] = m.sampling_gap_max;
  }
  if (options.loss == PolicyLoss::cispo) (*named)["cispo_clip_ratio"] = m.cispo_clipped / clips;
  if (options.loss == PolicyLoss::vespo) (*named)["vespo/phi_seq_mean"] = m.vespo_phi / sequences;
  if (!clips_ratio(options.loss)) return;
  (*named)["clip_ratio/low_mean"] = m.clip_low / clips;
  (*named)["clip_ratio/high_mean"] = m.clip_high / clips;
  (*named)["clip_ratio/region_mean"] = (m.clip_low + m.clip_high) / clips;
  if (options.dual_clip > 0) (*named)["clip_ratio/dual_mean"] = m.dual_clipped / clips;
  if (m.num_sequences > 0 && m.clip_low_min <= m.clip_count) (*named)["clip_ratio/low_min"] = m.clip_low_min;
  if (m.num_sequences > 0 && m.clip_high_max >= 0) (*named)["clip_ratio/high_max"] = m.clip_high_max;
}

}  // namespace gavel
