// One scalar pair at a time: a Gaussian difference z ~ N(m, s^2) goes in, loss and slopes in m and s come out; fusion,
// labels and centring spread them over heads. Quadrature works on logarithms, so a hopeless pair keeps its gradient.
#include "train/ranking_loss.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/philox.h"
#include "train/gauss_hermite.h"

namespace gavel {
namespace {

double softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x))); }
double sigmoid(double x) { return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x)); }

struct Gaussian {
  double mu = 0, variance = 0;
};

struct PairTerm {
  double value = 0, by_m = 0, by_s = 0;
};

// Points z = m + s u with weights that add up to 1.
struct Points {
  std::vector<double> offsets, log_weights;
};

// L = -log sum_i w_i sigmoid(z_i): slopes are means of sigmoid(-z_i) under p_i = w_i sigmoid(z_i) / sum.
PairTerm log_expectation(const Points& points, double m, double s) {
  const size_t count = points.offsets.size();
  std::vector<double> logs(count);
  double top = -std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < count; ++i) {
    logs[i] = points.log_weights[i] - softplus(-(m + s * points.offsets[i]));
    top = std::max(top, logs[i]);
  }
  double sum = 0;
  PairTerm term;
  for (size_t i = 0; i < count; ++i) {
    const double p = std::exp(logs[i] - top), slope = sigmoid(-(m + s * points.offsets[i]));
    sum += p;
    term.by_m -= p * slope;
    term.by_s -= p * slope * points.offsets[i];
  }
  return {-(top + std::log(sum)), term.by_m / sum, term.by_s / sum};
}

PairTerm expectation_log(const Points& points, double m, double s) {
  PairTerm term;
  for (size_t i = 0; i < points.offsets.size(); ++i) {
    const double weight = std::exp(points.log_weights[i]), z = m + s * points.offsets[i];
    term.value += weight * softplus(-z);
    term.by_m -= weight * sigmoid(-z);
    term.by_s -= weight * sigmoid(-z) * points.offsets[i];
  }
  return term;
}

// -log sigmoid(m / sqrt(1 + pi s^2 / 8)) (MacKay 1992).
PairTerm probit(double m, double s) {
  const double eighth = std::numbers::pi / 8, root = std::sqrt(1 + eighth * s * s), x = m / root;
  const double slope = -sigmoid(-x);
  return {softplus(-x), slope / root, slope * -m * eighth * s / (root * root * root)};
}

PairTerm tie_term(double d, double log_k) {
  const double k = std::exp(log_k);
  return {softplus(log_k - d) + softplus(log_k + d) - std::log(k * k - 1), sigmoid(log_k + d) - sigmoid(log_k - d), 0};
}

class Ranking {
 public:
  Ranking(const RankingLossOptions& options, const RankingInputs& inputs, double scale, double* grad_mu,
          double* grad_log_sigma, RankingMetrics& metrics)
      : options_(options),
        in_(inputs),
        scale_(scale),
        grad_mu_(grad_mu),
        grad_log_sigma_(grad_log_sigma),
        metrics_(metrics) {
    metrics_.head_decided.resize(static_cast<size_t>(in_.num_heads));
    metrics_.head_correct.resize(static_cast<size_t>(in_.num_heads));
    if (options.loss != RankingLoss::uncertainty || options.estimator != UncertaintyEstimator::quadrature) return;
    const HermiteRule rule = gauss_hermite(options.nodes);
    for (size_t i = 0; i < rule.nodes.size(); ++i) {
      points_.offsets.push_back(std::numbers::sqrt2 * rule.nodes[i]);
      points_.log_weights.push_back(std::log(rule.weights[i]) - 0.5 * std::log(std::numbers::pi));
    }
  }

  double run() {
    double loss = 0;
    if (options_.loss == RankingLoss::regression) {
      for (int64_t s = 0; s < in_.num_scores; ++s) loss += add_target(s);
    }
    for (int64_t p = 0; p < in_.num_pairs; ++p) loss += in_.labels == nullptr ? add_fused(p) : add_labelled(p);
    for (int64_t s = 0; s < in_.num_scores; ++s) {
      const double reward = fused(s).mu;
      ++metrics_.scores;
      metrics_.reward += reward;
      metrics_.min_reward = std::min(metrics_.min_reward, reward);
      metrics_.max_reward = std::max(metrics_.max_reward, reward);
    }
    metrics_.loss += loss;
    return loss;
  }

