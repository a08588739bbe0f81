// What users hand to the engine, already copied out of JavaScript: groups of one prompt and its completions.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/dtype.h"

namespace gavel {

struct ImageInput {
  std::vector<float> pixels;      // [t*h*w, columns]
  std::array<int32_t, 3> grid{};  // patches in time, height, width
};

struct CompletionInput {
  std::vector<int32_t> tokens;
  std::vector<uint8_t> mask;  // empty: all ones
  float temperature = 1.0f;
  float advantage = 0.0f;
  std::vector<float> old_logprobs;        // empty: on-policy
  std::vector<float> reference_logprobs;  // empty: none
};

struct GroupInput {
  std::vector<int32_t> prompt_tokens;
  std::vector<ImageInput> images;
  std::vector<CompletionInput> completions;
};

// config.json as numbers under dotted names (booleans as 0 or 1), text_config lifted to the top.
struct ModelConfig {
  std::string family;
  std::map<std::string, std::vector<double>> numbers;
  DType dtype = DType::f32;
};

}  // namespace gavel
