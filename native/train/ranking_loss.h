// Losses of a reward head as one pure function over scores (mu, log sigma) [S, H] and pairs of scores: Bradley-Terry
// (1952) with a margin, with ties (Rao and Kupper 1967), regression, and the uncertainty-aware form r ~ N(mu, sigma^2).
// Heads are one scalar Gaussian (fused), or each head has a preference of its own (labels). Everything in double, in
// ascending order. Denominators belong to the whole optimizer step, so a gradient does not depend on how it is split.
#pragma once
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <vector>

namespace gavel {

enum class RankingLoss : uint8_t { bradley_terry, bradley_terry_ties, regression, uncertainty };
// Of E[f(z)], z ~ N(m, s^2): Gauss-Hermite nodes, sigmoid(m / sqrt(1 + pi s^2 / 8)), or Philox draws.
enum class UncertaintyEstimator : uint8_t { quadrature, probit, monte_carlo };
// -log E[sigmoid(z)], or its upper bound E[-log sigmoid(z)].
enum class UncertaintyForm : uint8_t { log_expectation, expectation_log };
// Of independent Gaussians: their mean, the one of least mu, their sum.
enum class HeadFusion : uint8_t { mean, min, sum };

inline constexpr int8_t kNoLabel = 2;

struct RankingLossOptions {
  RankingLoss loss = RankingLoss::bradley_terry;
  double margin = 0;     // bradley_terry, uncertainty: on top of a pair's own
  double tie_ratio = 5;  // bradley_terry_ties: k > 1 of P(i over j) = e^ri / (e^ri + k e^rj), P(tie) = the rest
  UncertaintyEstimator estimator = UncertaintyEstimator::quadrature;
  UncertaintyForm form = UncertaintyForm::log_expectation;
  int32_t nodes = 64;     // quadrature, 1 to 128
  int32_t samples = 256;  // monte_carlo
  uint64_t seed = 0;
  double log_sigma_min = -5, log_sigma_max = 2;  // uncertainty: clamp, without gradient beyond it
  double centring = 0;                           // + c * mean over pairs of (r_w + r_l)^2
  HeadFusion fusion = HeadFusion::mean;
};

struct RankingInputs {
  int64_t num_scores = 0, num_heads = 1;
  const double* mu = nullptr;         // [S, H]
  const double* log_sigma = nullptr;  // [S, H]
  int64_t num_pairs = 0;
  const int32_t* chosen = nullptr;       // [P] index of a score
  const int32_t* rejected = nullptr;     // [P]
  const double* margins = nullptr;       // [P] or null
  const uint8_t* ties = nullptr;         // [P] 1: neither is better; null: none
  const int8_t* labels = nullptr;        // [P, H] 1 chosen, -1 rejected, 0 tie, kNoLabel; null: heads are fused
  const int64_t* pair_ids = nullptr;     // [P] keys of monte_carlo's draws, whatever the split; null: 0, 1, ...
  const double* targets = nullptr;       // regression: [S, H], NaN where a score is missing
  const double* head_weights = nullptr;  // [H] of labels and targets; null: all 1
  double denominator = 1;                // labelled pairs, or scores with a target, of the whole optimizer step
};

// Sums and counts of one micro-batch; merge() adds another's.
struct RankingMetrics {
  double loss = 0;                             // as returned: already over the denominator
  double pairs = 0, decided = 0, correct = 0;  // pairs, those without a tie, those ranked as labelled
  double three_way_correct = 0;                // win, loss or tie as labelled, over `pairs`
  double margin = 0;                           // r_w - r_l over `decided`
  double scores = 0, reward = 0;               // fused mu of every score
  double min_reward = std::numeric_limits<double>::infinity();
  double max_reward = -std::numeric_limits<double>::infinity();
  std::vector<double> head_decided, head_correct;  // [H]

  void merge(const RankingMetrics& other);
};

/// Whether pair p (its fused preference, or any of its labels) counts in the denominator.
bool is_labelled(const RankingInputs& inputs, int64_t pair);
bool has_target(const RankingInputs& inputs, int64_t score);
/// Labelled pairs, of regression scores with a target: the denominator of a step that is these inputs alone.
double count_labelled(RankingLoss loss, const RankingInputs& inputs);

/// Returns this micro-batch's share of the step's loss and ADDS scale * d loss to grad_mu and grad_log_sigma [S, H].
double ranking_loss(const RankingLossOptions& options, const RankingInputs& inputs, double scale, double* grad_mu,
                    double* grad_log_sigma, RankingMetrics* metrics);

/// Means by the field's names: ranking_loss, accuracy, margin, mean_reward ... What nothing counts for has no entry.
void name_ranking_metrics(const RankingMetrics& metrics, std::map<std::string, double>* named);

}  // namespace gavel
