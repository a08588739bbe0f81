// Frequencies of rotary positions as a config names them: default, linear, dynamic (NTK), llama3, yarn (Peng et al.
// 2023) and longrope (Ding et al. 2024), in transformers' fp32 arithmetic.
#pragma once
#include <vector>

#include "model/config_reader.h"

namespace gavel {

struct RopeScaling {
  std::vector<float> inverse_frequency;  // [dim/2]
  float attention_factor = 1.0f;         // cosine and sine are scaled by it
  // dynamic and longrope take other frequencies beyond this many positions, for every position of the sequence alike:
  // what is sampled token by token and what is trained at once would differ. 0: no such limit.
  int32_t position_limit = 0;
};

// Reads `rope_parameters` (the engine brings older spellings into it).
RopeScaling read_rope_scaling(ConfigReader& config, int32_t dim, double default_theta);

// 1 / theta^(2 j / dim) in fp32, j < dim / 2.
std::vector<float> rope_inverse_frequency(double theta, int32_t dim);

}  // namespace gavel
