#include "bench/native/cuda/engine_workloads.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>

#include "bench/native/cuda/makers.h"
#include "core/philox.h"
#include "sample/sampler.h"
#include "train/trainer.h"

namespace gavel::bench {
namespace {

constexpr int kTurns = 2;      // measured pairs of the two modes, after one that takes memory
constexpr int kWarmSteps = 2;  // of a decoding that takes memory
constexpr uint32_t kFirstToken = 3;
constexpr int32_t kImageToken = 2;
constexpr int64_t kTextBeforePicture = 20;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::vector<int32_t> tokens_of(const EngineSpec& spec, int64_t count, uint32_t item) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = random_bits({11, item, 0, static_cast<uint32_t>(i)})[0];
    tokens.push_back(static_cast<int32_t>(kFirstToken + bits % static_cast<uint32_t>(spec.vocabulary - kFirstToken)));
  }
  return tokens;
}

// The picture of prompt `item`, and where its features stand among the tokens.
void add_picture(const EngineSpec& spec, uint32_t item, GroupInput* group) {
  const int64_t side = spec.vision.picture_side;
  if (side == 0) return;
  std::vector<float> pixels(static_cast<size_t>(side * side * spec.vision.patch_columns()));
  for (size_t i = 0; i < pixels.size(); i += 4) {
    const auto bits = random_bits({13, item, 0, static_cast<uint32_t>(i)});
    for (size_t j = 0; j < 4; ++j) pixels[i + j] = static_cast<float>(bits[j]) * 0x1p-30f - 2.0f;
  }
  ImageInput picture;
  picture.pixels = std::move(pixels);
  picture.grid = {1, static_cast<int32_t>(side), static_cast<int32_t>(side)};
  group->images.push_back(std::move(picture));
  std::fill_n(group->prompt_tokens.begin() + kTextBeforePicture, spec.vision.tokens(), kImageToken);
}

// Of the layers' matrices.
double body_parameters(const EngineSpec& spec) {
  const double head = static_cast<double>(spec.hidden) / static_cast<double>(spec.heads);
  const double attention =
      static_cast<double>(spec.hidden) * head * 2 * static_cast<double>(spec.heads + spec.kv_heads);
  return static_cast<double>(spec.layers) *
         (attention + 3 * static_cast<double>(spec.hidden) * static_cast<double>(spec.intermediate));
}
double head_parameters(const EngineSpec& spec) {
  return static_cast<double>(spec.vocabulary) * static_cast<double>(spec.hidden);
}

// Of the tower, a patch: its embedding, and what else is multiplied.
double patch_parameters(const VisionSpec& vision) {
  return static_cast<double>(vision.patch_columns() * vision.hidden);
}
double tower_parameters(const EngineSpec& spec) {
  const auto h = static_cast<double>(spec.vision.hidden), f = static_cast<double>(spec.vision.intermediate);
  // The merger's 4 h to 4 h to the decoder's size once in four patches.
  return static_cast<double>(spec.vision.depth) * (4 * h * h + 3 * h * f) + 4 * h * h +
         h * static_cast<double>(spec.hidden);
}

// Values of a standard deviation of about 0.02 into every matrix and ones into norms: one piece made once, repeated.
Status fill(Weights& weights) {
  constexpr size_t kPiece = size_t{1} << 22;
  std::vector<bf16_t> piece(kPiece), ones;
  for (size_t i = 0; i < kPiece; i += 4) {
    const auto bits = random_bits({7, 1, 0, static_cast<uint32_t>(i)});
    for (size_t j = 0; j < 4; ++j)
      piece[i + j] = float_to_bf16((static_cast<float>(bits[j]) * 0x1p-32f - 0.5f) * 0.07f);
  }
  for (int32_t index = 0; index < weights.size(); ++index) {
    const Parameter& parameter = weights.parameter(index);
    const auto count = static_cast<size_t>(parameter.count());
    auto* const to = static_cast<bf16_t*>(parameter.value.data);
    if (parameter.kind == ParameterKind::norm) {
      ones.assign(count, float_to_bf16(1.0f));
      weights.memory().upload(to, ones.data(), count * sizeof(bf16_t));
    } else if (parameter.kind == ParameterKind::matrix || parameter.kind == ParameterKind::embedding) {
      for (size_t at = 0; at < count; at += kPiece)
        weights.memory().upload(to + at, piece.data(), std::min(kPiece, count - at) * sizeof(bf16_t));
    }
  }
  return weights.memory().finish();
}