 private:
  size_t at(int64_t score, int64_t head) const { return static_cast<size_t>(score * in_.num_heads + head); }
  double head_weight(int64_t head) const { return in_.head_weights == nullptr ? 1 : in_.head_weights[head]; }
  bool uncertain() const { return options_.loss == RankingLoss::uncertainty; }

  double log_sigma(int64_t score, int64_t head) const {
    return std::clamp(in_.log_sigma[at(score, head)], options_.log_sigma_min, options_.log_sigma_max);
  }
  Gaussian single(int64_t score, int64_t head) const {
    return {in_.mu[at(score, head)], uncertain() ? std::exp(2 * log_sigma(score, head)) : 0};
  }
  int64_t least_head(int64_t score) const {
    int64_t least = 0;
    for (int64_t h = 1; h < in_.num_heads; ++h) {
      if (in_.mu[at(score, h)] < in_.mu[at(score, least)]) least = h;
    }
    return least;
  }
  Gaussian fused(int64_t score) const {
    if (options_.fusion == HeadFusion::min) return single(score, least_head(score));
    Gaussian sum;
    for (int64_t h = 0; h < in_.num_heads; ++h) {
      const Gaussian one = single(score, h);
      sum.mu += one.mu;
      sum.variance += one.variance;
    }
    if (options_.fusion == HeadFusion::sum) return sum;
    const double heads = static_cast<double>(in_.num_heads);
    return {sum.mu / heads, sum.variance / (heads * heads)};
  }

  // d variance / d log sigma = 2 variance, and 0 beyond the clamp.
  void spread_single(int64_t score, int64_t head, double by_mu, double by_variance, double factor) {
    grad_mu_[at(score, head)] += scale_ * factor * by_mu;
    const double raw = in_.log_sigma[at(score, head)];
    if (!uncertain() || raw < options_.log_sigma_min || raw > options_.log_sigma_max) return;
    grad_log_sigma_[at(score, head)] += scale_ * factor * factor * by_variance * 2 * std::exp(2 * raw);
  }
  void spread_fused(int64_t score, double by_mu, double by_variance) {
    if (options_.fusion == HeadFusion::min) return spread_single(score, least_head(score), by_mu, by_variance, 1);
    const double factor = options_.fusion == HeadFusion::sum ? 1 : 1 / static_cast<double>(in_.num_heads);
    for (int64_t h = 0; h < in_.num_heads; ++h) spread_single(score, h, by_mu, by_variance, factor);
  }

  // Box-Muller on counters: the draws belong to the pair and head, not to their place in the batch.
  void draw(int64_t pair, int64_t head) {
    const uint64_t id = static_cast<uint64_t>(in_.pair_ids == nullptr ? pair : in_.pair_ids[pair]);
    points_.offsets.clear();
    points_.log_weights.assign(static_cast<size_t>(options_.samples), -std::log(double(options_.samples)));
    for (int32_t i = 0; i < options_.samples; ++i) {
      const auto bits = random_bits({options_.seed, id, static_cast<uint32_t>(head), static_cast<uint32_t>(i)});
      const double u1 = (bits[0] + 0.5) * 0x1p-32, u2 = (bits[1] + 0.5) * 0x1p-32;
      points_.offsets.push_back(std::sqrt(-2 * std::log(u1)) * std::cos(2 * std::numbers::pi * u2));
    }
  }

  // Of the difference winner - loser, or of chosen - rejected for a tie.
  PairTerm pair_term(double m, double s, bool tie, int64_t pair, int64_t head) {
    const double margin = options_.margin + (in_.margins == nullptr ? 0 : in_.margins[pair]);
    if (options_.loss == RankingLoss::bradley_terry_ties) {
      const double log_k = std::log(options_.tie_ratio);
      return tie ? tie_term(m, log_k) : PairTerm{softplus(log_k - m), -sigmoid(log_k - m), 0};
    }
    m -= margin;
    if (!uncertain()) return {softplus(-m), -sigmoid(-m), 0};
    if (options_.estimator == UncertaintyEstimator::probit) return probit(m, s);
    if (options_.estimator == UncertaintyEstimator::monte_carlo) draw(pair, head);
    return options_.form == UncertaintyForm::log_expectation ? log_expectation(points_, m, s)
                                                             : expectation_log(points_, m, s);
  }

