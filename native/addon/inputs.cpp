#include "addon/inputs.h"

#include <cmath>
#include <limits>

#include "addon/policy_inputs.h"
#include "addon/ranking_inputs.h"

namespace gavel {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// An optional property: the default stays when it is absent.
template <class Value, class Read>
void read_optional(const Argument& argument, Value* value, Read read) {
  if (!argument.absent()) *value = static_cast<Value>(read(argument));
}

double positive(const Argument& argument) {
  const double number = argument.number();
  if (number <= 0) argument.fail("a number > 0");
  return number;
}

bool adapter_is_off(const Argument& argument) { return argument.choice({"on", "off"}) == 1; }

std::vector<int32_t> tokens_from(const Argument& argument) {
  std::vector<int32_t> tokens = argument.int32s();
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0) {
      argument.fail_as(Code::invalid_argument, "token ids >= 0",
                       std::to_string(tokens[i]) + " at index " + std::to_string(i), "");
    }
  }
  return tokens;
}

template <class Element>
void demand_length(const Argument& argument, const std::vector<Element>& values, size_t count) {
  if (values.size() != count) argument.fail(std::to_string(count) + " elements, one per token");
}

void demand_finite(const Argument& argument, const std::vector<float>& values) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      argument.fail_as(
          Code::bad_data, "finite numbers",
          std::string(std::isnan(values[i]) ? "NaN" : "an infinite one") + " at index " + std::to_string(i), "");
    }
  }
}

std::vector<float> row_floats(const Argument& argument, size_t count) {
  if (argument.absent()) return {};
  std::vector<float> values = argument.float32s();
  demand_length(argument, values, count);
  demand_finite(argument, values);
  return values;
}

// A picture without its pixels.
ImageInput image_shape_from(const Argument& image) {
  ImageInput input;
  const Argument grid = image["grid"];
  if (grid.length() != 3) grid.fail("[time, height, width] in patches");
  for (uint32_t axis = 0; axis < 3; ++axis) input.grid[axis] = static_cast<int32_t>(grid[axis].integer(1, 65536));
  const Argument kind = image["kind"], size = image["size"], seconds = image["secondsPerGrid"];
  if (!kind.absent()) input.video = kind.choice({"image", "video"}) == 1;
  if (!size.absent()) {
    if (size.length() != 2) size.fail("[height, width] in pixels");
    for (uint32_t axis = 0; axis < 2; ++axis) input.size[axis] = static_cast<int32_t>(size[axis].integer(1, kMaxInt32));
  }
  if (!seconds.absent()) input.seconds_per_grid = static_cast<float>(seconds.number(0, 86400));
  return input;
}

ImageInput image_from(const Argument& image) {
  ImageInput input = image_shape_from(image);
  const int64_t patches = int64_t{input.grid[0]} * input.grid[1] * input.grid[2];
  const Argument pixels = image["pixels"];
  input.pixels = pixels.float32s();
  if (input.pixels.size() == 0 || static_cast<int64_t>(input.pixels.size()) % patches != 0) {
    pixels.fail("a whole number of values for each of " + std::to_string(patches) + " patches",
                "Hand over the image processor's [patches, columns] array with its own grid.");
  }
  return input;
}

std::vector<ImageInput> images_from(const Argument& images) {
  std::vector<ImageInput> inputs;
  const uint32_t count = images.length();
  inputs.reserve(count);
  for (uint32_t i = 0; i < count; ++i) inputs.push_back(image_from(images[i]));
  return inputs;
}

CompletionInput completion_from(const Argument& completion) {
  // What sample() drew may be handed over as it is.
  completion.only({"tokens", "mask", "temperature", "advantage", "oldLogprobs", "referenceLogprobs", "samplingLogprobs",
                   "importanceRatio"},
                  {"request", "sample", "logprobs", "logKeptMass", "finishReason"});
  CompletionInput input;
  input.tokens = tokens_from(completion["tokens"]);
  if (input.tokens.empty()) completion["tokens"].fail("at least one token");
  const size_t count = input.tokens.size();
  if (const Argument mask = completion["mask"]; !mask.absent()) {
    input.mask = mask.uint8s();
    demand_length(mask, input.mask, count);
    for (uint8_t value : input.mask) {
      if (value > 1) mask.fail("zeros and ones");
    }
  }
  read_optional(completion["temperature"], &input.temperature, positive);
  read_optional(completion["advantage"], &input.advantage, [](const Argument& a) { return a.number(); });
  input.has_advantage = !completion["advantage"].absent();
  input.old_logprobs = row_floats(completion["oldLogprobs"], count);
  input.reference_logprobs = row_floats(completion["referenceLogprobs"], count);
  input.sampling_logprobs = row_floats(completion["samplingLogprobs"], count);
  const Argument ratio = completion["importanceRatio"];
  input.importance_ratio = row_floats(ratio, count);
  for (float value : input.importance_ratio) {
    if (value < 0) ratio.fail("ratios >= 0");
  }
  return input;
}