ModelConfig config_of(const EngineSpec& spec) {
  const auto whole = [](int64_t value) { return std::vector<double>{static_cast<double>(value)}; };
  ModelConfig config;
  config.family = "qwen2";
  config.dtype = DType::bf16;
  config.numbers = {{"vocab_size", whole(spec.vocabulary)},
                    {"hidden_size", whole(spec.hidden)},
                    {"intermediate_size", whole(spec.intermediate)},
                    {"num_hidden_layers", whole(spec.layers)},
                    {"num_attention_heads", whole(spec.heads)},
                    {"num_key_value_heads", whole(spec.kv_heads)},
                    {"tie_word_embeddings", {1}}};
  if (spec.vision.picture_side == 0) return config;
  const VisionSpec& vision = spec.vision;
  const double half = static_cast<double>(spec.hidden / spec.heads / 2);
  std::vector<double> full;
  for (int64_t layer = vision.full_every - 1; layer < vision.depth; layer += vision.full_every)
    full.push_back(static_cast<double>(layer));
  config.family = "qwen2_5_vl";
  config.numbers.insert({{"rope_parameters.mrope_section", {half / 4, half * 3 / 8, half * 3 / 8}},
                         {"image_token_id", {kImageToken}},
                         {"vision_config.depth", whole(vision.depth)},
                         {"vision_config.hidden_size", whole(vision.hidden)},
                         {"vision_config.intermediate_size", whole(vision.intermediate)},
                         {"vision_config.num_heads", whole(vision.heads)},
                         {"vision_config.patch_size", whole(vision.patch)},
                         {"vision_config.window_size", whole(8 * vision.patch)},
                         {"vision_config.fullatt_block_indexes", full}});
  return config;
}

Status adapt(const EngineSpec& spec, Weights& weights) {
  AdapterOptions options;
  options.seed = 5;
  for (int32_t index = 0; index < weights.size(); ++index) {
    const Parameter& parameter = weights.parameter(index);
    if (parameter.kind != ParameterKind::matrix) continue;
    for (const SourceTensor& source : parameter.sources)
      if (!source.name.starts_with("visual."))
        options.targets.push_back({source.name, static_cast<int32_t>(spec.lora_rank), 2.0});
  }
  return attach_adapter(weights, options);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Seconds of the two modes in turns.
void keep(const std::vector<double> (&seconds)[2], EngineResult* result) {
  std::vector<double> ratios;
  for (size_t i = 0; i < seconds[0].size(); ++i) ratios.push_back(seconds[0][i] / seconds[1][i]);
  result->seconds = median(seconds[0]);
  result->low = *std::min_element(seconds[0].begin(), seconds[0].end());
  result->high = *std::max_element(seconds[0].begin(), seconds[0].end());
  result->fastest_seconds = median(seconds[1]);
  result->cost = median(ratios);
  result->cost_low = *std::min_element(ratios.begin(), ratios.end());
  result->cost_high = *std::max_element(ratios.begin(), ratios.end());
  result->runs = static_cast<int>(ratios.size());
}

EngineSpec shaped(const char* model, int64_t hidden, int64_t intermediate, int64_t layers, int64_t heads) {
  EngineSpec spec;
  spec.model = model;
  spec.vocabulary = 151936;
  spec.hidden = hidden;
  spec.intermediate = intermediate;
  spec.layers = layers;
  spec.heads = heads;
  spec.kv_heads = 2;
  return spec;
}

}  // namespace

struct EngineBench::Engine {
  ThreadPool pool{1};
  Scratch scratch;
  Context context;
  FlushDenormals flush;
  std::unique_ptr<Model> model;
  std::string name;
  bool adapted = false;
  uint64_t free_before = 0;
};

std::vector<EngineSpec> engine_specs() {
  std::vector<EngineSpec> specs;
  for (const EngineSpec& shape : {shaped("0.5B text", 896, 4864, 24, 14), shaped("1.5B text", 1536, 8960, 28, 12),
                                  shaped("3.1B text", 2048, 11008, 36, 16)}) {
    for (const int64_t group : {8, 16}) {
      EngineSpec spec = shape;
      spec.workload = "decode";
      spec.prompts = 32;
      spec.group = group;
      spec.prompt_tokens = 1500;
      spec.completion_tokens = 128;
      specs.push_back(spec);
    }
  }
  const EngineSpec largest = specs.back();
  for (const int64_t rank : {0, 32}) {
    EngineSpec spec = largest;
    spec.workload = "grpo_update";
    spec.prompts = 2;
    spec.group = 8;
    spec.completion_tokens = 512;
    spec.lora_rank = rank;
    specs.push_back(spec);
    spec.model = "3.8B VL";
    spec.vision = {32, 1280, 3420, 16, 8, 14, 64};
    specs.push_back(spec);
  }
  return specs;
}

