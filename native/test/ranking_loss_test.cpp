// Ranking losses: PyTorch's float64 autograd and quadrature (test/goldens/ranking.safetensors), TRL's Bradley-Terry,
// finite differences, and numbers worked out by hand.
#include "train/ranking_loss.h"

#include <numbers>

#include "test/golden_file.h"
#include "test/op_test.h"
#include "train/gauss_hermite.h"

namespace gavel::test {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// One call's inputs in vectors.
struct Scores {
  int64_t scores = 0, heads = 1;
  std::vector<double> mu, log_sigma, margins, targets, head_weights;
  std::vector<int32_t> chosen, rejected;
  std::vector<uint8_t> ties;
  std::vector<int8_t> labels;

  RankingInputs inputs() const {
    const auto optional = [](const auto& values) { return values.empty() ? nullptr : values.data(); };
    RankingInputs in;
    in.num_scores = scores;
    in.num_heads = heads;
    in.mu = mu.data();
    in.log_sigma = log_sigma.data();
    in.num_pairs = static_cast<int64_t>(chosen.size());
    in.chosen = chosen.data();
    in.rejected = rejected.data();
    in.margins = optional(margins);
    in.ties = optional(ties);
    in.labels = optional(labels);
    in.targets = optional(targets);
    in.head_weights = optional(head_weights);
    return in;
  }
};

struct Outcome {
  double loss = 0;
  std::vector<double> grad_mu, grad_log_sigma;
  RankingMetrics metrics;
};

Outcome run(const RankingLossOptions& options, const Scores& scores, double denominator, double scale = 1) {
  RankingInputs in = scores.inputs();
  in.denominator = denominator;
  Outcome outcome;
  outcome.grad_mu.resize(scores.mu.size());
  outcome.grad_log_sigma.resize(scores.mu.size());
  outcome.loss =
      ranking_loss(options, in, scale, outcome.grad_mu.data(), outcome.grad_log_sigma.data(), &outcome.metrics);
  return outcome;
}

RankingLossOptions uncertain(UncertaintyForm form = UncertaintyForm::log_expectation) {
  RankingLossOptions options;
  options.loss = RankingLoss::uncertainty;
  options.form = form;
  return options;
}

// One pair whose difference is N(m, s^2).
Scores difference(double m, double s) {
  Scores scores;
  scores.scores = 2;
  scores.mu = {m, 0};
  scores.log_sigma = {std::log(s / std::numbers::sqrt2), std::log(s / std::numbers::sqrt2)};
  scores.chosen = {0};
  scores.rejected = {1};
  return scores;
}

RankingLossOptions wide(RankingLossOptions options) {
  options.log_sigma_min = -20;
  options.log_sigma_max = 20;
  return options;
}

template <class To>
std::vector<To> converted(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}

}  // namespace

