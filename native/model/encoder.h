// The vision transformer's encoder (Dosovitskiy et al. 2021) that several towers share: LayerNorm before attention and
// MLP, biases everywhere, GELU; rotary positions when the tower has them. Head sizes need not be multiples of 16.
#pragma once
#include <string>

#include "model/architecture.h"

namespace gavel {

// Names of a layer's tensors below its prefix; `qkv` holds the sources of the fused matrix.
struct EncoderNames {
  const char *norm1, *norm2, *output, *up, *down;
  std::vector<std::string> qkv;
};

struct EncoderLayer {
  int32_t norm1, norm1_bias, qkv, qkv_bias, output, output_bias, norm2, norm2_bias, up, up_bias, down, down_bias;
};

struct Encoder {
  int32_t hidden_size = 0, heads = 0, intermediate_size = 0;
  float eps = 1e-6f;
  bool tanh = true;  // of GELU
  std::vector<EncoderLayer> layers;

  int32_t head_dim() const { return hidden_size / heads; }
  // Checks the head size and declares `count` layers named prefix + index + ".".
  Status declare(ConfigReader& config, const std::string& prefix, const EncoderNames& names, int32_t count,
                 Weights* weights);
  // One layer as a block of the tape; without cosine and sine nothing is rotated.
  Tensor layer(Tape& tape, const Weights& weights, size_t index, Tensor x, const AttentionPlan* plan,
               Tensor cosine = {}, Tensor sine = {}) const;
};

// Height takes the first half of a head's frequencies, width the second.
struct PatchRope {
  std::vector<float> inverse_frequency;
  std::vector<int32_t> axis;
};
PatchRope patch_rope(double theta, int32_t head_dim);

}  // namespace gavel
