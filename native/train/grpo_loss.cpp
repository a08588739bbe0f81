// Per target: share = weight * (keep * policy + beta * kl). Gradients split in two: what a target's own log-prob moves
// directly, and what the ratio moves; the ratio is a function of one target, or of all active targets of a sequence.
#include "train/grpo_loss.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace gavel {
namespace {

struct Term {
  double value = 0;
  double by_logprob = 0;  // derivative with the ratio held
  double by_ratio = 0;
};

double capped(const GrpoLossOptions& options, double ratio) {
  return options.delta > 0 ? std::min(ratio, options.delta) : ratio;
}

Term clipped_term(const GrpoLossOptions& options, double ratio, double advantage) {
  const double low = 1 - options.eps_low, high = 1 + options.eps_high;
  const double free = capped(options, ratio) * advantage, bound = std::clamp(ratio, low, high) * advantage;
  const double free_slope = options.delta > 0 && ratio > options.delta ? 0 : advantage;
  const double bound_slope = ratio >= low && ratio <= high ? advantage : 0;
  // Equal branches share the gradient, as torch.min does.
  const double slope = free < bound ? free_slope : free > bound ? bound_slope : 0.5 * (free_slope + bound_slope);
  Term term{-std::min(free, bound), 0, -slope};
  if (options.dual_clip > 0 && advantage < 0) {
    const double most = -options.dual_clip * advantage;
    if (term.value == most) term.by_ratio *= 0.5;
    if (term.value > most) term = {most, 0, 0};
  }
  return term;
}

Term sapo_term(const GrpoLossOptions& options, double ratio, double advantage) {
  const double tau = advantage > 0 ? options.sapo_temperature_positive : options.sapo_temperature_negative;
  const double sigmoid = 1 / (1 + std::exp(-tau * (ratio - 1)));
  return {-4 / tau * sigmoid * advantage, 0, -4 * sigmoid * (1 - sigmoid) * advantage};
}

// Losses that weigh the log-prob by a detached factor.
Term detached_term(double factor, double advantage, double logprob) {
  return {-factor * advantage * logprob, -factor * advantage, 0};
}

double vespo_phi(const GrpoLossOptions& options, double log_weight, double advantage) {
  const double k = advantage >= 0 ? options.vespo_k_positive : options.vespo_k_negative;
  const double lambda = advantage >= 0 ? options.vespo_lambda_positive : options.vespo_lambda_negative;
  return std::exp(lambda + k * log_weight - lambda * std::exp(log_weight));
}

Term kl_term(const GrpoLossOptions& options, double reference, double logprob, double ratio) {
  double d = reference - logprob, slope = 1;
  if (options.kl_clamp > 0 && std::fabs(d) > options.kl_clamp) {
    d = std::copysign(options.kl_clamp, d);
    slope = 0;
  }
  Term kl;
  switch (options.kl_estimator) {
    case KlEstimator::k1:
      kl = {-d, slope, 0};
      break;
    case KlEstimator::k2:
      kl = {0.5 * d * d, -d * slope, 0};
      break;
    case KlEstimator::k3:
      kl = {std::expm1(d) - d, -std::expm1(d) * slope, 0};
      break;
  }
  if (!options.kl_bias_correction) return kl;
  return {kl.value * ratio, kl.by_logprob * ratio, kl.value};
}

// What a sequence's targets share.
struct Sequence {
  int32_t begin = 0, end = 0;
  double tokens = 0;
  double ratio = 1;       // at sequence level
  double log_weight = 0;  // vespo
  double drift = 0;       // mean (sampling - logprob)
};

template <class Real>
class Loss {
 public:
  Loss(const GrpoLossOptions& options, const GrpoLossInputs<Real>& inputs) : options_(options), in_(inputs) {}

  double run(Real* grad_logprob, Real* grad_entropy, GrpoMetrics& metrics) {
    metrics_ = &metrics;
    metrics.has_sampling = in_.sampling != nullptr;
    double loss = 0;
    for (int64_t s = 0; s < in_.num_sequences; ++s) loss += add_sequence(s, grad_logprob, grad_entropy);
    return loss;
  }

 private:
  bool active(int32_t t) const { return in_.mask == nullptr || in_.mask[t] != 0; }
  double old(int32_t t) const { return in_.old == nullptr ? in_.logprob[t] : in_.old[t]; }
  double sampling(int32_t t) const { return in_.sampling == nullptr ? old(t) : in_.sampling[t]; }
  double advantage(int64_t s, int32_t t) const {
    return in_.token_advantages == nullptr ? in_.advantages[s] : in_.token_advantages[t];
  }