TEST("ranking losses and gradients equal PyTorch's in float64") {
  const GoldenFile golden("ranking");
  struct Case {
    std::string name;
    RankingLossOptions options;
    bool margins = false, ties = false, labels = false, targets = false;
    double tolerance = 1e-9;
  };
  RankingLossOptions bt, btt, regression, sum, least, centred, probit = uncertain();
  btt.loss = RankingLoss::bradley_terry_ties;
  regression.loss = RankingLoss::regression;
  sum.fusion = HeadFusion::sum;
  sum.margin = 0.25;
  sum.centring = 0.01;
  least.fusion = HeadFusion::min;
  centred.centring = 0.02;
  probit.estimator = UncertaintyEstimator::probit;
  RankingLossOptions uncertain_sum = uncertain(), uncertain_least = uncertain();
  uncertain_sum.fusion = HeadFusion::sum;
  uncertain_least.fusion = HeadFusion::min;
  const RankingLossOptions log_of = uncertain(), of_log = uncertain(UncertaintyForm::expectation_log);
  // One score has a sigma of 7.4, where 64 nodes are good to a few thousandths.
  const double coarse = 5e-3;
  const Case cases[] = {
      {"bt", bt},
      {"bt_margins_centred", sum, true},
      {"bt_min", least},
      {"bt_labels", centred, true, false, true},
      {"btt", btt, false, true},
      {"btt_labels", btt, false, false, true},
      {"regression", regression, false, false, false, true},
      {"log_expectation", log_of, false, false, false, false, 1e-5},
      {"log_expectation_sum", uncertain_sum, true, false, false, false, coarse},
      {"log_expectation_min", uncertain_least, false, false, false, false, coarse},
      {"log_expectation_labels", log_of, false, false, true, false, coarse},
      {"expectation_log", of_log, false, false, false, false, 1e-4},
      {"expectation_log_labels", of_log, false, false, true, false, coarse},
      {"probit", probit},
      {"probit_labels", probit, false, false, true},
  };
  for (const Case& one : cases) {
    Scores scores;
    scores.scores = 7;
    scores.heads = 3;
    scores.mu = golden.values("mu");
    scores.log_sigma = golden.values("log_sigma");
    scores.chosen = converted<int32_t>(golden.values("chosen"));
    scores.rejected = converted<int32_t>(golden.values("rejected"));
    if (one.margins) scores.margins = golden.values("margins");
    if (one.ties) scores.ties = converted<uint8_t>(golden.values("ties"));
    if (one.labels) {
      const bool tied = one.options.loss == RankingLoss::bradley_terry_ties;
      scores.labels = converted<int8_t>(golden.values(tied ? "tie_labels" : "labels"));
    }
    if (one.labels || one.targets) scores.head_weights = golden.values("head_weights");
    if (one.targets) {
      scores.targets = golden.values("targets");
      scores.chosen.clear();
      scores.rejected.clear();
    }
    double denominator = 0;
    for (int64_t p = 0; p < scores.inputs().num_pairs; ++p) denominator += is_labelled(scores.inputs(), p);
    if (one.targets) {
      for (int64_t s = 0; s < 7; ++s) denominator += has_target(scores.inputs(), s);
    }
    const Outcome got = run(one.options, scores, denominator);
    const double want = golden.values(one.name + ".loss")[0];
    if (!(std::fabs(got.loss - want) <= one.tolerance))
      fail(__FILE__, __LINE__, one.name + ": " + std::to_string(got.loss) + " against " + std::to_string(want));
    CHECK_MAX_ABS(got.grad_mu, golden.values(one.name + ".grad_mu"), one.tolerance);
    CHECK_MAX_ABS(got.grad_log_sigma, golden.values(one.name + ".grad_log_sigma"), one.tolerance);
    if (one.options.loss != RankingLoss::uncertainty || one.options.fusion == HeadFusion::min) continue;
    CHECK(got.grad_log_sigma[0] == 0.0);  // beyond the clamp
  }
}

TEST("bradley_terry is TRL's, with margin and centring") {
  const GoldenFile golden("ranking");
  for (const auto& [name, margin, centring] :
       {std::tuple{"plain", false, 0.0}, {"margin", true, 0.0}, {"centered", false, 0.01}, {"both", true, 0.01}}) {
    Scores scores;
    scores.scores = 12;
    scores.mu = golden.values("trl.chosen");
    for (double value : golden.values("trl.rejected")) scores.mu.push_back(value);
    scores.log_sigma.resize(12);
    for (int32_t p = 0; p < 6; ++p) {
      scores.chosen.push_back(p);
      scores.rejected.push_back(6 + p);
    }
    if (margin) scores.margins = golden.values("trl.margin");
    RankingLossOptions options;
    options.centring = centring;
    const Outcome got = run(options, scores, 6);
    CHECK_NEAR(got.loss, golden.values(std::string("trl.") + name + ".loss")[0], 1e-12);
    CHECK_MAX_ABS(got.grad_mu, golden.values(std::string("trl.") + name + ".grad"), 1e-12);
  }
}

