// A small vision-language model with seeded weights on the TestDevice that the includer names, and groups for it.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <span>

#include "core/philox.h"
#include "model/model.h"
#include "sample/sampler.h"
#include "test/check.h"
#include "train/trainer.h"

namespace gavel {
namespace {

constexpr int32_t kImageToken = 50;

inline ModelConfig small_config(DType dtype) {
  ModelConfig config;
  config.family = "qwen2_5_vl";
  config.dtype = dtype;
  config.numbers = {{"vocab_size", {301}},
                    {"hidden_size", {48}},
                    {"intermediate_size", {72}},
                    {"num_hidden_layers", {2}},
                    {"num_attention_heads", {3}},
                    {"num_key_value_heads", {1}},
                    {"tie_word_embeddings", {1}},
                    {"rope_parameters.mrope_section", {2, 3, 3}},
                    {"image_token_id", {kImageToken}},
                    {"vision_config.depth", {2}},
                    {"vision_config.hidden_size", {32}},
                    {"vision_config.intermediate_size", {24}},
                    {"vision_config.num_heads", {2}},
                    {"vision_config.patch_size", {2}},
                    {"vision_config.window_size", {8}},
                    {"vision_config.fullatt_block_indexes", {1}}};
  return config;
}

struct Engine {
  ThreadPool pool;
  Scratch scratch;
  Context context;
  std::unique_ptr<Model> model;
  FlushDenormals flush;

  Engine(DType dtype, int threads, CpuPath path = cpu_paths().front(),
         const std::function<void(ModelConfig&)>& change = {}, Device* device = test::TestDevice::device())
      : pool(threads), context{&pool, &scratch, path.isa, path.amx, false, device} {
    ModelConfig config = small_config(dtype);
    if (change) change(config);
    const Status status = Model::create(config, device, &model);
    if (!status.ok()) test::fail(__FILE__, __LINE__, status.message);
    model->weights().initialize(3, 0.2);
  }
};

inline uint32_t draw(uint32_t item, uint32_t position) { return random_bits({5, item, 0, position})[0]; }

inline GroupInput group_of(uint32_t item, int32_t text, bool image) {
  GroupInput group;
  for (int32_t i = 0; i < text; ++i)
    group.prompt_tokens.push_back(static_cast<int32_t>(51 + draw(item, static_cast<uint32_t>(i)) % 250));
  if (image) {
    ImageInput picture;
    picture.grid = {1, 6, 4};
    std::vector<float> pixels;
    for (uint32_t i = 0; i < 24 * 24; ++i)
      pixels.push_back(static_cast<float>(draw(item + 100, i) % 1000) * 0.002f - 1.0f);
    picture.pixels = std::move(pixels);
    group.images.push_back(std::move(picture));
    for (int i = 0; i < 6; ++i) group.prompt_tokens.push_back(kImageToken);
    group.prompt_tokens.push_back(60);
  }
  return group;
}

inline int64_t different_bits(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return -1;
  int64_t count = 0;
  for (size_t i = 0; i < a.size(); ++i) count += std::memcmp(&a[i], &b[i], sizeof(float)) != 0;
  return count;
}

}  // namespace
}  // namespace gavel