  Sequence measure(int64_t s) const {
    Sequence sequence;
    sequence.begin = in_.offsets[s];
    sequence.end = in_.offsets[s + 1];
    double log_ratio = 0, bounded = 0, drift = 0;
    for (int32_t t = sequence.begin; t < sequence.end; ++t) {
      if (in_.importance_ratio != nullptr) {
        bounded += std::clamp(std::log(static_cast<double>(in_.importance_ratio[t])), std::log(1e-8), 20.0);
      }
      if (!active(t)) continue;
      const double gap = in_.logprob[t] - old(t);
      sequence.tokens += 1;
      log_ratio += gap;
      bounded += std::clamp(gap, -20.0, 20.0);
      drift += sampling(t) - in_.logprob[t];
    }
    const double tokens = std::max(sequence.tokens, 1.0);
    sequence.ratio = std::exp(log_ratio / tokens);
    sequence.log_weight = std::clamp(bounded, std::log(1e-8), 20.0);
    sequence.drift = drift / tokens;
    return sequence;
  }

  // Share of one target of a sequence in the loss.
  double weight(const Sequence& sequence) const {
    switch (options_.loss) {
      case PolicyLoss::grpo:
      case PolicyLoss::sapo:
        return 1 / (std::max(sequence.tokens, 1.0) * options_.num_sequences);
      case PolicyLoss::dr_grpo:
        return 1 / (options_.num_sequences * options_.max_completion_length);
      case PolicyLoss::luspo:
        return 1 / options_.num_sequences;
      default:
        return 1 / std::max(options_.num_tokens, 1.0);
    }
  }

  Term policy_term(const Sequence& sequence, double ratio, double advantage, double logprob) const {
    switch (options_.loss) {
      case PolicyLoss::cispo:
        return detached_term(std::min(ratio, options_.eps_high), advantage, logprob);
      case PolicyLoss::sapo:
        return sapo_term(options_, ratio, advantage);
      case PolicyLoss::vespo:
        return detached_term(vespo_phi(options_, sequence.log_weight, advantage), advantage, logprob);
      default:
        return clipped_term(options_, ratio, advantage);
    }
  }

  // Off-policy mask, entropy mask and sampler ratio, in this order; all detached factors.
  double keep(const Sequence& sequence, int32_t t, double advantage) const {
    if (advantage < 0 && sequence.drift > options_.off_policy_threshold) return 0;
    if (in_.entropy != nullptr && in_.entropy[t] < options_.entropy_threshold) return 0;
    // vespo has it in its weight already.
    if (in_.importance_ratio == nullptr || options_.loss == PolicyLoss::vespo) return 1;
    return in_.importance_ratio[t];
  }

  double add_sequence(int64_t s, Real* grad_logprob, Real* grad_entropy) {
    const Sequence sequence = measure(s);
    const bool shared = options_.level == ImportanceLevel::sequence;
    const double share = weight(sequence), bonus = options_.entropy_coef / std::max(options_.num_tokens, 1.0);
    double loss = 0, entropy_bonus = 0, shared_by_ratio = 0;
    for (int32_t t = sequence.begin; t < sequence.end; ++t) {
      grad_logprob[t] = 0;
      if (grad_entropy != nullptr) grad_entropy[t] = 0;
      if (!active(t)) continue;
      const double logprob = in_.logprob[t], a = advantage(s, t);
      const double ratio = shared ? sequence.ratio : std::exp(logprob - old(t));
      const Term policy = policy_term(sequence, ratio, a, logprob);
      const double factor = keep(sequence, t, a);
      Term kl;
      if (options_.beta != 0) kl = kl_term(options_, in_.reference[t], logprob, ratio);
      loss += share * (factor * policy.value + options_.beta * kl.value);
      const double by_ratio = share * (factor * policy.by_ratio + options_.beta * kl.by_ratio);
      double gradient = share * (factor * policy.by_logprob + options_.beta * kl.by_logprob);
      if (shared) {
        shared_by_ratio += by_ratio;
      } else {
        gradient += by_ratio * ratio;
      }
      grad_logprob[t] = static_cast<Real>(gradient);
      if (options_.entropy_coef != 0) {
        entropy_bonus += bonus * in_.entropy[t];
        if (grad_entropy != nullptr) grad_entropy[t] = static_cast<Real>(-bonus);
      }
      metrics_->kl += kl.value;
      if (in_.entropy != nullptr) metrics_->entropy += in_.entropy[t];
    }
    if (shared) {
      const double spread = shared_by_ratio * sequence.ratio / std::max(sequence.tokens, 1.0);
      for (int32_t t = sequence.begin; t < sequence.end; ++t) {
        if (active(t)) grad_logprob[t] = static_cast<Real>(grad_logprob[t] + spread);
      }
    }
    count_sequence(s, sequence);
    metrics_->policy_loss += loss;
    return loss - entropy_bonus;
  }