TEST("the two forms of the uncertainty loss are what they say") {
  // The numbers that tell the forms apart: 1.64 against 1.04.
  CHECK_NEAR(run(uncertain(UncertaintyForm::expectation_log), difference(-1, 2), 1).loss, 1.64, 5e-3);
  CHECK_NEAR(run(uncertain(), difference(-1, 2), 1).loss, 1.04, 5e-3);
  const GoldenFile golden("ranking");
  const std::vector<double> m = golden.values("grid.m"), s = golden.values("grid.s");
  for (const auto& [name, form] : {std::pair{"grid.log_expectation", UncertaintyForm::log_expectation},
                                   {"grid.expectation_log", UncertaintyForm::expectation_log}}) {
    const std::vector<double> want = golden.values(name);
    double worst_16 = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      RankingLossOptions options = wide(uncertain(form));
      const double tolerance = s[i] <= 2 ? 1e-5 : s[i] <= 5 ? 1e-3 : 1e-2;
      CHECK_NEAR(run(options, difference(m[i], s[i]), 1).loss, want[i], tolerance * std::max(1.0, want[i]));
      options.nodes = 16;
      worst_16 = std::max(worst_16, std::fabs(run(options, difference(m[i], s[i]), 1).loss - want[i]) / want[i]);
      // Jensen: E[-log sigmoid] >= -log E[sigmoid].
      CHECK_LE(run(wide(uncertain()), difference(m[i], s[i]), 1).loss,
               run(wide(uncertain(UncertaintyForm::expectation_log)), difference(m[i], s[i]), 1).loss + 1e-12);
    }
    // Why 64 nodes: 16 are off by several hundredths at s^2 = 100.
    if (form == UncertaintyForm::log_expectation) CHECK_LE(0.02, worst_16);
  }
}

TEST("gauss_hermite integrates polynomials exactly") {
  for (int32_t count : {1, 2, 3, 5, 16, 17, 64, 128}) {
    const HermiteRule rule = gauss_hermite(count);
    double moment = std::sqrt(std::numbers::pi);  // of x^0; of x^2k it is (2k - 1)/2 times the one before
    for (int32_t k = 0; k < std::min(count, 6); ++k) {
      if (k > 0) moment *= (2 * k - 1) / 2.0;
      double sum = 0, odd = 0;
      for (int32_t i = 0; i < count; ++i) {
        const auto at = static_cast<size_t>(i);
        sum += rule.weights[at] * std::pow(rule.nodes[at], 2 * k);
        odd += rule.weights[at] * std::pow(rule.nodes[at], 2 * k + 1);
        if (i > 0) CHECK(rule.nodes[at] > rule.nodes[at - 1]);
      }
      CHECK_LE(std::fabs(sum / moment - 1), 1e-11);
      CHECK_LE(std::fabs(odd), 1e-10 * moment);
    }
  }
}

TEST("ranking gradients are finite differences, for every loss, fusion and estimator") {
  std::vector<std::pair<RankingLossOptions, bool>> cases;
  for (RankingLoss loss : {RankingLoss::bradley_terry, RankingLoss::bradley_terry_ties, RankingLoss::regression,
                           RankingLoss::uncertainty}) {
    for (HeadFusion fusion : {HeadFusion::mean, HeadFusion::min, HeadFusion::sum}) {
      for (bool labelled : {false, true}) {
        for (UncertaintyEstimator estimator :
             {UncertaintyEstimator::quadrature, UncertaintyEstimator::probit, UncertaintyEstimator::monte_carlo}) {
          RankingLossOptions options;
          options.loss = loss;
          options.fusion = fusion;
          options.estimator = estimator;
          options.samples = 33;
          options.seed = 4;
          options.margin = 0.1;
          options.centring = 0.03;
          cases.emplace_back(options, labelled);
          if (loss != RankingLoss::uncertainty) break;
          if (estimator == UncertaintyEstimator::probit) continue;
          options.form = UncertaintyForm::expectation_log;
          cases.emplace_back(options, labelled);
        }
      }
    }
  }
  for (const auto& [options, labelled] : cases) {
    Scores scores;
    scores.scores = 4;
    scores.heads = 2;
    scores.chosen = {0, 2, 1};
    scores.rejected = {1, 3, 3};
    scores.head_weights = {1.5, 0.5};
    const bool ties = options.loss == RankingLoss::bradley_terry_ties;
    if (labelled) scores.labels = {1, -1, 1, kNoLabel, ties ? int8_t{0} : int8_t{-1}, 1};
    if (!labelled && ties) scores.ties = {0, 1, 0};
    if (options.loss == RankingLoss::regression) scores.targets = {0.5, kNan, 1, 2, kNan, kNan, -1, 0};
    const std::vector<double> at = random_values(16, 8, 1.5);
    const auto loss = [&, &options = options](const std::vector<double>& values) {
      scores.mu.assign(values.begin(), values.begin() + 8);
      scores.log_sigma.assign(values.begin() + 8, values.end());
      return run(options, scores, 3, 0.7);
    };
    const Outcome outcome = loss(at);
    std::vector<double> gradient = outcome.grad_mu;
    gradient.insert(gradient.end(), outcome.grad_log_sigma.begin(), outcome.grad_log_sigma.end());
    // The gradient carries the scale, the loss does not.
    CHECK_LE(gradient_error([&](const std::vector<double>& values) { return 0.7 * loss(values).loss; }, at, gradient,
                            0x1p-10),
             1e-7);
  }
}

