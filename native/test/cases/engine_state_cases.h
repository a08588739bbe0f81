// What an engine keeps between calls, on the TestDevice that the includer names: optimizer states and checkpoints, kept
// prompts, adapters, reward heads, several models.
#pragma once
#include <unistd.h>

#include <cmath>
#include <string>

#include "model/tensor_file.h"
#include "test/cases/engine_fixture.h"

namespace gavel {
namespace {

const std::atomic<bool> kNever{false};

std::vector<GroupInput> small_groups() {
  std::vector<GroupInput> groups{group_of(1, 9, true), group_of(2, 70, false)};
  for (GroupInput& group : groups) {
    for (int32_t c = 0; c < 2; ++c) {
      CompletionInput completion;
      for (int32_t j = 0; j < 4; ++j) completion.tokens.push_back(51 + (j * 37 + c * 11) % 240);
      completion.advantage = c == 0 ? 1.0f : -1.0f;
      group.completions.push_back(completion);
    }
  }
  return groups;
}

std::vector<float> logprobs_of(Engine& engine, const std::vector<GroupInput>& groups, bool adapter_off = false) {
  StepOptions options;
  options.adapter_off = adapter_off;
  StepResult result;
  CHECK_EQ(Trainer(*engine.model, engine.context).logprobs(groups, options, kNever, &result).message, std::string());
  return result.logprobs;
}

inline void train(Trainer& trainer, const std::vector<GroupInput>& groups, double rate = 1e-2) {
  StepResult result;
  CHECK_EQ(trainer.forward_backward(groups, {Objective{}}, {}, kNever, &result).message, std::string());
  OptimizerResult step;
  OptimizerOptions options;
  options.learning_rate = rate;
  CHECK_EQ(trainer.optimizer_step(options, &step).message, std::string());
  CHECK(step.applied && step.grad_norm > 0);
}

std::vector<float> read(const Weights& weights, const std::string& name, TensorKind kind = TensorKind::value) {
  std::vector<float> values;
  CHECK_EQ(weights.read(name, kind, &values).message, std::string());
  return values;
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  CHECK_EQ(a.size(), b.size());
  double largest = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    largest = std::max(largest, std::abs(static_cast<double>(a[i]) - b[i]));
  return largest;
}

TEST("engine: a device computes what the processor does, within rounding") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const double tolerance = dtype == DType::f32 ? 2e-5 : 5e-2;
    Engine engine(dtype, 1), processor(dtype, 1, cpu_paths().back(), {}, nullptr);
    const std::vector<GroupInput> groups = small_groups();
    CHECK(largest_difference(logprobs_of(engine, groups), logprobs_of(processor, groups)) < tolerance);
    StepResult result;
    for (Engine* one : {&engine, &processor}) {
      Trainer trainer(*one->model, one->context);
      CHECK(trainer.forward_backward(groups, {Objective{}}, {}, kNever, &result).ok());
    }
    for (const char* name : {"model.embed_tokens.weight", "model.layers.1.self_attn.k_proj.weight",
                             "visual.blocks.0.attn.qkv.weight", "visual.merger.mlp.0.bias"}) {
      const auto a = read(engine.model->weights(), name, TensorKind::gradient);
      const auto b = read(processor.model->weights(), name, TensorKind::gradient);
      double size = 0;
      for (const float value : b) size = std::max(size, std::abs(static_cast<double>(value)));
      CHECK(size > 0 && largest_difference(a, b) < size * (dtype == DType::f32 ? 1e-4 : 0.1));
    }
    const GroupInput group{groups[0].prompt_tokens, groups[0].images, {groups[0].completions[0]}};
    std::vector<float> a, b;
    CHECK(Trainer(*engine.model, engine.context).logits(group, false, kNever, &a).ok());
    CHECK(Trainer(*processor.model, processor.context).logits(group, false, kNever, &b).ok());
    CHECK(!a.empty() && largest_difference(a, b) < 4 * tolerance);
  }
}