SampleRequest sample_request_from(const Argument& request) {
  SampleRequest input;
  input.id = request["id"].counter();
  const Argument prompt = request["promptTokens"];
  input.prompt_tokens = tokens_from(prompt);
  if (input.prompt_tokens.empty()) prompt.fail("at least one token");
  input.images = images_from(request["images"]);
  input.count = static_cast<int32_t>(request["count"].integer(1, kMaxInt32));
  read_optional(request["firstSample"], &input.first_sample, [](const Argument& a) { return a.integer(0, kMaxInt32); });
  input.max_new_tokens = static_cast<int32_t>(request["maxNewTokens"].integer(1, kMaxInt32));
  input.seed = request["seed"].counter();
  input.temperature = static_cast<float>(request["temperature"].number(0, kInfinity));
  read_optional(request["topK"], &input.top_k, [](const Argument& a) { return a.integer(0, kMaxInt32); });
  read_optional(request["topP"], &input.top_p, [](const Argument& a) {
    if (positive(a) > 1) a.fail("a number > 0 and <= 1");
    return a.number();
  });
  read_optional(request["minP"], &input.min_p, [](const Argument& a) { return a.number(0, 1); });
  input.stop_tokens = tokens_from(request["stopTokens"]);
  read_optional(request["stopStrings"], &input.stop_strings, texts_from);
  return input;
}

TokenBytes token_bytes_from(const Argument& table) {
  TokenBytes result;
  result.bytes = table["bytes"].uint8s();
  const Argument offsets = table["offsets"];
  result.offsets = offsets.int32s();
  int32_t last = 0;
  for (const int32_t offset : result.offsets) {
    if (offset < last || static_cast<size_t>(offset) > result.bytes.size())
      offsets.fail("ascending offsets within `bytes`");
    last = offset;
  }
  return result;
}

Objective objective_from(const Argument& argument) {
  Objective objective;
  objective.kind = static_cast<Objective::Kind>(argument["kind"].choice({"nll", "grpo", "dpo", "ranking"}));
  objective.weight = argument["weight"].number();
  if (objective.kind == Objective::Kind::grpo) {
    objective.grpo = grpo_objective_from(argument);
  } else if (objective.kind == Objective::Kind::dpo) {
    objective.dpo = dpo_objective_from(argument);
  } else if (objective.kind == Objective::Kind::ranking) {
    objective.ranking = ranking_objective_from(argument);
  } else {
    objective.normalization =
        static_cast<NllNormalization>(argument["normalization"].choice({"tokens", "completions", "sum"}));
  }
  return objective;
}

