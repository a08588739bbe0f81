// scale * cosine[t, j] and scale * sine[t, j] of the fp32 product positions[axis[j]][t] * inverse_frequency[j], j <
// D/2. One function for text (one axis), mRoPE (three axes by section) and vision (height and width): only axis[]
// differs. `scale` is the attention factor of rope scaling (YaRN, Peng et al. 2023). No gradient.
#pragma once
#include "core/tensor.h"

namespace gavel {

struct RopeTable {
  Tensor cosine;                             // [T, D/2] fp32
  Tensor sine;                               // [T, D/2] fp32
  const int32_t* positions = nullptr;        // [axes, T]
  const int32_t* axis = nullptr;             // [D/2]
  const float* inverse_frequency = nullptr;  // [D/2]
  float scale = 1.0f;
};

}  // namespace gavel
