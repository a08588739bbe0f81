// The text decoder that several families share (Llama, Touvron et al. 2023): RMSNorm, grouped-query attention with
// rotary positions (one axis or mRoPE sections), SwiGLU; biases and QK-norm as the family has them. qkv and gate+up are
// one matrix each.
#pragma once
#include <string>

#include "model/architecture.h"
#include "model/rope_scaling.h"

namespace gavel {

// What a family's decoder is, and what its config leaves unsaid.
struct DecoderForm {
  std::string prefix = "model.", head = "lm_head.weight";  // of its tensors
  bool qkv_bias = false, output_bias = false, mlp_bias = false, qk_norm = false;
  int32_t head_dim = 0;  // of a config without one; 0: hidden size / heads
  double theta = 10000.0;
  std::vector<int32_t> sections;  // of mRoPE, when the config has none; empty: one axis
  bool interleaved = false;       // mRoPE takes every third frequency for height and width
};

struct DecoderLayer {
  int32_t input_norm, qkv, qkv_bias, query_norm, key_norm, output, output_bias, post_norm, gate_up, gate_up_bias, down,
      down_bias;
};

struct Decoder {
  int32_t hidden_size, num_layers, query_heads, kv_heads, head_dim, intermediate_size, vocabulary;
  float eps;
  RopeScaling rope;
  std::vector<int32_t> rope_axis;  // [D/2]
  int32_t embedding, final_norm;
  std::vector<DecoderLayer> layers;

  // Reads the text config and declares the weights; fills the common fields of `architecture`.
  Status declare(ConfigReader& config, const DecoderForm& form, Weights* weights, Architecture* architecture);
  // Image rows replace placeholder embeddings; deepstack[i] is added to those rows after layer i (Meng et al. 2024).
  Tensor forward(Tape& tape, const Weights& weights, const PackView& pack, const VisionFeatures& vision) const;

 private:
  void read_axes(ConfigReader& config, const DecoderForm& form, Architecture* architecture);
  DecoderLayer declare_layer(const DecoderForm& form, int32_t index, Weights* weights) const;
};

}  // namespace gavel
