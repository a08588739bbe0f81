#include "model/decoder.h"

#include <cmath>

#include "model/projection.h"
#include "ops/builders.h"

namespace gavel {

// Sections take the frequencies in turn; interleaved ones give height the places 1, 4, 7 ... and width 2, 5, 8 ..., as
// many as their sections count, and leave the rest to time.
void Decoder::read_axes(ConfigReader& config, const DecoderForm& form, Architecture* architecture) {
  const int32_t half = head_dim / 2;
  rope_axis.assign(static_cast<size_t>(half), 0);
  if (form.sections.empty()) return;
  architecture->rope_axes = 3;
  std::vector<int32_t> sections = config.integers("rope_parameters.mrope_section", half);
  if (sections.empty()) sections = form.sections;
  if (sections.size() != 3 || sections[0] + sections[1] + sections[2] != half) {
    config.refuse("Expected three `mrope_section` counts that add up to half the head size (" + std::to_string(half) +
                  ").");
    return;
  }
  if (!form.interleaved) {
    auto place = rope_axis.begin();
    for (int32_t axis = 0; axis < 3; ++axis) {
      for (int32_t n = 0; n < sections[static_cast<size_t>(axis)]; ++n) *place++ = axis;
    }
    return;
  }
  for (int32_t axis = 1; axis < 3; ++axis) {
    for (int32_t j = axis; j < 3 * sections[static_cast<size_t>(axis)] && j < half; j += 3)
      rope_axis[static_cast<size_t>(j)] = axis;
  }
}

DecoderLayer Decoder::declare_layer(const DecoderForm& form, int32_t index, Weights* weights) const {
  const int64_t h = hidden_size, q = int64_t{query_heads} * head_dim, kv = int64_t{kv_heads} * head_dim,
                f = intermediate_size;
  const std::string local = "layers." + std::to_string(index) + ".", at = form.prefix + local;
  const auto norm = [&](const char* name, const char* source, int64_t size) {
    return weights->add(local + name, ParameterKind::norm, {{at + source, {size}}});
  };
  const auto matrix = [&](const char* name, std::vector<SourceTensor> sources) {
    return weights->add(local + name, ParameterKind::matrix, std::move(sources));
  };
  const auto bias = [&](bool there, const char* name, std::vector<SourceTensor> sources) {
    return there ? weights->add(local + name, ParameterKind::bias, std::move(sources)) : -1;
  };
  DecoderLayer layer;
  layer.input_norm = norm("input_norm", "input_layernorm.weight", h);
  layer.qkv = matrix("qkv", {{at + "self_attn.q_proj.weight", {q, h}},
                             {at + "self_attn.k_proj.weight", {kv, h}},
                             {at + "self_attn.v_proj.weight", {kv, h}}});
  layer.qkv_bias = bias(form.qkv_bias, "qkv_bias",
                        {{at + "self_attn.q_proj.bias", {q}},
                         {at + "self_attn.k_proj.bias", {kv}},
                         {at + "self_attn.v_proj.bias", {kv}}});
  layer.query_norm = form.qk_norm ? norm("query_norm", "self_attn.q_norm.weight", head_dim) : -1;
  layer.key_norm = form.qk_norm ? norm("key_norm", "self_attn.k_norm.weight", head_dim) : -1;
  layer.output = matrix("output", {{at + "self_attn.o_proj.weight", {h, q}}});
  layer.output_bias = bias(form.output_bias, "output_bias", {{at + "self_attn.o_proj.bias", {h}}});
  layer.post_norm = norm("post_norm", "post_attention_layernorm.weight", h);
  layer.gate_up = matrix("gate_up", {{at + "mlp.gate_proj.weight", {f, h}}, {at + "mlp.up_proj.weight", {f, h}}});
  layer.gate_up_bias =
      bias(form.mlp_bias, "gate_up_bias", {{at + "mlp.gate_proj.bias", {f}}, {at + "mlp.up_proj.bias", {f}}});
  layer.down = matrix("down", {{at + "mlp.down_proj.weight", {h, f}}});
  layer.down_bias = bias(form.mlp_bias, "down_bias", {{at + "mlp.down_proj.bias", {h}}});
  return layer;
}

Status Decoder::declare(ConfigReader& config, const DecoderForm& form, Weights* weights, Architecture* architecture) {
  architecture->tower_parameters = weights->size();
  vocabulary = config.integer("vocab_size");
  hidden_size = config.integer("hidden_size");
  intermediate_size = config.integer("intermediate_size");
  num_layers = config.integer("num_hidden_layers", ConfigReader::kMost);
  query_heads = config.integer("num_attention_heads", ConfigReader::kMost);
  kv_heads = config.optional("num_key_value_heads", query_heads, 1, ConfigReader::kMost);
  head_dim = config.optional("head_dim", form.head_dim > 0 ? form.head_dim : hidden_size / query_heads, 1);
  eps = static_cast<float>(config.number("rms_norm_eps", 1e-6));
  const bool tied = config.flag("tie_word_embeddings", false);
  config.choice("hidden_act", "silu", {"silu"});
  GAVEL_RETURN_IF_ERROR(Status(config.status()));
  if (head_dim % 16 != 0 || head_dim > 256) {
    config.refuse(
        "Expected a head size (`head_dim`, or `hidden_size` / `num_attention_heads`) that is a multiple of 16 "
        "and at most 256 but it is " +
        std::to_string(head_dim) + ": attention works on blocks of 16 columns.");
  }
  if (query_heads % kv_heads != 0) {
    config.refuse("Expected `num_attention_heads` to be a multiple of `num_key_value_heads` but they are " +
                  std::to_string(query_heads) + " and " + std::to_string(kv_heads) + ".");
  }
  GAVEL_RETURN_IF_ERROR(Status(config.status()));
  read_axes(config, form, architecture);
  rope = read_rope_scaling(config, head_dim, form.theta);
  GAVEL_RETURN_IF_ERROR(Status(config.status()));

  const Shape table{vocabulary, hidden_size};
  embedding = weights->add("embedding", ParameterKind::embedding, {{form.prefix + "embed_tokens.weight", table}},
                           tied ? Layout::panels : Layout::rows);
  for (int32_t i = 0; i < num_layers; ++i) layers.push_back(declare_layer(form, i, weights));
  final_norm = weights->add("final_norm", ParameterKind::norm, {{form.prefix + "norm.weight", {hidden_size}}});

  architecture->vocabulary = vocabulary;
  architecture->hidden_size = hidden_size;
  architecture->num_layers = num_layers;
  architecture->query_heads = query_heads;
  architecture->kv_heads = kv_heads;
  architecture->head_dim = head_dim;
  architecture->position_limit = rope.position_limit;
  architecture->fixed_until_limit = rope.fixed_until_limit;
  architecture->head = tied ? embedding : weights->add("head", ParameterKind::matrix, {{form.head, table}});
  return Status::success();
}

Tensor Decoder::forward(Tape& tape, const Weights& weights, const PackView& pack, const VisionFeatures& vision) const {
  const auto& [features, deepstack] = vision;
  const auto [cosine, sine] =
      rope_table(tape, pack.positions, pack.num_tokens, rope_axis, rope.inverse_frequency, rope.attention_factor);
  const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
  // What is dropped is drawn by rows of the pack, and deepstack adds to them: then the last layer takes all.
  const bool narrows =
      !pack.read_rows.empty() && deepstack.size() < layers.size() && weights.adapter().active_dropout <= 0;
  Tensor x = token_embedding(tape, weights, embedding, pack.tokens, pack.num_tokens, features, pack.feature_rows,
                             pack.sources);
  for (size_t i = 0; i < layers.size(); ++i) {
    const DecoderLayer& layer = layers[i];
    KvStore store{pack.kv == nullptr ? nullptr : pack.kv + static_cast<int64_t>(i) * pack.kv_layer_bytes};
    const KvPages kept{pack.kept_pages, static_cast<int32_t>(i)};
    const bool last = narrows && i + 1 == layers.size();
    const auto body = [=, this, &weights, &pack, &layer, cosine = cosine, sine = sine](Tape& t, Tensor in) {
      Tensor h = rms_norm(t, in, weights[layer.input_norm], eps);
      Tensor qkv = projection(t, weights, h, layer.qkv, layer.qkv_bias);
      if (layer.query_norm >= 0) {
        qkv =
            head_norm(t, qkv, weights[layer.query_norm], weights[layer.key_norm], query_heads, kv_heads, head_dim, eps);
      }
      gavel::rope(t, qkv, cosine, sine, query_heads + kv_heads, head_dim);
      const bool part = last && pack.read_plan != nullptr && !t.recording();
      Tensor context =
          attention(t, qkv, part ? pack.read_plan : pack.plan, store, query_heads, kv_heads, head_dim, scale, kept);
      if (last) {
        context = gather_rows(t, context, pack.read_rows, context.dtype);
        in = gather_rows(t, in, pack.read_rows, in.dtype);
      }
      Tensor middle = projection(t, weights, context, layer.output, layer.output_bias, in);
      h = rms_norm(t, middle, weights[layer.post_norm], eps);
      h = swiglu(t, projection(t, weights, h, layer.gate_up, layer.gate_up_bias));
      return projection(t, weights, h, layer.down, layer.down_bias, middle);
    };
    x = tape.block(x, body, last ? pack.hidden_rows() : pack.num_tokens);
    if (i < deepstack.size()) x = row_mix(tape, x, deepstack[i], pack.feature_rows, nullptr, 1, pack.num_tokens);
  }
  if (!narrows && !pack.read_rows.empty()) x = gather_rows(tape, x, pack.read_rows, x.dtype);
  return rms_norm(tape, x, weights[final_norm], eps);
}

}  // namespace gavel
