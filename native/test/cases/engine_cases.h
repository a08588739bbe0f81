// The engine end to end without Node, on the TestDevice that the includer names: a small vision-language model with
// seeded weights is sampled, scored and trained.
#pragma once
#include <algorithm>
#include <cmath>
#include <span>

#include "test/cases/engine_fixture.h"

namespace gavel {
namespace {

void sampled_equals_trained(DType dtype, CpuPath path) {
  Engine sampling(dtype, 2, path), training(dtype, 1, path);
  const std::atomic<bool> never{false};
  std::vector<GroupInput> groups;
  for (uint32_t item = 0; item < 4; ++item)
    groups.push_back(group_of(item, 20 + static_cast<int32_t>(item) * 31, item % 2 == 1));
  std::vector<SampleRequest> requests;
  for (uint32_t item = 0; item < 4; ++item) {
    SampleRequest request;
    request.id = item;
    request.prompt_tokens = groups[item].prompt_tokens;
    request.images = groups[item].images;
    request.count = 3;
    request.max_new_tokens = 12 + static_cast<int32_t>(item) * 20;
    request.temperature = 0.8f;
    request.top_k = item == 2 ? 7 : 0;
    request.stop_tokens = {99};
    requests.push_back(std::move(request));
  }
  std::vector<std::vector<Completion>> done(4, std::vector<Completion>(3));
  SampleStats stats;
  Status status = Sampler(*sampling.model, sampling.context)
                      .run(
                          requests, {5, {kImageToken}}, never,
                          [&](std::vector<Completion> finished) {
                            for (Completion& one : finished)
                              done[static_cast<size_t>(one.request)][static_cast<size_t>(one.sample)] = std::move(one);
                          },
                          &stats);
  CHECK_EQ(status.message, std::string());
  CHECK_EQ(stats.completions, 12);
  std::vector<float> sampled;
  for (size_t g = 0; g < 4; ++g) {
    for (const Completion& one : done[g]) {
      CHECK(!one.tokens.empty() && one.tokens.size() == one.logprobs.size());
      CompletionInput input;
      input.tokens = one.tokens;
      input.temperature = 0.8f;
      groups[g].completions.push_back(input);
      sampled.insert(sampled.end(), one.logprobs.begin(), one.logprobs.end());
    }
  }
  CHECK(sampled.size() > 100);
  for (int64_t budget : {100000, 130}) {
    StepResult scored;
    StepOptions options;
    options.max_tokens_per_micro_batch = budget;
    status = Trainer(*training.model, training.context).logprobs(groups, options, never, &scored);
    CHECK_EQ(status.message, std::string());
    CHECK_EQ(different_bits(scored.logprobs, sampled), 0);
    for (bool checkpointing : {false, true}) {
      StepResult trained;
      options.activation_checkpointing = checkpointing;
      status =
          Trainer(*training.model, training.context).forward_backward(groups, {Objective{}}, options, never, &trained);
      CHECK_EQ(status.message, std::string());
      CHECK_EQ(different_bits(trained.logprobs, sampled), 0);
    }
  }
}

TEST("engine: sampled log-probs equal trained ones bit for bit, fp32") {
  for (const CpuPath& path : test::TestDevice::paths()) {
    if (!path.amx) sampled_equals_trained(DType::f32, path);
  }
}
TEST("engine: sampled log-probs equal trained ones bit for bit, bf16") {
  for (const CpuPath& path : test::TestDevice::paths()) sampled_equals_trained(DType::bf16, path);
}

TEST("engine: the gradient of every kind of parameter by finite differences") {
  Engine engine(DType::f32, 2);
  const std::atomic<bool> never{false};
  std::vector<GroupInput> groups{group_of(1, 9, true), group_of(2, 70, false)};
  for (GroupInput& group : groups) {
    for (int32_t c = 0; c < 2; ++c) {
      CompletionInput completion;
      for (int32_t j = 0; j < 5; ++j) completion.tokens.push_back(51 + (j * 37 + c * 11) % 240);
      group.completions.push_back(completion);
    }
  }
  Trainer trainer(*engine.model, engine.context);
  StepResult result;
  CHECK(trainer.forward_backward(groups, {Objective{}}, {}, never, &result).ok());
  auto loss = [&] {
    StepResult scored;
    CHECK(trainer.logprobs(groups, {}, never, &scored).ok());
    double sum = 0;
    for (float value : scored.logprobs) sum -= value;
    return sum / static_cast<double>(scored.logprobs.size());
  };
  CHECK_NEAR(loss(), result.loss, 1e-5);
  Weights& weights = engine.model->weights();
  const char* const names[] = {"model.embed_tokens.weight",
                               "visual.patch_embed.proj.weight",
                               "model.layers.0.self_attn.q_proj.weight",
                               "model.layers.1.self_attn.v_proj.bias",
                               "model.layers.1.mlp.up_proj.weight",
                               "model.layers.0.input_layernorm.weight",
                               "model.norm.weight",
                               "visual.blocks.0.attn.qkv.weight",
                               "visual.blocks.1.mlp.down_proj.bias",
                               "visual.merger.ln_q.weight",
                               "visual.merger.mlp.0.weight"};
  for (const char* name : std::span(names).first(std::min(std::size(names), test::TestDevice::kGradients))) {
    std::vector<float> value, gradient;
    CHECK(weights.read(name, TensorKind::value, &value).ok());
    CHECK(weights.read(name, TensorKind::gradient, &gradient).ok());
    // Along a random direction that follows the gradient's sign, so that the difference stands out of fp32 rounding.
    std::vector<float> direction(value.size()), moved(value.size());
    double analytic = 0, norm = 0;
    for (size_t i = 0; i < value.size(); ++i) norm += static_cast<double>(gradient[i]) * gradient[i];
    norm = std::sqrt(norm);
    CHECK(norm > 1e-6);
    for (size_t i = 0; i < value.size(); ++i) {
      direction[i] = static_cast<float>(gradient[i] / norm);
      analytic += static_cast<double>(direction[i]) * gradient[i];
    }
    // Two central differences and Richardson's extrapolation: the loss is curved, fp32 forbids tiny steps.
    auto slope = [&](float step) {
      double sides[2];
      for (int side = 0; side < 2; ++side) {
        for (size_t i = 0; i < value.size(); ++i) moved[i] = value[i] + (side == 0 ? step : -step) * direction[i];
        CHECK(weights.write(name, TensorKind::value, moved.data(), moved.size()).ok());
        sides[side] = loss();
      }
      return (sides[0] - sides[1]) / (2.0 * step);
    };
    const double extrapolated = (4.0 * slope(6e-3f) - slope(12e-3f)) / 3.0;
    CHECK(weights.write(name, TensorKind::value, value.data(), value.size()).ok());
    CHECK_NEAR(extrapolated / analytic, 1.0, 0.01);
  }
}

TEST("engine: bad packs are refused by name") {
  Engine engine(DType::f32, 1);
  const std::atomic<bool> never{false};
  Trainer trainer(*engine.model, engine.context);
  GroupInput group = group_of(1, 9, true);
  group.completions.resize(1);
  group.completions[0].tokens = {60, 61};
  StepResult result;
  GroupInput no_image = group;
  no_image.images.clear();
  CHECK(trainer.logprobs({no_image}, {}, never, &result).code == Code::image_count_mismatch);
  GroupInput two = group;
  two.images.push_back(two.images[0]);
  CHECK(trainer.logprobs({two}, {}, never, &result).code == Code::image_count_mismatch);
  GroupInput bad_token = group;
  bad_token.prompt_tokens[0] = 301;
  CHECK(trainer.logprobs({bad_token}, {}, never, &result).code == Code::tokenizer_mismatch);
  GroupInput empty;
  empty.completions = group.completions;
  CHECK(trainer.logprobs({empty}, {}, never, &result).code == Code::invalid_argument);
  const std::atomic<bool> now{true};
  CHECK(trainer.logprobs({group}, {}, now, &result).code == Code::aborted);
}

}  // namespace
}  // namespace gavel