TEST("a hopeless pair keeps its gradient and stays finite") {
  for (double m : {-3000.0, -40.0, 40.0, 3000.0}) {
    for (double s : {1e-3, 1.0, 7.0}) {
      for (UncertaintyForm form : {UncertaintyForm::log_expectation, UncertaintyForm::expectation_log}) {
        const Outcome outcome = run(uncertain(form), difference(m, s), 1);
        CHECK(std::isfinite(outcome.loss) && std::isfinite(outcome.grad_mu[0]));
        if (m < 0) CHECK_LE(outcome.grad_mu[0], -0.4);
      }
    }
    const Outcome plain = run(RankingLossOptions{}, difference(m, 1), 1);
    CHECK(std::isfinite(plain.loss));
  }
}

TEST("monte carlo draws belong to the pair, not to its place, and converge to the quadrature") {
  RankingLossOptions options = uncertain();
  options.estimator = UncertaintyEstimator::monte_carlo;
  options.samples = 200000;
  options.seed = 3;
  CHECK_NEAR(run(options, difference(-1, 2), 1).loss, run(uncertain(), difference(-1, 2), 1).loss, 5e-3);
  options.samples = 8;
  Scores both = difference(-1, 2);
  both.scores = 4;
  both.mu = {-1, 0, -1, 0};
  both.log_sigma.resize(4, both.log_sigma[0]);
  both.chosen = {0, 2};
  both.rejected = {1, 3};
  const Outcome whole = run(options, both, 1);
  RankingInputs second = both.inputs();
  const int64_t id = 1;
  second.num_pairs = 1;
  second.chosen = both.chosen.data() + 1;
  second.rejected = both.rejected.data() + 1;
  second.pair_ids = &id;
  std::vector<double> grad_mu(4), grad_log_sigma(4);
  ranking_loss(options, second, 1, grad_mu.data(), grad_log_sigma.data(), nullptr);
  CHECK(grad_mu[2] == whole.grad_mu[2]);
  CHECK(whole.grad_mu[2] != whole.grad_mu[0]);
}

TEST("ranking metrics count wins, ties and heads") {
  Scores scores;
  scores.scores = 4;
  scores.heads = 2;
  scores.mu = {3, 1, 0, 0, 5, -5, 2, 2};
  scores.log_sigma.resize(8);
  scores.chosen = {0, 1, 2};
  scores.rejected = {1, 3, 1};
  scores.ties = {0, 0, 1};
  RankingLossOptions options;
  options.loss = RankingLoss::bradley_terry_ties;
  const RankingMetrics metrics = run(options, scores, 3).metrics;
  // Fused: 2, 0, 0, 2. Pair 0 is won, pair 1 lost, pair 2 an even tie.
  CHECK(metrics.pairs == 3 && metrics.decided == 2 && metrics.correct == 1);
  CHECK(metrics.three_way_correct == 2);  // 2 > log 5, and 0 is a tie
  CHECK_NEAR(metrics.margin, 0.0, 1e-12);
  CHECK(metrics.scores == 4 && metrics.min_reward == 0 && metrics.max_reward == 2);
  CHECK_NEAR(metrics.reward, 4.0, 1e-12);
  CHECK(metrics.head_decided[0] == 2 && metrics.head_correct[0] == 1 && metrics.head_correct[1] == 1);
  RankingMetrics sum;
  sum.merge(metrics);
  sum.merge(metrics);
  CHECK(sum.pairs == 6 && sum.min_reward == 0 && sum.head_decided[1] == 4);
}

}  // namespace gavel::test