  // Ties are predicted by the ties loss alone, where their probability is the largest of three.
  int predicted(double d) const {
    if (options_.loss == RankingLoss::bradley_terry_ties) {
      const double log_k = std::log(options_.tie_ratio);
      const double win = sigmoid(d - log_k), lose = sigmoid(-d - log_k), tie = 1 - win - lose;
      if (tie >= win && tie >= lose) return 0;
    }
    return d > 0 ? 1 : d < 0 ? -1 : 0;
  }

  // One comparison of two Gaussians; `label` 1, -1 or 0. Returns its loss, and the slopes in mu and variance of both.
  struct Slopes {
    double first = 0, second = 0, variance = 0;
  };
  double compare(const Gaussian& first, const Gaussian& second, int label, int64_t pair, int64_t head, Slopes* slopes) {
    const double sign = label < 0 ? -1 : 1, s = std::sqrt(first.variance + second.variance);
    PairTerm term = pair_term(sign * (first.mu - second.mu), s, label == 0, pair, head);
    // ds / dvariance = 1 / (2 s); without uncertainty nothing depends on s.
    slopes->variance = s > 0 ? term.by_s / (2 * s) : 0;
    const double sum = first.mu + second.mu, centre = 2 * options_.centring * sum;
    slopes->first = sign * term.by_m + centre;
    slopes->second = -sign * term.by_m + centre;
    return term.value + options_.centring * sum * sum;
  }

  void count_pair(double difference, int label) {
    ++metrics_.pairs;
    if (predicted(difference) == label) ++metrics_.three_way_correct;
    if (label == 0) return;
    ++metrics_.decided;
    metrics_.margin += label * difference;
    if (label * difference > 0) ++metrics_.correct;
  }
  void count_head(int64_t head, double difference, int label) {
    if (label == 0) return;
    ++metrics_.head_decided[static_cast<size_t>(head)];
    if (label * difference > 0) ++metrics_.head_correct[static_cast<size_t>(head)];
  }

  double add_fused(int64_t pair) {
    const int64_t chosen = in_.chosen[pair], rejected = in_.rejected[pair];
    const int label = in_.ties != nullptr && in_.ties[pair] != 0 ? 0 : 1;
    const Gaussian first = fused(chosen), second = fused(rejected);
    count_pair(first.mu - second.mu, label);
    for (int64_t h = 0; h < in_.num_heads; ++h) count_head(h, in_.mu[at(chosen, h)] - in_.mu[at(rejected, h)], label);
    if (options_.loss == RankingLoss::regression) return 0;
    Slopes slopes;
    const double value = compare(first, second, label, pair, 0, &slopes) / in_.denominator;
    spread_fused(chosen, slopes.first / in_.denominator, slopes.variance / in_.denominator);
    spread_fused(rejected, slopes.second / in_.denominator, slopes.variance / in_.denominator);
    return value;
  }

  double add_labelled(int64_t pair) {
    const int64_t chosen = in_.chosen[pair], rejected = in_.rejected[pair];
    const int8_t* labels = in_.labels + pair * in_.num_heads;
    double total_weight = 0, value = 0;
    for (int64_t h = 0; h < in_.num_heads; ++h) total_weight += labels[h] == kNoLabel ? 0 : head_weight(h);
    for (int64_t h = 0; h < in_.num_heads; ++h) {
      if (labels[h] == kNoLabel) continue;
      const Gaussian first = single(chosen, h), second = single(rejected, h);
      count_pair(first.mu - second.mu, labels[h]);
      count_head(h, first.mu - second.mu, labels[h]);
      if (options_.loss == RankingLoss::regression || head_weight(h) == 0) continue;
      Slopes slopes;
      const double share = head_weight(h) / (total_weight * in_.denominator);
      value += share * compare(first, second, labels[h], pair, h, &slopes);
      spread_single(chosen, h, share * slopes.first, share * slopes.variance, 1);
      spread_single(rejected, h, share * slopes.second, share * slopes.variance, 1);
    }
    return value;
  }

