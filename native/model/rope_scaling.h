// Frequencies of rotary positions as a config names them: default, linear, dynamic (NTK), llama3, yarn (Peng et al.
// 2023) and longrope (Ding et al. 2024), in transformers' fp32 arithmetic.
#pragma once
#include <vector>

#include "model/config_reader.h"

namespace gavel {

struct RopeScaling {
  std::vector<float> inverse_frequency;  // [dim/2]
  float attention_factor = 1.0f;         // cosine and sine are scaled by it
  // The positions of a sequence that the config names, as scaling extends them. 0: it names none.
  int32_t position_limit = 0;
  // dynamic and longrope: beyond the limit every position of the sequence alike would take other frequencies, so what
  // is sampled token by token and what is trained at once would differ.
  bool fixed_until_limit = false;
};

// Reads `rope_parameters` (the engine brings older spellings into it).
RopeScaling read_rope_scaling(ConfigReader& config, int32_t dim, double default_theta);

// 1 / theta^(2 j / dim) in fp32, j < dim / 2.
std::vector<float> rope_inverse_frequency(double theta, int32_t dim);

}  // namespace gavel
