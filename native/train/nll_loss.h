// Negative log-likelihood over flat targets: loss = -sum_t weight[t] logprob[t]. Every mean (over tokens, over rows,
// with or without padding) is a choice of weights by the caller, so one function serves SFT and the joint language
// loss.
#pragma once
#include <cstdint>

namespace gavel {

/// Returns the loss, summed in double in ascending t; grad_logprob[t] = -weight[t] (may be null).
template <class Real>
double nll_loss(int64_t num_targets, const Real* logprob, const Real* weight, Real* grad_logprob) {
  double loss = 0;
  for (int64_t t = 0; t < num_targets; ++t) {
    // A target of weight 0 is absent, whatever its log-probability.
    if (weight[t] != Real{0}) loss -= static_cast<double>(weight[t]) * static_cast<double>(logprob[t]);
    if (grad_logprob != nullptr) grad_logprob[t] = -weight[t];
  }
  return loss;
}

}  // namespace gavel