EngineSpec tiny(const EngineSpec& spec) {
  EngineSpec cut = spec;
  cut.model = "tiny";
  cut.vocabulary = 320;
  cut.hidden = 64;
  cut.intermediate = 96;
  cut.layers = cut.heads = cut.kv_heads = 2;
  cut.prompts = cut.group = 2;
  cut.prompt_tokens = 70;
  cut.completion_tokens = 3;
  cut.lora_rank = std::min<int64_t>(spec.lora_rank, 4);
  if (spec.vision.picture_side > 0) {
    cut.model = "tiny VL";
    cut.vision = {2, 32, 48, 2, 2, 2, 12};
  }
  return cut;
}

std::vector<std::string> engine_workload_names() { return {"decode", "grpo_update"}; }

std::string shape_of(const EngineSpec& spec) {
  std::string shape = words("%ld prompts", spec.prompts);
  if (spec.vision.picture_side > 0) shape += words(" with a picture of %ld tokens", spec.vision.tokens());
  shape += ", " + spec.model;
  if (spec.workload == "grpo_update")
    shape += spec.lora_rank > 0 ? words(", LoRA %ld", spec.lora_rank) : std::string(", all weights");
  return shape;
}

EngineBench::EngineBench(const PluginBackend& backend, int32_t device) : device_(backend, device) {}
EngineBench::~EngineBench() = default;

Status EngineBench::make(const EngineSpec& spec) {
  if (engine_ != nullptr && engine_->name == spec.model && !engine_->adapted && spec.lora_rank == 0)
    return Status::success();
  engine_.reset();
  auto made = std::make_unique<Engine>();
  made->name = spec.model;
  made->context = {&made->pool, &made->scratch, detect_isa(), false, false, &device_};
  made->free_before = device_.free_bytes();
  GAVEL_RETURN_IF_ERROR(Model::create(config_of(spec), &device_, &made->model));
  GAVEL_RETURN_IF_ERROR(fill(made->model->weights()));
  if (spec.lora_rank > 0) GAVEL_RETURN_IF_ERROR(adapt(spec, made->model->weights()));
  made->adapted = spec.lora_rank > 0;
  engine_ = std::move(made);
  return Status::success();
}

Status EngineBench::run(const EngineSpec& spec, EngineResult* result) {
  *result = {};
  Status status = make(spec);
  if (status.ok()) status = spec.workload == "decode" ? decode(spec, result) : update(spec, result);
  if (engine_ != nullptr) result->device_bytes = engine_->free_before - device_.free_bytes();
  // What ran out leaves nothing half made behind.
  if (!status.ok() || spec.workload != "decode") engine_.reset();
  return status;
}

Status EngineBench::decode(const EngineSpec& spec, EngineResult* result) {
  std::vector<SampleRequest> requests;
  for (int64_t i = 0; i < spec.prompts; ++i) {
    SampleRequest request;
    request.id = static_cast<uint64_t>(i);
    request.prompt_tokens = tokens_of(spec, spec.prompt_tokens, static_cast<uint32_t>(i));
    request.count = static_cast<int32_t>(spec.group);
    request.max_new_tokens = static_cast<int32_t>(spec.completion_tokens);
    request.seed = 9;
    requests.push_back(std::move(request));
  }
  SampleSettings settings;
  settings.max_rows = static_cast<int32_t>(spec.prompts * spec.group);
  const std::atomic<bool> never{false};
  SampleStats stats;
  std::vector<double> seconds[2], prompts;
  for (int turn = 0; turn <= kTurns; ++turn) {
    for (const Exactness mode : {Exactness::fastest, Exactness::bitwise}) {
      device_.set_exactness(mode);
      settings.max_steps = turn == 0 ? kWarmSteps : 0;
      stats = {};
      const Status status = Sampler(*engine_->model, engine_->context)
                                .run(
                                    requests, settings, never, [](std::vector<Completion>) {}, &stats);
      device_.set_exactness(Exactness::bitwise);
      GAVEL_RETURN_IF_ERROR(status);
      if (turn == 0) continue;
      seconds[mode == Exactness::fastest].push_back(stats.decode_seconds);
      if (mode == Exactness::bitwise) prompts.push_back(stats.prefill_seconds);
    }
  }
  keep(seconds, result);
  result->tokens = static_cast<double>(stats.completion_tokens);
  result->prefill_seconds = median(prompts);
  result->steps = static_cast<double>(stats.decode_steps);
  result->replayed_steps = static_cast<double>(stats.replayed_steps);
  const double rows = static_cast<double>(settings.max_rows);
  const double keys =
      static_cast<double>(spec.prompts * spec.prompt_tokens) + rows * static_cast<double>(spec.completion_tokens) / 2;
  const double key_bytes = 4.0 * static_cast<double>(spec.layers * spec.kv_heads) * static_cast<double>(spec.hidden) /
                           static_cast<double>(spec.heads);
  result->bytes = static_cast<double>(stats.decode_steps) *
                  (2 * (body_parameters(spec) + head_parameters(spec)) + keys * key_bytes);
  return Status::success();
}

