#include "model/decoder.h"

#include <cmath>

#include "ops/builders.h"

namespace gavel {

std::vector<float> rope_inverse_frequency(double theta, int32_t dim) {
  std::vector<float> result;
  for (int32_t j = 0; j < dim / 2; ++j) {
    const float exponent = static_cast<float>(2 * j) / static_cast<float>(dim);
    result.push_back(1.0f / std::pow(static_cast<float>(theta), exponent));
  }
  return result;
}

Status Decoder::declare(ConfigReader& config, const std::string& prefix, Weights* weights, Architecture* architecture) {
  vocabulary = config.integer("vocab_size");
  hidden_size = config.integer("hidden_size");
  intermediate_size = config.integer("intermediate_size");
  num_layers = config.integer("num_hidden_layers");
  query_heads = config.integer("num_attention_heads");
  kv_heads = config.integer("num_key_value_heads", query_heads);
  head_dim = config.integer("head_dim", hidden_size / std::max(query_heads, 1));
  eps = static_cast<float>(config.number("rms_norm_eps", 1e-6));
  const bool tied = config.integer("tie_word_embeddings", 0) != 0;
  GAVEL_RETURN_IF_ERROR(config.status());
  if (head_dim % 16 != 0 || head_dim > 256)
    config.refuse("Expected a head size that is a multiple of 16 and at most 256 but it is " +
                  std::to_string(head_dim) + ".");
  if (kv_heads < 1 || query_heads % kv_heads != 0)
    config.refuse("Expected `num_attention_heads` to be a multiple of `num_key_value_heads` but they are " +
                  std::to_string(query_heads) + " and " + std::to_string(kv_heads) + ".");

  const double theta = config.number("rope_parameters.rope_theta", config.number("rope_theta", 10000.0));
  inverse_frequency = rope_inverse_frequency(theta, head_dim);
  std::vector<int32_t> sections = config.integers("rope_parameters.mrope_section");
  if (sections.empty()) sections = config.integers("rope_scaling.mrope_section");
  rope_axis.assign(static_cast<size_t>(head_dim / 2), 0);
  if (!sections.empty()) {
    size_t j = 0;
    for (size_t axis = 0; axis < sections.size(); ++axis) {
      for (int32_t n = 0; n < sections[axis] && j < rope_axis.size(); ++n) rope_axis[j++] = static_cast<int32_t>(axis);
    }
    if (sections.size() != 3 || j != rope_axis.size() || sections[0] + sections[1] + sections[2] != head_dim / 2) {
      config.refuse("Expected three `mrope_section` counts that add up to half the head size (" +
                    std::to_string(head_dim / 2) + ").");
    }
  }
  GAVEL_RETURN_IF_ERROR(config.status());

  const int64_t h = hidden_size, q = int64_t{query_heads} * head_dim, kv = int64_t{kv_heads} * head_dim,
                f = intermediate_size;
  embedding = weights->add("embedding", ParameterKind::embedding, {{prefix + "embed_tokens.weight", {vocabulary, h}}},
                           tied ? Layout::panels : Layout::rows);
  for (int32_t i = 0; i < num_layers; ++i) {
    const std::string at = prefix + "layers." + std::to_string(i) + ".";
    const std::string short_name = "layers." + std::to_string(i) + ".";
    DecoderLayer layer;
    layer.input_norm =
        weights->add(short_name + "input_norm", ParameterKind::norm, {{at + "input_layernorm.weight", {h}}});
    layer.qkv = weights->add(short_name + "qkv", ParameterKind::matrix,
                             {{at + "self_attn.q_proj.weight", {q, h}},
                              {at + "self_attn.k_proj.weight", {kv, h}},
                              {at + "self_attn.v_proj.weight", {kv, h}}});
    layer.qkv_bias = weights->add(short_name + "qkv_bias", ParameterKind::bias,
                                  {{at + "self_attn.q_proj.bias", {q}},
                                   {at + "self_attn.k_proj.bias", {kv}},
                                   {at + "self_attn.v_proj.bias", {kv}}});
    layer.output =
        weights->add(short_name + "output", ParameterKind::matrix, {{at + "self_attn.o_proj.weight", {h, q}}});
    layer.post_norm =
        weights->add(short_name + "post_norm", ParameterKind::norm, {{at + "post_attention_layernorm.weight", {h}}});
    layer.gate_up = weights->add(short_name + "gate_up", ParameterKind::matrix,
                                 {{at + "mlp.gate_proj.weight", {f, h}}, {at + "mlp.up_proj.weight", {f, h}}});
    layer.down = weights->add(short_name + "down", ParameterKind::matrix, {{at + "mlp.down_proj.weight", {h, f}}});
    layers.push_back(layer);
  }
  final_norm = weights->add("final_norm", ParameterKind::norm, {{prefix + "norm.weight", {h}}});

  architecture->vocabulary = vocabulary;
  architecture->hidden_size = hidden_size;
  architecture->num_layers = num_layers;
  architecture->query_heads = query_heads;
  architecture->kv_heads = kv_heads;
  architecture->head_dim = head_dim;
  architecture->rope_axes = sections.empty() ? 1 : 3;
  architecture->head =
      tied ? embedding : weights->add("head", ParameterKind::matrix, {{"lm_head.weight", {vocabulary, h}}});
  return Status::success();
}

Tensor Decoder::forward(Tape& tape, const Weights& weights, const PackView& pack, Tensor features) const {
  const auto [cosine, sine] = rope_table(tape, pack.positions, pack.num_tokens, rope_axis, inverse_frequency);
  const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
  Tensor x = gavel::embedding(tape, weights[embedding], pack.tokens, pack.num_tokens, features, pack.feature_rows);
  for (size_t i = 0; i < layers.size(); ++i) {
    const DecoderLayer& layer = layers[i];
    KvStore store{pack.kv == nullptr ? nullptr : pack.kv + static_cast<int64_t>(i) * pack.kv_layer_bytes};
    x = tape.block(x, [=, this, &weights, &pack, &layer, cosine = cosine, sine = sine](Tape& t, Tensor in) {
      Tensor h = rms_norm(t, in, weights[layer.input_norm], eps);
      Tensor qkv = linear(t, h, weights[layer.qkv], weights[layer.qkv_bias]);
      rope(t, qkv, cosine, sine, query_heads + kv_heads, head_dim);
      Tensor context = attention(t, qkv, pack.plan, store, query_heads, kv_heads, head_dim, scale);
      Tensor middle = linear(t, context, weights[layer.output], {}, in);
      h = rms_norm(t, middle, weights[layer.post_norm], eps);
      h = swiglu(t, linear(t, h, weights[layer.gate_up]));
      return linear(t, h, weights[layer.down], {}, middle);
    });
  }
  return rms_norm(tape, x, weights[final_norm], eps);
}

}  // namespace gavel