  void count_sequence(int64_t s, const Sequence& sequence) {
    GrpoMetrics& m = *metrics_;
    m.num_sequences += 1;
    m.num_tokens += sequence.tokens;
    const bool shared = options_.level == ImportanceLevel::sequence;
    double low = 0, high = 0, dual = 0, cispo = 0;
    const auto test = [&](double ratio, double a) {
      const double tested = capped(options_, ratio);
      if (clips_ratio(options_.loss)) {
        low += tested < 1 - options_.eps_low && a < 0 ? 1 : 0;
        high += tested > 1 + options_.eps_high && a > 0 ? 1 : 0;
        const double used = std::max(tested, std::clamp(ratio, 1 - options_.eps_low, 1 + options_.eps_high));
        dual += options_.dual_clip > 0 && used > options_.dual_clip && a < 0 ? 1 : 0;
      }
      if (options_.loss == PolicyLoss::cispo) cispo += ratio > options_.eps_high && a > 0 ? 1 : 0;
    };
    for (int32_t t = sequence.begin; t < sequence.end; ++t) {
      if (!active(t)) continue;
      if (!shared) test(std::exp(in_.logprob[t] - old(t)), advantage(s, t));
      const double gap = std::fabs(sampling(t) - old(t));
      m.sampling_gap += gap;
      m.sampling_gap_max = std::max(m.sampling_gap_max, gap);
    }
    const double first_advantage = sequence.begin == sequence.end ? 0 : advantage(s, sequence.begin);
    if (shared) test(sequence.ratio, first_advantage);
    const double count = shared ? 1 : sequence.tokens;
    m.clip_low += low;
    m.clip_high += high;
    m.dual_clipped += dual;
    m.cispo_clipped += cispo;
    m.clip_count += count;
    if (sequence.tokens > 0) {
      m.clip_low_min = std::min(m.clip_low_min, low / count);
      m.clip_high_max = std::max(m.clip_high_max, high / count);
    }
    if (options_.loss == PolicyLoss::vespo) m.vespo_phi += vespo_phi(options_, sequence.log_weight, first_advantage);
    if (first_advantage < 0 && sequence.drift > options_.off_policy_threshold) m.off_policy_sequences += 1;
  }

  const GrpoLossOptions& options_;
  const GrpoLossInputs<Real>& in_;
  GrpoMetrics* metrics_ = nullptr;
};

}  // namespace

void GrpoMetrics::merge(const GrpoMetrics& other) {
  num_sequences += other.num_sequences;
  num_tokens += other.num_tokens;
  policy_loss += other.policy_loss;
  kl += other.kl;
  entropy += other.entropy;
  clip_low += other.clip_low;
  clip_high += other.clip_high;
  dual_clipped += other.dual_clipped;
  clip_count += other.clip_count;
  clip_low_min = std::min(clip_low_min, other.clip_low_min);
  clip_high_max = std::max(clip_high_max, other.clip_high_max);
  cispo_clipped += other.cispo_clipped;
  vespo_phi += other.vespo_phi;
  off_policy_sequences += other.off_policy_sequences;
  sampling_gap += other.sampling_gap;
  sampling_gap_max = std::max(sampling_gap_max, other.sampling_gap_max);
  has_sampling = has_sampling || other.has_sampling;
}

bool clips_ratio(PolicyLoss loss) {
  return loss != PolicyLoss::cispo && loss != PolicyLoss::sapo && loss != PolicyLoss::vespo;
}

bool is_token_local(const GrpoLossOptions& options) {
  return options.level == ImportanceLevel::token && options.loss != PolicyLoss::vespo &&
         options.off_policy_threshold == std::numeric_limits<double>::infinity();
}

template <class Real>
double grpo_loss(const GrpoLossOptions& options, const GrpoLossInputs<Real>& inputs, Real* grad_logprob,
                 Real* grad_entropy, GrpoMetrics* metrics) {
  GrpoMetrics mine;
  const double loss = Loss<Real>(options, inputs).run(grad_logprob, grad_entropy, mine);
  if (metrics != nullptr) metrics->merge(mine);
  return loss;
}

template <class Real>
double entropy_threshold(int64_t num_targets, const Real* entropy, const uint8_t* mask, double top) {
  std::vector<double> values;
  for (int64_t t = 0; t < num_targets; ++t) {
    if (mask == nullptr || mask[t] != 0) values.push_back(entropy[t]);
  }
  if (values.empty()) return -std::numeric_limits<double>::infinity();
  const double rank = (1 - top) * static_cast<double>(values.size() - 1);
  const size_t below = std::min(static_cast<size_t>(std::max(rank, 0.0)), values.size() - 1);
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(below), values.end());
  const double low = values[below];
  if (below + 1 == values.size()) return low;
  const double high = *std::min_element(values.begin() + static_cast<int64_t>(below) + 1, values.end());
  return low + (rank - static_cast<double>(below)) * (high - low);
}

template double grpo_loss<float>(const GrpoLossOptions&, const GrpoLossInputs<float>&, float*, float*, GrpoMetrics*);
template double grpo_loss<double>(const GrpoLossOptions&, const GrpoLossInputs<double>&, double*, double*,
                                  GrpoMetrics*);
template double entropy_threshold<float>(int64_t, const float*, const uint8_t*, double);
template double entropy_threshold<double>(int64_t, const double*, const uint8_t*, double);

}  // namespace gavel