FileDType read_dtype_from(const Argument& dtype) {
  return static_cast<FileDType>(dtype.choice({"F32", "BF16", "F16", "U8", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K"}));
}

FileDType write_dtype_from(const Argument& dtype) {
  constexpr FileDType kWritten[] = {FileDType::f32, FileDType::bf16, FileDType::u8};
  return kWritten[dtype.choice({"F32", "BF16", "U8"})];
}

TrainingState training_state_from(const Argument& optimizer) {
  constexpr DType kMoments[] = {DType::f32, DType::bf16, DType::u8};
  TrainingState state;
  state.moments = kMoments[optimizer["states"].choice({"fp32", "bf16", "int8"})];
  state.masters = optimizer["weights"].choice({"master", "stochastic"}) == 0;
  state.seed = optimizer["seed"].counter();
  return state;
}

}  // namespace

Status check_pixels(const std::vector<ImageInput>& images) {
  for (size_t i = 0; i < images.size(); ++i) {
    for (float value : images[i].pixels) {
      if (std::isfinite(value)) continue;
      return Status::error(Code::bad_data, "Expected finite numbers for `images[" + std::to_string(i) +
                                               "].pixels` but received NaN or an infinite one. Check what made them.");
    }
  }
  return Status::success();
}

ModelConfig model_config_from(const Argument& spec) {
  ModelConfig config;
  config.family = spec["family"].text();
  config.dtype = spec["dtype"].choice({"fp32", "bf16"}) == 0 ? DType::f32 : DType::bf16;
  read_optional(spec["optimizer"], &config.state, training_state_from);
  read_optional(spec["promptCacheBytes"], &config.prompt_cache_bytes,
                [](const Argument& a) { return static_cast<size_t>(a.counter()); });
  read_optional(spec["planning"], &config.planning, [](const Argument& a) { return a.boolean(); });
  const Argument numbers = spec["numbers"];
  const Napi::Array names = numbers.object().GetPropertyNames();
  for (uint32_t i = 0; i < names.Length(); ++i) {
    const std::string name = names.Get(i).ToString().Utf8Value();
    const Argument entry = numbers[name.c_str()];
    std::vector<double>& values = config.numbers[name];
    if (entry.value().IsArray()) {
      for (uint32_t j = 0; j < entry.length(); ++j) values.push_back(entry[j].number());
    } else {
      values.push_back(entry.number());
    }
  }
  const Argument texts = spec["texts"];
  if (texts.absent()) return config;
  const Napi::Array keys = texts.object().GetPropertyNames();
  for (uint32_t i = 0; i < keys.Length(); ++i) {
    const std::string name = keys.Get(i).ToString().Utf8Value();
    config.texts[name] = texts[name.c_str()].text();
  }
  return config;
}

GroupInput group_from(const Argument& group, bool may_be_bare) {
  group.only({"promptTokens", "images", "completions"});
  GroupInput input;
  const Argument prompt = group["promptTokens"];
  input.prompt_tokens = tokens_from(prompt);
  if (input.prompt_tokens.empty()) prompt.fail("at least one token");
  input.images = images_from(group["images"]);
  const Argument completions = group["completions"];
  const uint32_t count = completions.length();
  if (count == 0 && !may_be_bare) completions.fail("at least one completion");
  input.completions.reserve(count);
  for (uint32_t i = 0; i < count; ++i) input.completions.push_back(completion_from(completions[i]));
  return input;
}

std::vector<GroupInput> groups_from(const Argument& groups, bool may_be_bare) {
  std::vector<GroupInput> inputs;
  const uint32_t count = groups.length();
  if (count == 0) groups.fail("at least one group");
  inputs.reserve(count);
  for (uint32_t i = 0; i < count; ++i) inputs.push_back(group_from(groups[i], may_be_bare));
  return inputs;
}

std::vector<SampleRequest> sample_requests_from(const Argument& requests) {
  std::vector<SampleRequest> inputs;
  const uint32_t count = requests.length();
  inputs.reserve(count);
  for (uint32_t i = 0; i < count; ++i) inputs.push_back(sample_request_from(requests[i]));
  return inputs;
}

SampleSettings sample_settings_from(const Argument& options) {
  SampleSettings settings;
  settings.max_rows = static_cast<int32_t>(options["maxRows"].integer(1, kMaxInt32));
  settings.banned_tokens = tokens_from(options["bannedTokens"]);
  read_optional(options["tokenBytes"], &settings.token_bytes, token_bytes_from);
  read_optional(options["adapter"], &settings.adapter_off, adapter_is_off);
  return settings;
}

std::vector<Objective> objectives_from(const Argument& objectives) {
  std::vector<Objective> result;
  const uint32_t count = objectives.length();
  if (count == 0) objectives.fail("at least one objective");
  for (uint32_t i = 0; i < count; ++i) result.push_back(objective_from(objectives[i]));
  return result;
}

StepOptions step_options_from(const Argument& options) {
  StepOptions step;
  step.max_tokens_per_micro_batch = options["maxTokensPerMicroBatch"].integer(1, kMaxInt32);
  step.activation_checkpointing = options["activationCheckpointing"].boolean();
  read_optional(options["stepCompletions"], &step.step_completions, positive);
  read_optional(options["stepTokens"], &step.step_tokens, positive);
  read_optional(options["entropy"], &step.entropy, [](const Argument& a) { return a.boolean(); });
  read_optional(options["adapter"], &step.adapter_off, adapter_is_off);
  return step;
}

PlannedWork planned_work_from(const Argument& work) {
  const auto counted = [](const Argument& argument) { return static_cast<int32_t>(argument.integer(1, kMaxInt32)); };
  PlannedWork planned;
  planned.prompt_tokens = counted(work["promptTokens"]);
  const Argument images = work["images"];
  for (uint32_t i = 0; i < images.length(); ++i) planned.images.push_back(image_shape_from(images[i]));
  planned.groups = counted(work["groups"]);
  read_optional(work["promptCacheBytes"], &planned.prompt_cache_bytes,
                [](const Argument& a) { return static_cast<size_t>(a.counter()); });
  if (const Argument steps = work["steps"]; !steps.absent()) {
    planned.trains = steps["trains"].boolean();
    planned.scores = steps["scores"].boolean();
    planned.completions = counted(steps["completions"]);
    planned.completion_tokens = counted(steps["completionTokens"]);
    planned.step = step_options_from(steps["options"]);
  }
  if (const Argument sampling = work["sampling"]; !sampling.absent()) {
    planned.samples = counted(sampling["count"]);
    planned.max_new_tokens = counted(sampling["maxNewTokens"]);
    planned.max_rows = counted(sampling["maxRows"]);
  }
  return planned;
}

AdapterOptions adapter_options_from(const Argument& options) {
  AdapterOptions adapter;
  adapter.dropout = options["dropout"].number(0, 0.999);
  adapter.seed = options["seed"].counter();
  const Argument targets = options["targets"];
  const uint32_t count = targets.length();
  for (uint32_t i = 0; i < count; ++i) {
    adapter.targets.push_back({targets[i]["name"].text(), static_cast<int32_t>(targets[i]["rank"].integer(1, 65536)),
                               targets[i]["scale"].number(0, 1e9)});
  }
  adapter.tokens = options["trainableTokens"].int32s();
  return adapter;
}

OptimizerOptions optimizer_options_from(const Argument& options) {
  OptimizerOptions optimizer;
  optimizer.learning_rate = options["learningRate"].number(0, kInfinity);
  optimizer.beta1 = options["beta1"].number(0, 1);
  optimizer.beta2 = options["beta2"].number(0, 1);
  optimizer.eps = options["eps"].number(0, kInfinity);
  optimizer.weight_decay = options["weightDecay"].number(0, kInfinity);
  optimizer.decay_all = options["decayParameters"].choice({"matrices", "all"}) == 1;
  optimizer.max_grad_norm = options["maxGradNorm"].number(0, kInfinity);
  return optimizer;
}

TensorKind tensor_kind_from(const Argument& kind) {
  return static_cast<TensorKind>(kind.choice(
      {"value", "master", "moment1", "moment2", "gradient", "merged", "codes1", "codes2", "scales1", "scales2"}));
}

std::vector<TensorRead> tensor_reads_from(const Argument& sources) {
  std::vector<TensorRead> reads;
  const uint32_t count = sources.length();
  reads.reserve(count);
  for (uint32_t i = 0; i < count; ++i) {
    const Argument source = sources[i];
    reads.push_back({source["name"].text(), tensor_kind_from(source["kind"]), source["path"].text(),
                     source["offset"].counter(), source["sizeBytes"].counter(), read_dtype_from(source["dtype"])});
    read_optional(source["interleavedHeads"], &reads.back().interleaved_heads,
                  [](const Argument& heads) { return static_cast<int32_t>(heads.integer(0, 65536)); });
    read_optional(source["rows"], &reads.back().rows, [](const Argument& rows) { return rows.integer(1, kMaxInt32); });
  }
  return reads;
}

std::vector<TensorWrite> tensor_writes_from(const Argument& sinks) {
  std::vector<TensorWrite> writes;
  const uint32_t count = sinks.length();
  writes.reserve(count);
  for (uint32_t i = 0; i < count; ++i) {
    const Argument sink = sinks[i];
    writes.push_back({sink["name"].text(), tensor_kind_from(sink["kind"]), write_dtype_from(sink["dtype"])});
  }
  return writes;
}

std::vector<std::string> texts_from(const Argument& texts) {
  std::vector<std::string> result;
  const uint32_t count = texts.length();
  result.reserve(count);
  for (uint32_t i = 0; i < count; ++i) result.push_back(texts[i].text());
  return result;
}

}  // namespace gavel