TEST("engine: kept prompts and pictures change no bit") {
  Engine plain(DType::bf16, 1), keeping(DType::bf16, 1, cpu_paths().front(),
                                        [](ModelConfig& config) { config.prompt_cache_bytes = size_t{1} << 24; });
  std::vector<GroupInput> groups = small_groups();
  SampleRequest request;
  request.prompt_tokens = groups[0].prompt_tokens;
  request.images = groups[0].images;
  request.count = 2;
  request.max_new_tokens = 3;
  std::vector<std::vector<float>> drawn;
  SampleStats stats;
  const auto sample = [&](Engine& engine) {
    std::vector<std::vector<float>> rows(2);
    stats = {};
    const Status status = Sampler(*engine.model, engine.context)
                              .run(
                                  {request}, {2, {kImageToken}}, kNever,
                                  [&](std::vector<Completion> finished) {
                                    for (const Completion& one : finished)
                                      rows[static_cast<size_t>(one.sample)] = one.logprobs;
                                  },
                                  &stats);
    CHECK_EQ(status.message, std::string());
    return rows;
  };
  const auto expected = sample(plain);
  CHECK(sample(keeping) == expected);
  CHECK_EQ(stats.reused.prompt_tokens, 0);
  CHECK(sample(keeping) == expected);
  CHECK_EQ(stats.reused.prompt_tokens, static_cast<int64_t>(request.prompt_tokens.size()));
  // The prompt's pages again, then, once they are gone, its picture's features alone.
  CHECK_EQ(different_bits(logprobs_of(keeping, groups), logprobs_of(plain, groups)), 0);
  keeping.model->prompt_cache().drop_prompts();
  CHECK_EQ(different_bits(logprobs_of(keeping, groups), logprobs_of(plain, groups)), 0);
}

TEST("engine: a saved model and its optimizer go on with the same bits") {
  const auto groups = small_groups();
  const std::string path = "/tmp/gavel-engine-state-" + std::to_string(::getpid());
  for (const TrainingState state :
       {TrainingState{DType::f32, true, 0}, TrainingState{DType::bf16, false, 7}, TrainingState{DType::u8, true, 0}}) {
    const auto with_state = [&](ModelConfig& config) { config.state = state; };
    Engine engine(DType::bf16, 1, cpu_paths().front(), with_state),
        other(DType::bf16, 1, cpu_paths().front(), with_state);
    Trainer trainer(*engine.model, engine.context), resumed(*other.model, other.context);
    train(trainer, groups);
    std::vector<TensorWrite> writes;
    std::vector<TensorRead> reads;
    uint64_t offset = 0;
    Weights& weights = engine.model->weights();
    const auto add = [&](const Parameter& parameter, const SourceTensor& source, TensorKind kind, FileDType dtype,
                         uint64_t size) {
      const Weights::Extent extent = Weights::extent(parameter, source, kind);
      const uint64_t bytes = static_cast<uint64_t>(extent.rows * extent.cols) * size;
      writes.push_back({source.name, kind, dtype});
      reads.push_back({source.name, kind, path, offset, bytes, dtype});
      offset += bytes;
    };
    for (int32_t i = 0; i < weights.size(); ++i) {
      const Parameter& parameter = weights.parameter(i);
      for (const SourceTensor& source : parameter.sources) {
        add(parameter, source, TensorKind::value, FileDType::bf16, 2);
        if (parameter.master) add(parameter, source, TensorKind::master, FileDType::f32, 4);
        const bool codes = state.moments == DType::u8;
        for (const TensorKind kind :
             {codes ? TensorKind::codes1 : TensorKind::moment1, codes ? TensorKind::codes2 : TensorKind::moment2})
          add(parameter, source, kind, codes ? FileDType::u8 : FileDType::f32, codes ? 1 : 4);
      }
      for (const TensorKind kind : {TensorKind::scales1, TensorKind::scales2}) {
        if (parameter.scales1) add(parameter, parameter.sources.front(), kind, FileDType::f32, 4);
      }
    }
    CHECK_EQ(save_tensors(weights, engine.pool, path, {}, writes, kNever).message, std::string());
    CHECK_EQ(load_tensors(other.model->weights(), other.pool, reads, kNever).message, std::string());
    ::unlink(path.c_str());
    resumed.set_step_count(trainer.step_count());
    train(trainer, groups);
    train(resumed, groups);
    for (int32_t i = 0; i < weights.size(); ++i) {
      const std::string& name = weights.parameter(i).sources.front().name;
      CHECK_EQ(different_bits(read(weights, name), read(other.model->weights(), name)), 0);
      CHECK_EQ(different_bits(read(weights, name, TensorKind::moment1),
                              read(other.model->weights(), name, TensorKind::moment1)),
               0);
    }
  }
}

