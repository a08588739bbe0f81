#include "addon/policy_kernels.h"

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "addon/arguments.h"
#include "addon/environment.h"
#include "addon/outputs.h"
#include "addon/policy_inputs.h"
#include "train/dpo_objective.h"
#include "train/grpo_objective.h"

namespace gavel {
namespace {

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

std::vector<uint8_t> mask_from(const Argument& argument, size_t count) {
  std::vector<uint8_t> mask = argument.uint8s();
  if (mask.size() != count) argument.fail(std::to_string(count) + " elements");
  return mask;
}

std::vector<int32_t> sequences_from(const Argument& argument, size_t num_sequences) {
  std::vector<int32_t> sequences = argument.int32s();
  if (sequences.empty()) argument.fail("at least one sequence");
  for (size_t i = 0; i < sequences.size(); ++i) {
    if (sequences[i] < 0 || sequences[i] >= static_cast<int32_t>(num_sequences)) {
      argument.fail_as(Code::invalid_argument, "sequences from 0 to " + std::to_string(num_sequences - 1),
                       std::to_string(sequences[i]) + " at index " + std::to_string(i), "");
    }
  }
  return sequences;
}

const double* data_or_null(const std::vector<double>& values) { return values.empty() ? nullptr : values.data(); }

}  // namespace

Napi::Value grpo_loss_kernel(const Napi::CallbackInfo& info) {
  const Argument input(info[0], "input");
  const std::vector<double> logprobs = input["logprobs"].float64s();
  const size_t count = logprobs.size();
  const std::vector<int32_t> offsets = offsets_from(input["offsets"], count);
  const size_t sequences = offsets.size() - 1;
  const std::vector<uint8_t> mask = mask_from(input["mask"], count);
  const GrpoObjective objective = grpo_objective_from(input["options"]);
  GrpoLossOptions options = objective.loss;
  options.num_sequences = input["numSequences"].number(1, 1e15);
  options.num_tokens = input["numTokens"].number(1, 1e15);
  const std::vector<double> old = row_doubles(input["oldLogprobs"], count, false);
  const std::vector<double> reference = row_doubles(input["referenceLogprobs"], count, options.beta != 0);
  const std::vector<double> sampling = row_doubles(input["samplingLogprobs"], count, false);
  const std::vector<double> ratio = row_doubles(input["importanceRatio"], count, false);
  const std::vector<double> entropies = row_doubles(input["entropies"], count, options.entropy_coef != 0);
  const std::vector<double> token_advantages = row_doubles(input["tokenAdvantages"], count, false);
  const std::vector<double> advantages = row_doubles(input["advantages"], sequences, input["tokenAdvantages"].absent());
  const bool filters = wants_entropy_threshold(objective) || std::isfinite(options.entropy_threshold);
  if (filters && entropies.empty()) {
    input["entropies"].fail("Float64Array, since tokens are filtered by entropy,");
  }
  if (wants_entropy_threshold(objective)) {
    options.entropy_threshold = entropy_threshold<double>(static_cast<int64_t>(count), entropies.data(), mask.data(),
                                                          objective.top_entropy_quantile);
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
  name_grpo_metrics(options, metrics, &named);

  const Napi::Env env = info.Env();
  Napi::Object result = Napi::Object::New(env);
  result.Set("loss", Napi::Number::New(env, loss));
  result.Set("gradient", doubles_to_js(env, gradient));
  result.Set("entropyGradient", doubles_to_js(env, entropy_gradient));
  result.Set("metrics", numbers_to_js(env, named));
  return result;
}

Napi::Value dpo_loss_kernel(const Napi::CallbackInfo& info) {
  const Argument input(info[0], "input");
  const std::vector<double> logprobs = input["logprobs"].float64s();
  const size_t count = logprobs.size();
  const std::vector<int32_t> offsets = offsets_from(input["offsets"], count);
  const size_t sequences = offsets.size() - 1;
  const std::vector<double> reference = row_doubles(input["referenceLogprobs"], count, true);
  const std::vector<uint8_t> mask = mask_from(input["mask"], count);
  const std::vector<int32_t> chosen = sequences_from(input["chosen"], sequences);
  const std::vector<int32_t> rejected = sequences_from(input["rejected"], sequences);
  if (rejected.size() != chosen.size()) input["rejected"].fail(std::to_string(chosen.size()) + " elements");
  for (size_t p = 0; p < chosen.size(); ++p) {
    if (chosen[p] != rejected[p]) continue;
    input["rejected"].fail_as(Code::invalid_argument, "two sequences a pair",
                              "sequence " + std::to_string(chosen[p]) + " twice at index " + std::to_string(p), "");
  }
  DpoLossOptions options = dpo_options_from(input["options"]);
  options.num_pairs = input["numPairs"].number(1, 1e15);

  DpoLossInputs<double> inputs;
  inputs.num_pairs = static_cast<int64_t>(chosen.size());
  inputs.num_sequences = static_cast<int64_t>(sequences);
  inputs.chosen = chosen.data();
  inputs.rejected = rejected.data();
  inputs.offsets = offsets.data();
  inputs.logprob = logprobs.data();
  inputs.reference = reference.data();
  inputs.mask = mask.data();
  std::vector<double> gradient(count);
  DpoMetrics metrics;
  const double loss = dpo_loss<double>(options, inputs, gradient.data(), &metrics);
  std::map<std::string, double> named;
  name_dpo_metrics(metrics, &named);

  const Napi::Env env = info.Env();
  Napi::Object result = Napi::Object::New(env);
  result.Set("loss", Napi::Number::New(env, loss));
  result.Set("gradient", doubles_to_js(env, gradient));
  result.Set("metrics", numbers_to_js(env, named));
  return result;
}

}  // namespace gavel
