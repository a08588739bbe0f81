// Direct preference optimization as a pure function over flat per-target arrays: sequence s owns the targets
// [offsets[s], offsets[s + 1]), a pair is two sequences. DPO: Rafailov et al. 2023, its label smoothing: Mitchell 2023
// (conservative DPO); IPO: Azar et al. 2023, with the mean log-ratio a token, as TRL 1.13 has it.
#pragma once
#include <cstdint>

namespace gavel {

enum class DpoLoss : uint8_t { sigmoid, ipo };

struct DpoLossOptions {
  DpoLoss loss = DpoLoss::sigmoid;
  double beta = 0.1;  // sigmoid: temperature of the margin; ipo: regularization, the margin aims at 1 / (2 beta)
  double label_smoothing = 0;  // sigmoid: chance in [0, 0.5) that a preference is the wrong way round
  double num_pairs = 1;        // of the WHOLE optimizer step
};

template <class Real>
struct DpoLossInputs {
  int64_t num_pairs = 0, num_sequences = 0;
  const int32_t* chosen = nullptr;    // [num_pairs], sequences; one may be in several pairs
  const int32_t* rejected = nullptr;  // [num_pairs]
  const int32_t* offsets = nullptr;   // [num_sequences + 1]
  const Real* logprob = nullptr;      // [targets]
  const Real* reference = nullptr;    // [targets], of the frozen reference
  const uint8_t* mask = nullptr;      // [targets]; null: all active. Nothing else is read at a masked target.
};

// Sums over pairs; the means have TRL's names in the comments. Rewards are beta times the log-ratio of a sequence.
struct DpoMetrics {
  double num_pairs = 0;
  double reward_chosen = 0, reward_rejected = 0;    // rewards/chosen, rewards/rejected
  double right = 0;                                 // rewards/accuracies: the chosen reward is the larger one
  double logprob_chosen = 0, logprob_rejected = 0;  // logps/chosen, logps/rejected: sums over tokens
};

/// Returns these pairs' share of the step's loss, writes d loss / d logprob of every target and adds to the metrics.
/// Computed in double in ascending order; instantiated for float and double.
template <class Real>
double dpo_loss(const DpoLossOptions& options, const DpoLossInputs<Real>& inputs, Real* grad_logprob,
                DpoMetrics* metrics);

}  // namespace gavel
