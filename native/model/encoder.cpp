#include "model/encoder.h"

#include <cmath>

#include "model/projection.h"
#include "model/rope_scaling.h"
#include "ops/builders.h"

namespace gavel {

Status Encoder::declare(ConfigReader& config, const std::string& prefix, const EncoderNames& names, int32_t count,
                        Weights* weights) {
  if (hidden_size % heads != 0 || head_dim() % 4 != 0 || head_dim() > 256) {
    config.refuse("Expected a vision head size (hidden size " + std::to_string(hidden_size) + " / heads " +
                  std::to_string(heads) + ") that is a multiple of 4 and at most 256. Correct the vision config.");
    return Status(config.status());
  }
  const int64_t h = hidden_size, f = intermediate_size,
                part = 3 * h / static_cast<int64_t>(std::max<size_t>(names.qkv.size(), 1));
  for (int32_t i = 0; i < count; ++i) {
    const std::string at = prefix + std::to_string(i) + ".", local = "vision." + std::to_string(i) + ".";
    const auto add = [&](const char* name, ParameterKind kind, std::vector<SourceTensor> sources) {
      return weights->add(local + name, kind, std::move(sources));
    };
    const auto matrix = [&](const char* name, const char* source, int64_t rows, int64_t cols) {
      return add(name, ParameterKind::matrix, {{at + source + ".weight", {rows, cols}}});
    };
    const auto bias = [&](const std::string& name, const char* source, int64_t rows) {
      return add(name.c_str(), ParameterKind::bias, {{at + source + ".bias", {rows}}});
    };
    const auto norm = [&](const char* name, const char* source) {
      return add(name, ParameterKind::norm, {{at + source + ".weight", {h}}});
    };
    std::vector<SourceTensor> qkv, qkv_bias;
    for (const std::string& source : names.qkv) {
      qkv.push_back({at + source + ".weight", {part, h}});
      qkv_bias.push_back({at + source + ".bias", {part}});
    }
    EncoderLayer layer;
    layer.norm1 = norm("norm1", names.norm1);
    layer.norm1_bias = bias("norm1_bias", names.norm1, h);
    layer.qkv = add("qkv", ParameterKind::matrix, std::move(qkv));
    layer.qkv_bias = add("qkv_bias", ParameterKind::bias, std::move(qkv_bias));
    layer.output = matrix("output", names.output, h, h);
    layer.output_bias = bias("output_bias", names.output, h);
    layer.norm2 = norm("norm2", names.norm2);
    layer.norm2_bias = bias("norm2_bias", names.norm2, h);
    layer.up = matrix("up", names.up, f, h);
    layer.up_bias = bias("up_bias", names.up, f);
    layer.down = matrix("down", names.down, h, f);
    layer.down_bias = bias("down_bias", names.down, h);
    layers.push_back(layer);
  }
  return Status::success();
}

Tensor Encoder::layer(Tape& tape, const Weights& weights, size_t index, Tensor x, const AttentionPlan* plan,
                      Tensor cosine, Tensor sine) const {
  const EncoderLayer& layer = layers[index];
  const int32_t size = head_dim(), padded = static_cast<int32_t>(round_up(size, 16));
  const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(size)));
  return tape.block(x, [=, this, &weights, &layer](Tape& t, Tensor in) {
    Tensor h = layer_norm(t, in, weights[layer.norm1], weights[layer.norm1_bias], eps);
    Tensor qkv = projection(t, weights, h, layer.qkv, layer.qkv_bias);
    if (cosine) rope(t, qkv, cosine, sine, 2 * heads, size);
    if (padded != size) qkv = resize_heads(t, qkv, 3 * heads, size, padded);
    Tensor context = attention(t, qkv, plan, {}, heads, heads, padded, scale);
    if (padded != size) context = resize_heads(t, context, heads, padded, size);
    Tensor middle = projection(t, weights, context, layer.output, layer.output_bias, in);
    h = layer_norm(t, middle, weights[layer.norm2], weights[layer.norm2_bias], eps);
    h = gelu(t, projection(t, weights, h, layer.up, layer.up_bias), tanh);
    return projection(t, weights, h, layer.down, layer.down_bias, middle);
  });
}

PatchRope patch_rope(double theta, int32_t head_dim) {
  PatchRope rope;
  const std::vector<float> base = rope_inverse_frequency(theta, head_dim / 2);
  for (int32_t axis = 0; axis < 2; ++axis) {
    for (float frequency : base) {
      rope.inverse_frequency.push_back(frequency);
      rope.axis.push_back(axis);
    }
  }
  return rope;
}

}  // namespace gavel
