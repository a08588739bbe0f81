#include "addon/grpo_kernel.h"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "addon/arguments.h"
#include "addon/environment.h"
#include "addon/inputs.h"
#include "addon/outputs.h"
#include "train/grpo_loss.h"
#include "train/objectives.h"

namespace gavel {
namespace {

void read_optional(const Argument& argument, double* value) {
  if (!argument.absent()) *value = argument.number();
}

GrpoLossOptions loss_options_from(const Argument& options) {
  const GrpoObjective objective = grpo_options_from(options);
  GrpoLossOptions loss;
  parse_loss_type(objective.loss_type, &loss.loss);
  loss.level = objective.sequence_level ? ImportanceLevel::sequence : ImportanceLevel::token;
  loss.eps_low = objective.epsilon_low;
  loss.eps_high = objective.epsilon_high;
  loss.delta = objective.delta;
  loss.beta = objective.beta;
  loss.kl_bias_correction = objective.kl_bias_correction;
  loss.kl_clamp = objective.kl_clamp;
  loss.max_completion_length = static_cast<double>(std::max<int64_t>(objective.max_completion_length, 1));
  read_optional(options["offPolicyThreshold"], &loss.off_policy_threshold);
  read_optional(options["sapoTemperaturePositive"], &loss.sapo_temperature_positive);
  read_optional(options["sapoTemperatureNegative"], &loss.sapo_temperature_negative);
  read_optional(options["vespoKPositive"], &loss.vespo_k_positive);
  read_optional(options["vespoLambdaPositive"], &loss.vespo_lambda_positive);
  read_optional(options["vespoKNegative"], &loss.vespo_k_negative);
  read_optional(options["vespoLambdaNegative"], &loss.vespo_lambda_negative);
  read_optional(options["entropyCoef"], &loss.entropy_coef);
  return loss;
}

std::vector<double> row_doubles(const Argument& argument, size_t count, bool demanded) {
  if (argument.absent() && !demanded) return {};
  std::vector<double> values = argument.float64s();
  if (values.size() != count) argument.fail(std::to_string(count) + " elements");
  return values;
}

std::vector<int32_t> offsets_from(const Argument& argument, size_t num_targets) {
  std::vector<int32_t> offsets = argument.int32s();
  bool ordered = !offsets.empty() && offsets.front() == 0 && offsets.back() == static_cast<int32_t>(num_targets);
  for (size_t i = 1; ordered && i < offsets.size(); ++i) ordered = offsets[i - 1] <= offsets[i];
  if (!ordered) argument.fail("offsets that rise from 0 to " + std::to_string(num_targets));
  return offsets;
}

const double* data_or_null(const std::vector<double>& values) { return values.empty() ? nullptr : values.data(); }

}  // namespace

Napi::Value grpo_loss_kernel(const Napi::CallbackInfo& info) {
  const Argument input(info[0], "input");
  const std::vector<double> logprobs = input["logprobs"].float64s();
  const size_t count = logprobs.size();
  const std::vector<int32_t> offsets = offsets_from(input["offsets"], count);
  const size_t sequences = offsets.size() - 1;
  const Argument mask_argument = input["mask"];
  const std::vector<uint8_t> mask = mask_argument.uint8s();
  if (mask.size() != count) mask_argument.fail(std::to_string(count) + " elements");
  GrpoLossOptions options = loss_options_from(input["options"]);
  options.num_sequences = input["numSequences"].number(1, 1e15);
  options.num_tokens = input["numTokens"].number(1, 1e15);
  const std::vector<double> old = row_doubles(input["oldLogprobs"], count, false);
  const std::vector<double> reference = row_doubles(input["referenceLogprobs"], count, options.beta != 0);
  const std::vector<double> sampling = row_doubles(input["samplingLogprobs"], count, false);
  const std::vector<double> ratio = row_doubles(input["importanceRatio"], count, false);
  const std::vector<double> entropies = row_doubles(input["entropies"], count, options.entropy_coef != 0);
  const std::vector<double> token_advantages = row_doubles(input["tokenAdvantages"], count, false);
  const std::vector<double> advantages = row_doubles(input["advantages"], sequences, input["tokenAdvantages"].absent());
  if (const Argument top = input["options"]["topEntropyQuantile"]; !top.absent()) {
    if (entropies.empty()) input["entropies"].fail("Float64Array, since topEntropyQuantile is given,");
    options.entropy_threshold =
        entropy_threshold<double>(static_cast<int64_t>(count), entropies.data(), mask.data(), top.number(0, 1));
  }

  GrpoLossInputs<double> inputs;
  inputs.num_sequences = static_cast<int64_t>(sequences);
  inputs.offsets = offsets.data();
  inputs.logprob = logprobs.data();
  inputs.old = data_or_null(old);
  inputs.reference = data_or_null(reference);
  inputs.sampling = data_or_null(sampling);
  inputs.importance_ratio = data_or_null(ratio);
  inputs.entropy = data_or_null(entropies);
  inputs.mask = mask.data();
  inputs.advantages = advantages.data();
  inputs.token_advantages = data_or_null(token_advantages);
  std::vector<double> gradient(count), entropy_gradient(count);
  GrpoMetrics metrics;
  const double loss = grpo_loss<double>(options, inputs, gradient.data(), entropy_gradient.data(), &metrics);
  std::map<std::string, double> named;
  name_grpo_metrics(options.loss, metrics, &named);

  const Napi::Env env = info.Env();
  Napi::Object result = Napi::Object::New(env);
  result.Set("loss", Napi::Number::New(env, loss));
  result.Set("gradient", doubles_to_js(env, gradient));
  result.Set("entropyGradient", doubles_to_js(env, entropy_gradient));
  result.Set("metrics", numbers_to_js(env, named));
  return result;
}

}  // namespace gavel
