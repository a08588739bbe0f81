// Per pair: margin d = h(chosen) - h(rejected), h the log-ratio of a sequence to the reference, its sum (sigmoid) or
// mean (ipo) over tokens. The gradient is one slope a sequence, gathered over its pairs.
#include "train/dpo_loss.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace gavel {
namespace {

// -log sigmoid(x) and the sigmoid, without overflow.
double softplus(double x) { return std::max(-x, 0.0) + std::log1p(std::exp(-std::fabs(x))); }
double sigmoid(double x) {
  const double e = std::exp(-std::fabs(x));
  return (x >= 0 ? 1 : e) / (1 + e);
}

struct PairTerm {
  double value = 0, by_margin = 0;
};

PairTerm pair_term(const DpoLossOptions& options, double margin) {
  if (options.loss == DpoLoss::ipo) {
    const double rest = margin - 1 / (2 * options.beta);
    return {rest * rest, 2 * rest};
  }
  const double x = options.beta * margin, flipped = options.label_smoothing;
  return {(1 - flipped) * softplus(x) + flipped * softplus(-x),
          options.beta * (flipped * sigmoid(x) - (1 - flipped) * sigmoid(-x))};
}

struct Sequence {
  double tokens = 0, logprob = 0, log_ratio = 0;
  double share = 1;  // of a token's log-ratio in h
};

}  // namespace

template <class Real>
double dpo_loss(const DpoLossOptions& options, const DpoLossInputs<Real>& in, Real* grad_logprob, DpoMetrics* metrics) {
  const auto active = [&](int32_t t) { return in.mask == nullptr || in.mask[t] != 0; };
  std::vector<double> slopes(static_cast<size_t>(in.num_sequences));
  const auto measure = [&](int32_t s) {
    Sequence sequence;
    for (int32_t t = in.offsets[s]; t < in.offsets[s + 1]; ++t) {
      if (!active(t)) continue;
      sequence.tokens += 1;
      sequence.logprob += in.logprob[t];
      sequence.log_ratio += static_cast<double>(in.logprob[t]) - static_cast<double>(in.reference[t]);
    }
    if (options.loss == DpoLoss::ipo) sequence.share = 1 / std::max(sequence.tokens, 1.0);
    return sequence;
  };
  double loss = 0;
  DpoMetrics mine;
  for (int64_t p = 0; p < in.num_pairs; ++p) {
    const Sequence chosen = measure(in.chosen[p]), rejected = measure(in.rejected[p]);
    const PairTerm term = pair_term(options, chosen.share * chosen.log_ratio - rejected.share * rejected.log_ratio);
    loss += term.value / options.num_pairs;
    slopes[static_cast<size_t>(in.chosen[p])] += term.by_margin / options.num_pairs * chosen.share;
    slopes[static_cast<size_t>(in.rejected[p])] -= term.by_margin / options.num_pairs * rejected.share;
    mine.num_pairs += 1;
    mine.reward_chosen += options.beta * chosen.log_ratio;
    mine.reward_rejected += options.beta * rejected.log_ratio;
    mine.right += chosen.log_ratio > rejected.log_ratio ? 1 : 0;
    mine.logprob_chosen += chosen.logprob;
    mine.logprob_rejected += rejected.logprob;
  }
  for (int32_t s = 0; s < in.num_sequences; ++s) {
    for (int32_t t = in.offsets[s]; t < in.offsets[s + 1]; ++t) {
      grad_logprob[t] = active(t) ? static_cast<Real>(slopes[static_cast<size_t>(s)]) : Real{0};
    }
  }
  if (metrics != nullptr) {
    metrics->num_pairs += mine.num_pairs;
    metrics->reward_chosen += mine.reward_chosen;
    metrics->reward_rejected += mine.reward_rejected;
    metrics->right += mine.right;
    metrics->logprob_chosen += mine.logprob_chosen;
    metrics->logprob_rejected += mine.logprob_rejected;
  }
  return loss;
}

template double dpo_loss<float>(const DpoLossOptions&, const DpoLossInputs<float>&, float*, DpoMetrics*);
template double dpo_loss<double>(const DpoLossOptions&, const DpoLossInputs<double>&, double*, DpoMetrics*);

}  // namespace gavel
