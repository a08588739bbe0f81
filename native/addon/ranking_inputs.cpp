#include "addon/ranking_inputs.h"

#include <cmath>
#include <limits>

namespace gavel {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

template <class Real>
void demand_finite_of(const Argument& argument, const std::vector<Real>& values, bool missing_allowed) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i]) || (missing_allowed && std::isnan(values[i]))) continue;
    argument.fail_as(
        Code::bad_data, missing_allowed ? "finite numbers, or NaN where one is missing," : "finite numbers",
        std::string(std::isnan(values[i]) ? "NaN" : "an infinite one") + " at index " + std::to_string(i), "");
  }
}

}  // namespace

void demand_finite(const Argument& argument, const std::vector<float>& values, bool missing_allowed) {
  demand_finite_of(argument, values, missing_allowed);
}
void demand_finite(const Argument& argument, const std::vector<double>& values, bool missing_allowed) {
  demand_finite_of(argument, values, missing_allowed);
}

std::vector<int8_t> ranking_labels_from(const Argument& argument) {
  std::vector<int8_t> labels;
  for (int32_t value : argument.int32s()) {
    if (value < -1 || value > kNoLabel) argument.fail("labels 1 (chosen), -1 (rejected), 0 (tie) or 2 (none)");
    labels.push_back(static_cast<int8_t>(value));
  }
  return labels;
}

std::vector<double> head_weights_from(const Argument& argument) {
  std::vector<double> weights;
  for (uint32_t i = 0; i < argument.length(); ++i) weights.push_back(argument[i].number(0, kInfinity));
  return weights;
}

RankingLossOptions ranking_loss_options_from(const Argument& given) {
  RankingLossOptions options;
  options.loss = static_cast<RankingLoss>(
      given["loss"].choice({"bradley_terry", "bradley_terry_ties", "regression", "uncertainty"}));
  options.margin = given["margin"].number();
  options.tie_ratio = given["tieRatio"].number();
  if (options.tie_ratio <= 1) given["tieRatio"].fail("a number > 1");
  options.estimator =
      static_cast<UncertaintyEstimator>(given["estimator"].choice({"quadrature", "probit", "monte_carlo"}));
  options.form = static_cast<UncertaintyForm>(given["form"].choice({"log_expectation", "expectation_log"}));
  if (options.estimator == UncertaintyEstimator::probit && options.form == UncertaintyForm::expectation_log)
    given["form"].fail("'log_expectation' for the estimator 'probit'");
  options.nodes = static_cast<int32_t>(given["nodes"].integer(1, 128));
  options.samples = static_cast<int32_t>(given["samples"].integer(1, 1 << 20));
  options.seed = given["seed"].counter();
  options.log_sigma_min = given["logSigmaMin"].number(-50, 50);
  options.log_sigma_max = given["logSigmaMax"].number(options.log_sigma_min, 50);
  options.centring = given["centring"].number(0, kInfinity);
  options.fusion = static_cast<HeadFusion>(given["fusion"].choice({"mean", "min", "sum"}));
  return options;
}

RewardHeadOptions reward_head_options_from(const Argument& options) {
  RewardHeadOptions head;
  head.heads = static_cast<int32_t>(options["heads"].integer(1, 1024));
  head.token = static_cast<int32_t>(options["token"].integer(0, kMaxInt32));
  head.seed = options["seed"].counter();
  head.hidden_sizes.clear();
  const Argument sizes = options["hiddenSizes"];
  for (uint32_t i = 0; i < sizes.length(); ++i)
    head.hidden_sizes.push_back(static_cast<int32_t>(sizes[i].integer(1, 1 << 20)));
  return head;
}

RankingObjective ranking_objective_from(const Argument& objective) {
  RankingObjective ranking;
  ranking.options = ranking_loss_options_from(objective);
  if (const Argument pairs = objective["pairs"]; !pairs.absent()) {
    ranking.chosen = pairs["chosen"].int32s();
    ranking.rejected = pairs["rejected"].int32s();
    if (const Argument margins = pairs["margins"]; !margins.absent()) {
      ranking.margins = margins.float32s();
      demand_finite(margins, ranking.margins, false);
    }
    if (const Argument ties = pairs["ties"]; !ties.absent()) ranking.ties = ties.uint8s();
    if (const Argument labels = pairs["labels"]; !labels.absent()) ranking.labels = ranking_labels_from(labels);
  }
  if (const Argument targets = objective["targets"]; !targets.absent()) {
    ranking.targets = targets.float32s();
    demand_finite(targets, ranking.targets, true);
  }
  if (const Argument weights = objective["headWeights"]; !weights.absent())
    ranking.head_weights = head_weights_from(weights);
  if (const Argument count = objective["stepCount"]; !count.absent()) {
    ranking.step_count = count.number();
    if (ranking.step_count <= 0) count.fail("a number > 0");
  }
  return ranking;
}

}  // namespace gavel
