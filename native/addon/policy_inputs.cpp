#include "addon/policy_inputs.h"

#include <algorithm>
#include <limits>

namespace gavel {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

void read_optional(const Argument& argument, double minimum, double* value) {
  if (!argument.absent()) *value = argument.number(minimum, kInfinity);
}

void read_positive(const Argument& argument, double* value) {
  if (argument.absent()) return;
  *value = argument.number();
  if (*value <= 0) argument.fail("a number > 0");
}

void read_dual_clip(const Argument& argument, GrpoLossOptions* loss) {
  if (argument.absent()) return;
  loss->dual_clip = argument.number();
  if (loss->dual_clip == 0) return;
  if (loss->dual_clip <= 1) {
    argument.fail("0, which is off, or a number > 1", "On-policy ratios are 1: a smaller bound would cut them all.");
  }
  if (!clips_ratio(loss->loss)) {
    argument.fail("0 with a loss type that does not clip the ratio", "Use grpo, bnpo, dr_grpo, dapo or luspo.");
  }
}

void read_entropy_filter(const Argument& options, GrpoObjective* grpo) {
  if (const Argument top = options["topEntropyQuantile"]; !top.absent()) {
    grpo->top_entropy_quantile = top.number();
    if (!(grpo->top_entropy_quantile > 0 && grpo->top_entropy_quantile <= 1)) {
      top.fail("a number > 0 and <= 1", "It is the share of active tokens that is trained; 1 is all of them.");
    }
  }
  if (const Argument threshold = options["entropyThreshold"]; !threshold.absent()) {
    grpo->loss.entropy_threshold = threshold.number();
    if (wants_entropy_threshold(*grpo)) {
      threshold.fail("no value beside topEntropyQuantile", "The threshold is either given or found.");
    }
  }
}

}  // namespace

GrpoObjective grpo_objective_from(const Argument& options) {
  GrpoObjective grpo;
  GrpoLossOptions& loss = grpo.loss;
  loss.loss = static_cast<PolicyLoss>(
      options["lossType"].choice({"grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"}));
  loss.level = static_cast<ImportanceLevel>(options["importanceSampling"].choice({"token", "sequence"}));
  loss.eps_low = options["epsilonLow"].number(0, kInfinity);
  loss.eps_high = options["epsilonHigh"].number(0, kInfinity);
  loss.delta = options["delta"].number(0, kInfinity);
  read_dual_clip(options["dualClip"], &loss);
  loss.beta = options["beta"].number(0, kInfinity);
  if (const Argument estimator = options["klEstimator"]; !estimator.absent()) {
    loss.kl_estimator = static_cast<KlEstimator>(estimator.choice({"k1", "k2", "k3"}));
  }
  loss.kl_bias_correction = options["klBiasCorrection"].boolean();
  loss.kl_clamp = options["klClamp"].number(0, kInfinity);
  loss.max_completion_length =
      static_cast<double>(std::max<int64_t>(options["maxCompletionLength"].integer(0, kMaxInt32), 1));
  read_optional(options["entropyCoef"], -kInfinity, &loss.entropy_coef);
  read_entropy_filter(options, &grpo);
  read_optional(options["offPolicyThreshold"], 0, &loss.off_policy_threshold);
  read_positive(options["sapoTemperaturePositive"], &loss.sapo_temperature_positive);
  read_positive(options["sapoTemperatureNegative"], &loss.sapo_temperature_negative);
  read_optional(options["vespoKPositive"], 0, &loss.vespo_k_positive);
  read_optional(options["vespoLambdaPositive"], 0, &loss.vespo_lambda_positive);
  read_optional(options["vespoKNegative"], 0, &loss.vespo_k_negative);
  read_optional(options["vespoLambdaNegative"], 0, &loss.vespo_lambda_negative);
  return grpo;
}

DpoLossOptions dpo_options_from(const Argument& options) {
  DpoLossOptions loss;
  loss.loss = static_cast<DpoLoss>(options["loss"].choice({"sigmoid", "ipo"}));
  const Argument beta = options["beta"], smoothing = options["labelSmoothing"];
  loss.beta = beta.number();
  if (loss.beta <= 0) beta.fail("a number > 0");
  loss.label_smoothing = smoothing.number();
  if (!(loss.label_smoothing >= 0 && loss.label_smoothing < 0.5)) {
    smoothing.fail("a number >= 0 and < 0.5", "It is the share of preferences that are the wrong way round.");
  }
  if (loss.loss == DpoLoss::ipo && loss.label_smoothing != 0) smoothing.fail("0 with the loss 'ipo'");
  return loss;
}

DpoObjective dpo_objective_from(const Argument& options) {
  DpoObjective dpo;
  dpo.loss = dpo_options_from(options);
  dpo.loss.num_pairs = 0;
  if (const Argument pairs = options["stepPairs"]; !pairs.absent()) read_positive(pairs, &dpo.loss.num_pairs);
  const Argument pairs = options["pairs"];
  dpo.chosen = pairs["chosen"].int32s();
  dpo.rejected = pairs["rejected"].int32s();
  return dpo;
}

}  // namespace gavel