  double add_target(int64_t score) {
    double total_weight = 0, value = 0;
    for (int64_t h = 0; h < in_.num_heads; ++h)
      total_weight += std::isnan(in_.targets[at(score, h)]) ? 0 : head_weight(h);
    for (int64_t h = 0; h < in_.num_heads; ++h) {
      if (std::isnan(in_.targets[at(score, h)]) || head_weight(h) == 0) continue;
      const double gap = in_.mu[at(score, h)] - in_.targets[at(score, h)];
      const double share = head_weight(h) / (total_weight * in_.denominator);
      value += share * gap * gap;
      grad_mu_[at(score, h)] += scale_ * share * 2 * gap;
    }
    return value;
  }

  const RankingLossOptions& options_;
  const RankingInputs& in_;
  double scale_;
  double *grad_mu_, *grad_log_sigma_;
  RankingMetrics& metrics_;
  Points points_;
};

}  // namespace

void RankingMetrics::merge(const RankingMetrics& other) {
  loss += other.loss;
  pairs += other.pairs;
  decided += other.decided;
  correct += other.correct;
  three_way_correct += other.three_way_correct;
  margin += other.margin;
  scores += other.scores;
  reward += other.reward;
  min_reward = std::min(min_reward, other.min_reward);
  max_reward = std::max(max_reward, other.max_reward);
  head_decided.resize(std::max(head_decided.size(), other.head_decided.size()));
  head_correct.resize(head_decided.size());
  for (size_t h = 0; h < other.head_decided.size(); ++h) {
    head_decided[h] += other.head_decided[h];
    head_correct[h] += other.head_correct[h];
  }
}

bool is_labelled(const RankingInputs& inputs, int64_t pair) {
  if (inputs.labels == nullptr) return true;
  const int8_t* labels = inputs.labels + pair * inputs.num_heads;
  for (int64_t h = 0; h < inputs.num_heads; ++h) {
    if (labels[h] != kNoLabel && (inputs.head_weights == nullptr || inputs.head_weights[h] != 0)) return true;
  }
  return false;
}

bool has_target(const RankingInputs& inputs, int64_t score) {
  if (inputs.targets == nullptr) return false;
  for (int64_t h = 0; h < inputs.num_heads; ++h) {
    const bool weighs = inputs.head_weights == nullptr || inputs.head_weights[h] != 0;
    if (weighs && !std::isnan(inputs.targets[score * inputs.num_heads + h])) return true;
  }
  return false;
}

double count_labelled(RankingLoss loss, const RankingInputs& inputs) {
  double labelled = 0;
  if (loss == RankingLoss::regression) {
    for (int64_t s = 0; s < inputs.num_scores; ++s) labelled += has_target(inputs, s);
  } else {
    for (int64_t p = 0; p < inputs.num_pairs; ++p) labelled += is_labelled(inputs, p);
  }
  return labelled;
}

double ranking_loss(const RankingLossOptions& options, const RankingInputs& inputs, double scale, double* grad_mu,
                    double* grad_log_sigma, RankingMetrics* metrics) {
  RankingMetrics own;
  const double loss = Ranking(options, inputs, scale, grad_mu, grad_log_sigma, own).run();
  if (metrics != nullptr) metrics->merge(own);
  return loss;
}

void name_ranking_metrics(const RankingMetrics& m, std::map<std::string, double>* named) {
  (*named)["ranking_loss"] = m.loss;
  if (m.scores > 0) {
    (*named)["mean_reward"] = m.reward / m.scores;
    (*named)["min_reward"] = m.min_reward;
    (*named)["max_reward"] = m.max_reward;
  }
  if (m.decided > 0) {
    (*named)["accuracy"] = m.correct / m.decided;
    (*named)["margin"] = m.margin / m.decided;
  }
  if (m.pairs > 0) (*named)["accuracy_with_ties"] = m.three_way_correct / m.pairs;
  for (size_t h = 0; h < m.head_decided.size(); ++h) {
    if (m.head_decided[h] > 0)
      (*named)["head/" + std::to_string(h) + "/accuracy"] = m.head_correct[h] / m.head_decided[h];
  }
}

}  // namespace gavel
