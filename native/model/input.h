// What users hand to the engine, already copied out of JavaScript: groups of one prompt and its completions.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/dtype.h"
#include "model/training_state.h"

namespace gavel {

// Values that copies share.
class Pixels {
 public:
  Pixels() = default;
  Pixels(std::vector<float> values) : values_(std::make_shared<const std::vector<float>>(std::move(values))) {}
  const float* data() const { return values_ ? values_->data() : nullptr; }
  size_t size() const { return values_ ? values_->size() : 0; }
  const float* begin() const { return data(); }
  const float* end() const { return data() + size(); }

 private:
  std::shared_ptr<const std::vector<float>> values_;
};

// One picture, or one video, as its processor made it. Their placeholders stand in the prompt in the same order.
struct ImageInput {
  Pixels pixels;                  // [t*h*w, columns]
  std::array<int32_t, 3> grid{};  // patches in time, height, width; LLaVA-OneVision: tiles (or frames), then a tile's
  bool video = false;
  std::array<int32_t, 2> size{};  // height and width of the picture in pixels; LLaVA-OneVision alone reads it
  float seconds_per_grid = 1.0f;  // of a video: seconds from one temporal patch to the next; Qwen2.5-VL reads it
};

struct CompletionInput {
  std::vector<int32_t> tokens;
  std::vector<uint8_t> mask;  // empty: all ones
  float temperature = 1.0f;
  float advantage = 0.0f;
  bool has_advantage = true;              // false: none was given
  std::vector<float> old_logprobs;        // empty: on-policy
  std::vector<float> reference_logprobs;  // empty: none
  std::vector<float> sampling_logprobs;   // empty: the old ones
  std::vector<float> importance_ratio;    // empty: ones
};

struct GroupInput {
  std::vector<int32_t> prompt_tokens;
  std::vector<ImageInput> images;
  std::vector<CompletionInput> completions;
};

// config.json as numbers (booleans as 0 or 1; lists of lists flat) and texts under dotted names, text_config lifted to
// the top.
struct ModelConfig {
  std::string family;
  std::map<std::string, std::vector<double>> numbers;
  std::map<std::string, std::string> texts;
  DType dtype = DType::f32;
  TrainingState state;
  size_t prompt_cache_bytes = 0;
  bool planning = false;  // the model is asked what it would take, and never filled
};

}  // namespace gavel
