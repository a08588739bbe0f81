// The policy losses of the GRPO family as one pure function over flat per-target arrays: sequence s owns the targets
// [offsets[s], offsets[s + 1]). Formulas, order of masks and metrics follow TRL 1.13 (GRPOTrainer._compute_loss);
// papers: GRPO (Shao et al. 2024), DAPO (Yu et al. 2025), Dr. GRPO (Liu et al. 2025), GSPO (Zheng et al. 2025), CISPO
// (MiniMax 2025), SAPO, LUSPO, VESPO; dual clip: Ye et al. 2020. Denominators belong to the whole optimizer step.
#pragma once
#include <cstdint>
#include <limits>

namespace gavel {

enum class PolicyLoss : uint8_t { grpo, bnpo, dr_grpo, dapo, cispo, sapo, luspo, vespo };
enum class ImportanceLevel : uint8_t { token, sequence };
// Estimators of KL(policy || reference) from log-probs of the policy's own tokens (Schulman 2020), d = reference -
// logprob: k1 = -d, k2 = d^2 / 2, k3 = exp(d) - d - 1.
enum class KlEstimator : uint8_t { k1, k2, k3 };

struct GrpoLossOptions {
  PolicyLoss loss = PolicyLoss::dapo;
  ImportanceLevel level = ImportanceLevel::token;
  double eps_low = 0.2;
  double eps_high = 0.2;  // cispo: the cap of the ratio itself
  double delta = 0;       // two-sided clipping: ratio <- min(ratio, delta); 0: off
  double dual_clip = 0;   // c > 1: where the advantage A is negative, the loss is at most -c A; 0: off
  double beta = 0;        // weight of the KL divergence to the reference
  KlEstimator kl_estimator = KlEstimator::k3;
  bool kl_bias_correction = true;  // KL times the ratio, unclipped and differentiable
  double kl_clamp = 10;            // |reference - logprob| is clamped to it; 0: off
  // A sequence of negative advantage whose mean (sampling - logprob) exceeds it is dropped; infinity: off.
  double off_policy_threshold = std::numeric_limits<double>::infinity();
  double sapo_temperature_positive = 1.0, sapo_temperature_negative = 1.05;
  double vespo_k_positive = 2.0, vespo_lambda_positive = 3.0, vespo_k_negative = 3.0, vespo_lambda_negative = 2.0;
  // Targets of lower entropy are dropped: entropy_threshold() over the whole optimizer step; -infinity: off.
  double entropy_threshold = -std::numeric_limits<double>::infinity();
  double entropy_coef = 0;  // loss -= entropy_coef * mean entropy of active tokens

  // Of the WHOLE optimizer step, over all its micro-batches. Rows dropped because their advantage is 0 still count.
  double num_sequences = 1;
  double num_tokens = 1;             // active ones
  double max_completion_length = 1;  // dr_grpo only
};

template <class Real>
struct GrpoLossInputs {
  int64_t num_sequences = 0;
  const int32_t* offsets = nullptr;          // [num_sequences + 1]
  const Real* logprob = nullptr;             // [targets]
  const Real* old = nullptr;                 // null: on-policy, the ratio is 1 and its gradient that of logprob
  const Real* reference = nullptr;           // read when beta != 0
  const Real* sampling = nullptr;            // the sampler's log-probs, for the off-policy test; null: old
  const Real* importance_ratio = nullptr;    // of trainer over sampler per target (1 where masked), or null
  const Real* entropy = nullptr;             // [targets] or null when nothing needs it
  const uint8_t* mask = nullptr;             // [targets]; null: all active. Nothing else is read at a masked target.
  const double* advantages = nullptr;        // [num_sequences]
  const double* token_advantages = nullptr;  // [targets], instead of advantages
};

// Sums and counts of one micro-batch; merge() adds another's. The means have TRL's names in the comments.
struct GrpoMetrics {
  double num_sequences = 0, num_tokens = 0;
  double policy_loss = 0;              // policy_loss: without the entropy bonus
  double kl = 0, entropy = 0;          // over num_tokens: kl, entropy
  double clip_low = 0, clip_high = 0;  // over clip_count: clip_ratio/low_mean, /high_mean; their sum: /region_mean
  double dual_clipped = 0;             // over clip_count: clip_ratio/dual_mean, where dual_clip holds the loss back
  double clip_count = 0;               // tokens, or sequences at sequence level
  double clip_low_min = std::numeric_limits<double>::infinity();  // clip_ratio/low_min over sequences that have tokens
  double clip_high_max = -std::numeric_limits<double>::infinity();  // clip_ratio/high_max
  double cispo_clipped = 0;                                         // over clip_count: cispo_clip_ratio
  double vespo_phi = 0;                                             // over num_sequences: vespo/phi_seq_mean
  double off_policy_sequences = 0;  // dropped by off_policy_threshold; over num_sequences: off_policy_mask_ratio
  double sampling_gap = 0;          // |sampling - old| over num_tokens: sampling/sampling_logp_difference/mean
  double sampling_gap_max = 0;      // sampling/sampling_logp_difference/max
  bool has_sampling = false;        // sampling log-probs were given

  void merge(const GrpoMetrics& other);
};

/// Losses that clip the ratio, the only ones `delta` and `dual_clip` mean something to.
bool clips_ratio(PolicyLoss loss);

/// The gradient of a target needs no other target's log-prob: no ratio, weight or drift of a whole sequence.
bool is_token_local(const GrpoLossOptions& options);

/// Returns this micro-batch's share of the step's loss and writes d loss / d logprob (grad_logprob, all targets) and,
/// where grad_entropy is given, d loss / d entropy. Computed in double in ascending order; instantiated for float and
/// double.
template <class Real>
double grpo_loss(const GrpoLossOptions& options, const GrpoLossInputs<Real>& inputs, Real* grad_logprob,
                 Real* grad_entropy, GrpoMetrics* metrics);

/// The (1 - top) quantile, linearly interpolated, of the entropies of active targets (mask may be null): what
/// entropy_threshold must be so that the `top` share of the highest entropies is kept. -infinity when none is active.
template <class Real>
double entropy_threshold(int64_t num_targets, const Real* entropy, const uint8_t* mask, double top);

}  // namespace gavel
