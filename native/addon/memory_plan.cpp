#include "addon/memory_plan.h"

#include <algorithm>
#include <memory>

#include "model/pack.h"
#include "sample/kv_pool.h"
#include "sample/sampler.h"

namespace gavel {
namespace {

// Decode steps until every row has been through the decoder: the first token comes from the prompt's own row.
constexpr int64_t kPlannedSteps = 3;

int64_t pixel_columns(const Weights& weights) {
  for (int32_t i = 0; i < weights.size(); ++i) {
    if (weights.parameter(i).name == "vision.patch") return weights.parameter(i).value.cols();
  }
  return 0;
}

int32_t text_token(const Architecture& architecture) {
  int32_t text = 0;
  while (architecture.is_placeholder(text) || text == architecture.reward_token) ++text;
  return text;
}

// A prompt of the wanted length with the placeholders of its pictures, and pixels of zero.
Status make_prompt(const Model& model, const PlannedWork& work, GroupInput* group) {
  const Architecture& architecture = model.architecture();
  const int32_t text = text_token(architecture);
  for (const ImageInput& image : work.images) {
    ImageInput filled = image;
    const int64_t patches = int64_t{image.grid[0]} * image.grid[1] * image.grid[2];
    filled.pixels = std::vector<float>(static_cast<size_t>(patches * pixel_columns(model.weights())));
    const Placeholders wanted = architecture.placeholders(image);
    for (int32_t run = 0; run < wanted.runs; ++run) {
      group->prompt_tokens.push_back(text);
      group->prompt_tokens.insert(group->prompt_tokens.end(), static_cast<size_t>(wanted.tokens),
                                  image.video ? architecture.video_token : architecture.image_token);
    }
    group->images.push_back(std::move(filled));
  }
  const auto length = static_cast<size_t>(work.prompt_tokens);
  if (length <= group->prompt_tokens.size()) {
    if (!work.images.empty()) {
      return Status::error(Code::invalid_argument, "Expected more than the " +
                                                       std::to_string(group->prompt_tokens.size()) +
                                                       " tokens of the pictures for `promptTokens` but received " +
                                                       std::to_string(length) + ". It counts them too.");
    }
  }
  group->prompt_tokens.resize(length, text);
  return Status::success();
}

// What calls keep of different prompts: pages and hidden rows of those that are sampled, features of pictures that are
// not in the way of a gradient.
size_t kept_bytes(const Model& model, const PlannedWork& work, const GroupInput& group) {
  const Architecture& architecture = model.architecture();
  const size_t row = static_cast<size_t>(architecture.hidden_size) * dtype_size(model.weights().dtype());
  size_t bytes = 0;
  if (work.max_new_tokens > 0) {
    const int64_t pages = (static_cast<int64_t>(group.prompt_tokens.size()) + kKeyBlock - 1) / kKeyBlock;
    bytes += static_cast<size_t>(pages * architecture.num_layers *
                                 KvPool::page_bytes(architecture, model.weights().dtype()));
    bytes += row * static_cast<size_t>(1 + Pack::scores_of(group, architecture.reward_token));
  }
  if (work.max_new_tokens > 0 || work.scores || (work.trains && !architecture.tower_trains(model.weights()))) {
    for (const ImageInput& image : work.images) {
      const Placeholders taken = architecture.placeholders(image);
      bytes += row * static_cast<size_t>(taken.runs * taken.tokens * architecture.feature_parts);
    }
  }
  return std::min(work.prompt_cache_bytes, bytes * static_cast<size_t>(work.groups));
}

}  // namespace

Status plan_memory(Model& model, const Context& context, const PlannedWork& work, MemoryPlan* plan) {
  if (!model.weights().planning()) return Status::error(Code::internal, "Expected a model that was made for planning.");
  ThreadPool pool = ThreadPool::idle(context.pool->threads());
  Scratch scratch;
  std::unique_ptr<Device> device;
  if (context.device != nullptr) {
    device = std::make_unique<Device>(context.device->backend(), context.device->index(), true);
    device->set_exactness(context.device->exactness());
  }
  Context idle{&pool, &scratch, context.isa, context.amx, true, device.get()};
  const std::atomic<bool> aborted{false};
  GroupInput group;
  GAVEL_RETURN_IF_ERROR(make_prompt(model, work, &group));
  const bool scored = model.reward_head().attached();
  if (scored) group.prompt_tokens.back() = model.architecture().reward_token;

  plan->held.prompt_cache_bytes = kept_bytes(model, work, group);

  if (work.max_new_tokens > 0) {
    SampleRequest request;
    request.prompt_tokens = group.prompt_tokens;
    request.images = group.images;
    request.count = work.samples;
    request.max_new_tokens = work.max_new_tokens;
    // Prompts wait until rows are free: more than those change nothing.
    const int32_t requests = std::min(work.groups, work.max_rows / work.samples + 2);
    SampleSettings settings;
    settings.max_rows = work.max_rows;
    settings.max_steps = kPlannedSteps;
    SampleStats stats;
    GAVEL_RETURN_IF_ERROR(Sampler(model, idle)
                              .run(
                                  std::vector<SampleRequest>(static_cast<size_t>(requests), request), settings, aborted,
                                  [](std::vector<Completion>) {}, &stats));
    plan->held.kv_bytes = stats.kv_bytes;
    plan->held.sampling_bytes = stats.buffer_bytes + stats.activation_bytes;
  }

  if (work.trains || work.scores) {
    const int32_t text = text_token(model.architecture());
    CompletionInput completion;
    completion.tokens.assign(static_cast<size_t>(work.completion_tokens), text);
    group.completions.assign(static_cast<size_t>(work.completions), completion);
    // All full micro-batches are alike.
    const int64_t fitting = work.step.max_tokens_per_micro_batch / std::max<int64_t>(1, Pack::rows_of(group));
    const std::vector<GroupInput> groups(static_cast<size_t>(std::clamp<int64_t>(fitting, 1, work.groups)), group);
    Trainer trainer(model, idle);
    StepResult result;
    if (work.scores) GAVEL_RETURN_IF_ERROR(trainer.logprobs(groups, work.step, aborted, &result));
    ScoreResult scores;
    if (work.scores && scored) GAVEL_RETURN_IF_ERROR(trainer.score(groups, work.step, false, aborted, &scores));
    if (work.trains) {
      Objective objective;
      objective.kind = Objective::Kind::grpo;
      std::vector<Objective> objectives{objective};
      if (scored) {
        Objective ranking;
        ranking.kind = Objective::Kind::ranking;
        ranking.ranking.options.loss = RankingLoss::regression;
        ranking.ranking.targets.assign(groups.size() * static_cast<size_t>(model.reward_head().count()), 0.0f);
        objectives.push_back(ranking);
      }
      GAVEL_RETURN_IF_ERROR(trainer.forward_backward(groups, objectives, work.step, aborted, &result));
      GAVEL_RETURN_IF_ERROR(model.weights().ensure_moments());
    }
    plan->held.activation_bytes = trainer.activation_bytes();
  }
  const Weights& weights = model.weights();
  plan->held.weight_bytes = weights.weight_bytes();
  plan->held.gradient_bytes = weights.gradient_bytes();
  plan->held.optimizer_bytes = weights.optimizer_bytes();
  plan->scratch_bytes = scratch.size_bytes() + (device ? static_cast<size_t>(device->buffer_bytes()) : 0);
  // What the kernels cannot do.
  return device ? device->finish() : Status::success();
}

}  // namespace gavel