Status EngineBench::update(const EngineSpec& spec, EngineResult* result) {
  std::vector<GroupInput> groups;
  for (int64_t p = 0; p < spec.prompts; ++p) {
    GroupInput group;
    group.prompt_tokens = tokens_of(spec, spec.prompt_tokens, static_cast<uint32_t>(p));
    add_picture(spec, static_cast<uint32_t>(p), &group);
    for (int64_t g = 0; g < spec.group; ++g) {
      CompletionInput completion;
      completion.tokens = tokens_of(spec, spec.completion_tokens, static_cast<uint32_t>(1000 + p * spec.group + g));
      completion.advantage = g % 2 == 0 ? 1.0f : -1.0f;
      group.completions.push_back(std::move(completion));
    }
    groups.push_back(std::move(group));
  }
  Objective objective;
  objective.kind = Objective::Kind::grpo;
  StepOptions options;
  options.activation_checkpointing = true;
  const std::atomic<bool> never{false};
  Trainer trainer(*engine_->model, engine_->context);
  std::vector<double> seconds[2];
  const auto step_of = [&](Exactness mode, bool first) -> Status {
    StepResult scored, step;
    double* const largest = mode == Exactness::fastest ? &result->fastest_difference : &result->largest_difference;
    // Exactness holds between passes too: a step trains on the log-probs that scoring gave.
    if (first) GAVEL_RETURN_IF_ERROR(trainer.logprobs(groups, options, never, &scored));
    const auto start = std::chrono::steady_clock::now();
    GAVEL_RETURN_IF_ERROR(trainer.forward_backward(groups, {objective}, options, never, &step));
    OptimizerResult applied;
    GAVEL_RETURN_IF_ERROR(trainer.optimizer_step({}, &applied));
    GAVEL_RETURN_IF_ERROR(engine_->model->weights().memory().finish());
    if (!first) seconds[mode == Exactness::fastest].push_back(seconds_since(start));
    for (size_t i = 0; i < scored.logprobs.size(); ++i) {
      const double difference = std::abs(static_cast<double>(scored.logprobs[i]) - step.logprobs[i]);
      *largest = std::max(*largest, difference);
    }
    return Status::success();
  };
  for (int turn = 0; turn <= kTurns; ++turn) {
    for (const Exactness mode : {Exactness::fastest, Exactness::bitwise}) {
      device_.set_exactness(mode);
      const Status status = step_of(mode, turn == 0);
      device_.set_exactness(Exactness::bitwise);
      GAVEL_RETURN_IF_ERROR(status);
    }
  }
  keep(seconds, result);
  const double tokens = static_cast<double>(spec.prompts * spec.group * spec.completion_tokens);
  const double rows = static_cast<double>(spec.prompts * spec.prompt_tokens) + tokens;
  // An adapter's own products are small beside these; its base has no gradient of weights, and a frozen tower none at
  // all. Pixels have none either.
  const bool adapts = spec.lora_rank > 0;
  result->flop = (adapts ? 4 : 6) * (rows * body_parameters(spec) + tokens * head_parameters(spec));
  if (spec.vision.picture_side > 0)
    result->flop += static_cast<double>(spec.prompts * spec.vision.patches()) *
                    ((adapts ? 2 : 6) * tower_parameters(spec) + (adapts ? 2 : 4) * patch_parameters(spec.vision));
  result->tokens = tokens;
  return Status::success();
}

}  // namespace gavel::bench
