// The Qwen2-style text decoder that several families share: RMSNorm, grouped-query attention with rotary positions (one
// axis or mRoPE sections), SwiGLU. qkv and gate+up are one matrix each.
#pragma once
#include "model/architecture.h"

namespace gavel {

struct DecoderLayer {
  int32_t input_norm, qkv, qkv_bias, output, post_norm, gate_up, down;
};

struct Decoder {
  int32_t hidden_size, num_layers, query_heads, kv_heads, head_dim, intermediate_size, vocabulary;
  float eps;
  std::vector<float> inverse_frequency;  // [D/2], fp32 as transformers computes it
  std::vector<int32_t> rope_axis;        // [D/2]
  int32_t embedding, final_norm;
  std::vector<DecoderLayer> layers;

  // Reads the text config and declares the weights under `prefix` ("model."); fills the common fields of
  // `architecture`.
  Status declare(ConfigReader& config, const std::string& prefix, Weights* weights, Architecture* architecture);
  // `features` are image rows that replace placeholder embeddings, or absent.
  Tensor forward(Tape& tape, const Weights& weights, const PackView& pack, Tensor features) const;
};

// 1 / theta^(2 j / dim) in fp32 arithmetic, j < dim / 2.
std::vector<float> rope_inverse_frequency(double theta, int32_t dim);

}  // namespace gavel