TEST("engine: an adapter trains beside a base that keeps its bits") {
  const auto groups = small_groups();
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Engine engine(dtype, 1);
    const std::vector<float> base = logprobs_of(engine, groups);
    AdapterOptions options;
    // Of the fused matrix two sources alone, so that its up matrix has rows and columns that are no adapter's.
    options.targets = {{"model.layers.0.self_attn.q_proj.weight", 4, 2.0},
                       {"model.layers.0.self_attn.v_proj.weight", 3, 2.0},
                       {"model.layers.1.mlp.down_proj.weight", 2, 1.0}};
    options.tokens = {60, 99};
    Weights& weights = engine.model->weights();
    CHECK_EQ(attach_adapter(weights, options).message, std::string());
    CHECK_EQ(different_bits(logprobs_of(engine, groups), base), 0);
    Trainer trainer(*engine.model, engine.context);
    for (int step = 0; step < 2; ++step) train(trainer, groups);
    CHECK_EQ(different_bits(logprobs_of(engine, groups, true), base), 0);
    CHECK(largest_difference(logprobs_of(engine, groups), base) > 1e-3);
    // Merged: W + s B A.
    const auto merged = read(weights, "model.layers.1.mlp.down_proj.weight", TensorKind::merged);
    const auto value = read(weights, "model.layers.1.mlp.down_proj.weight");
    const auto down = read(weights, "model.layers.1.mlp.down_proj.lora_A.weight");
    const auto up = read(weights, "model.layers.1.mlp.down_proj.lora_B.weight");
    for (const size_t at : {size_t{0}, size_t{40 * 72 + 9}, value.size() - 1}) {
      const size_t row = at / 72, col = at % 72;
      const double product =
          static_cast<double>(up[2 * row]) * down[col] + static_cast<double>(up[2 * row + 1]) * down[72 + col];
      CHECK_NEAR(merged[at], value[at] + product, 1e-5);
    }
    CHECK(largest_difference(merged, value) > 0);
    const auto token = read(weights, "model.embed_tokens.trainable_tokens");
    const auto table = read(weights, "model.embed_tokens.weight");
    CHECK(std::equal(token.begin(), token.begin() + 48, table.begin() + 60 * 48));
  }
}

TEST("engine: a reward head scores, and a ranking step moves its scores") {
  Engine engine(DType::bf16, 1);
  RewardHeadOptions options;
  options.token = 300;
  options.heads = 2;
  options.hidden_sizes = {24, 8};
  CHECK_EQ(engine.model->attach_reward_head(options).message, std::string());
  std::vector<GroupInput> groups{group_of(1, 9, true), group_of(2, 20, false)};
  for (GroupInput& group : groups) group.prompt_tokens.push_back(300);
  Trainer trainer(*engine.model, engine.context);
  const auto margin = [&] {
    ScoreResult scores;
    CHECK_EQ(trainer.score(groups, {}, true, kNever, &scores).message, std::string());
    CHECK_EQ(scores.count, 2);
    CHECK_EQ(scores.states.size(), size_t{2 * 48});
    CHECK_EQ(scores.mu.size(), size_t{4});
    return static_cast<double>(scores.mu[0] + scores.mu[1]) - (scores.mu[2] + scores.mu[3]);
  };
  const double before = margin();
  Objective ranking;
  ranking.kind = Objective::Kind::ranking;
  ranking.ranking.chosen = {0};
  ranking.ranking.rejected = {1};
  for (int step = 0; step < 2; ++step) {
    StepResult result;
    CHECK_EQ(trainer.forward_backward(groups, {ranking}, {}, kNever, &result).message, std::string());
    CHECK(result.loss > 0);
    OptimizerResult applied;
    OptimizerOptions rate;
    rate.learning_rate = 1e-2;
    CHECK_EQ(trainer.optimizer_step(rate, &applied).message, std::string());
    CHECK(applied.applied);
  }
  CHECK(margin() > before + 0.01);
}

TEST("engine: two models side by side, one a copy of the other") {
  const auto groups = small_groups();
  Engine policy(DType::bf16, 1), reference(DType::bf16, 1);
  Trainer trainer(*policy.model, policy.context);
  train(trainer, groups);
  const std::vector<float> moved = logprobs_of(policy, groups);
  CHECK(different_bits(moved, logprobs_of(reference, groups)) > 0);
  CHECK_EQ(reference.model->weights().copy_from(policy.model->weights()).message, std::string());
  CHECK_EQ(different_bits(moved, logprobs_of(reference, groups)), 0);
  train(trainer, groups);
  CHECK_EQ(different_bits(moved, logprobs_of(reference, groups)), 0);
  CHECK(different_bits(moved, logprobs_of(policy, groups)) > 0);
}

}  // namespace
}  // namespace gavel
