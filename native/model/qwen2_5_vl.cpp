// Qwen2.5-VL (Bai et al. 2025): a windowed vision tower at native resolution, a 2x2 merger, and a Qwen2 decoder with
// multimodal rotary positions.
#include <algorithm>
#include <cmath>

#include "model/decoder.h"
#include "ops/builders.h"

namespace gavel {
namespace {

struct VisionBlock {
  int32_t norm1, qkv, qkv_bias, proj, proj_bias, norm2, gate_up, gate_up_bias, down, down_bias;
};

class Qwen25Vl final : public Architecture {
 public:
  Decoder decoder;
  int32_t depth = 0, vision_hidden = 0, vision_heads = 0, patch_columns = 0, merge = 2, window_units = 1;
  std::vector<int32_t> full_blocks;
  int32_t patch_weight = -1, merger_norm = -1, merger_in = -1, merger_in_bias = -1, merger_out = -1,
          merger_out_bias = -1;
  std::vector<VisionBlock> blocks;
  std::vector<float> vision_frequency;
  std::vector<int32_t> vision_axis;

  Status declare(const ModelConfig& config, Weights* weights);
  Tensor forward(Tape& tape, const Weights& weights, const PackView& pack) const override;
  Tensor tower(Tape& tape, const Weights& weights, const PackView& pack) const;
  Status add_image(const ImageInput& image, VisionLayout* layout) const override;
  Status positions(const GroupInput& group, Positions* positions) const override;
};

Status Qwen25Vl::declare(const ModelConfig& config, Weights* weights) {
  ConfigReader reader(config);
  depth = reader.integer("vision_config.depth");
  vision_hidden = reader.integer("vision_config.hidden_size");
  vision_heads = reader.integer("vision_config.num_heads");
  const int32_t inner = reader.integer("vision_config.intermediate_size");
  const int32_t patch = reader.integer("vision_config.patch_size", 14);
  const int32_t temporal = reader.integer("vision_config.temporal_patch_size", 2);
  const int32_t channels = reader.integer("vision_config.in_channels", reader.integer("vision_config.in_chans", 3));
  merge = reader.integer("vision_config.spatial_merge_size", 2);
  window_units = reader.integer("vision_config.window_size", 112) / std::max(merge, 1) / std::max(patch, 1);
  full_blocks = reader.integers("vision_config.fullatt_block_indexes");
  image_token = reader.integer("image_token_id", -1);
  const int32_t out = reader.integer("vision_config.out_hidden_size", reader.integer("hidden_size"));
  GAVEL_RETURN_IF_ERROR(reader.status());
  const int32_t vision_head_dim = vision_hidden / vision_heads;
  if (vision_hidden % vision_heads != 0 || vision_head_dim % 16 != 0)
    reader.refuse("Expected a vision head size that is a multiple of 16 but it is " + std::to_string(vision_head_dim) +
                  ".");
  if (out != reader.integer("hidden_size"))
    reader.refuse("Expected `vision_config.out_hidden_size` to equal `hidden_size`.");
  if (image_token < 0) reader.refuse("Expected `image_token_id` in config.json of family qwen2_5_vl.");
  if (window_units < 1) reader.refuse("Expected `vision_config.window_size` of at least one merged patch.");
  GAVEL_RETURN_IF_ERROR(reader.status());

  patch_columns = channels * temporal * patch * patch;
  const int64_t h = vision_hidden, f = inner, merged = int64_t{merge} * merge * h;
  const std::string at = "visual.";
  patch_weight =
      weights->add("vision.patch", ParameterKind::matrix, {{at + "patch_embed.proj.weight", {h, patch_columns}}});
  for (int32_t i = 0; i < depth; ++i) {
    const std::string b = at + "blocks." + std::to_string(i) + ".", n = "vision." + std::to_string(i) + ".";
    VisionBlock block;
    block.norm1 = weights->add(n + "norm1", ParameterKind::norm, {{b + "norm1.weight", {h}}});
    block.qkv = weights->add(n + "qkv", ParameterKind::matrix, {{b + "attn.qkv.weight", {3 * h, h}}});
    block.qkv_bias = weights->add(n + "qkv_bias", ParameterKind::bias, {{b + "attn.qkv.bias", {3 * h}}});
    block.proj = weights->add(n + "proj", ParameterKind::matrix, {{b + "attn.proj.weight", {h, h}}});
    block.proj_bias = weights->add(n + "proj_bias", ParameterKind::bias, {{b + "attn.proj.bias", {h}}});
    block.norm2 = weights->add(n + "norm2", ParameterKind::norm, {{b + "norm2.weight", {h}}});
    block.gate_up = weights->add(n + "gate_up", ParameterKind::matrix,
                                 {{b + "mlp.gate_proj.weight", {f, h}}, {b + "mlp.up_proj.weight", {f, h}}});
    block.gate_up_bias = weights->add(n + "gate_up_bias", ParameterKind::bias,
                                      {{b + "mlp.gate_proj.bias", {f}}, {b + "mlp.up_proj.bias", {f}}});
    block.down = weights->add(n + "down", ParameterKind::matrix, {{b + "mlp.down_proj.weight", {h, f}}});
    block.down_bias = weights->add(n + "down_bias", ParameterKind::bias, {{b + "mlp.down_proj.bias", {h}}});
    blocks.push_back(block);
  }
  merger_norm = weights->add("vision.merger_norm", ParameterKind::norm, {{at + "merger.ln_q.weight", {h}}});
  merger_in = weights->add("vision.merger_in", ParameterKind::matrix, {{at + "merger.mlp.0.weight", {merged, merged}}});
  merger_in_bias = weights->add("vision.merger_in_bias", ParameterKind::bias, {{at + "merger.mlp.0.bias", {merged}}});
  merger_out = weights->add("vision.merger_out", ParameterKind::matrix, {{at + "merger.mlp.2.weight", {out, merged}}});
  merger_out_bias = weights->add("vision.merger_out_bias", ParameterKind::bias, {{at + "merger.mlp.2.bias", {out}}});

  // Height takes the first half of the frequencies, width the second.
  const double theta = reader.number("vision_config.rope_parameters.rope_theta", 10000.0);
  const std::vector<float> base = rope_inverse_frequency(theta, vision_head_dim / 2);
  for (int32_t axis = 0; axis < 2; ++axis) {
    for (float frequency : base) {
      vision_frequency.push_back(frequency);
      vision_axis.push_back(axis);
    }
  }
  GAVEL_RETURN_IF_ERROR(decoder.declare(reader, "model.", weights, this));
  return reader.status();
}

Tensor Qwen25Vl::tower(Tape& tape, const Weights& weights, const PackView& pack) const {
  constexpr float kEps = 1e-6f;
  const int32_t head_size = vision_hidden / vision_heads;
  const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_size)));
  const auto [cosine, sine] = rope_table(tape, pack.patch_positions, pack.num_patches, vision_axis, vision_frequency);
  Tensor x = patch_embedding(tape, weights[patch_weight], {}, pack.pixels, pack.patch_order, pack.num_patches);
  for (int32_t i = 0; i < depth; ++i) {
    const VisionBlock& block = blocks[static_cast<size_t>(i)];
    const bool full = std::find(full_blocks.begin(), full_blocks.end(), i) != full_blocks.end();
    const AttentionPlan* plan = full ? pack.image_plan : pack.window_plan;
    x = tape.block(x, [=, this, &weights, &block, cosine = cosine, sine = sine](Tape& t, Tensor in) {
      Tensor h = rms_norm(t, in, weights[block.norm1], kEps);
      Tensor qkv = linear(t, h, weights[block.qkv], weights[block.qkv_bias]);
      rope(t, qkv, cosine, sine, 2 * vision_heads, head_size);
      Tensor context = attention(t, qkv, plan, {}, vision_heads, vision_heads, head_size, scale);
      Tensor middle = linear(t, context, weights[block.proj], weights[block.proj_bias], in);
      h = rms_norm(t, middle, weights[block.norm2], kEps);
      h = swiglu(t, linear(t, h, weights[block.gate_up], weights[block.gate_up_bias]));
      return linear(t, h, weights[block.down], weights[block.down_bias], middle);
    });
  }
  x = rms_norm(tape, x, weights[merger_norm], kEps);
  const int64_t unit = int64_t{merge} * merge;
  x = reshaped(x, x.rows() / unit, x.cols() * unit);
  x = gelu(tape, linear(tape, x, weights[merger_in], weights[merger_in_bias]));
  return linear(tape, x, weights[merger_out], weights[merger_out_bias]);
}

Tensor Qwen25Vl::forward(Tape& tape, const Weights& weights, const PackView& pack) const {
  const Tensor features = pack.num_patches > 0 ? tower(tape, weights, pack) : Tensor{};
  return decoder.forward(tape, weights, pack, features);
}

// Patches stand window by window; within a window merged units row by row; within a unit as the processor wrote them.
Status Qwen25Vl::add_image(const ImageInput& image, VisionLayout* layout) const {
  const auto [time, height, width] = image.grid;
  const int64_t patches = int64_t{time} * height * width;
  if (time < 1 || height < 1 || width < 1 || height % merge != 0 || width % merge != 0) {
    return Status::error(Code::bad_data, "Expected an image grid of whole " + std::to_string(merge) + "x" +
                                             std::to_string(merge) + " units but received " + std::to_string(time) +
                                             "x" + std::to_string(height) + "x" + std::to_string(width) + " patches.");
  }
  if (static_cast<int64_t>(image.pixels.size()) != patches * patch_columns) {
    return Status::error(Code::bad_data, "Expected " + std::to_string(patches * patch_columns) +
                                             " pixel values for a grid of " + std::to_string(patches) +
                                             " patches but received " + std::to_string(image.pixels.size()) +
                                             ". Prepare images with this checkpoint's processor.");
  }
  const int32_t first_patch = static_cast<int32_t>(layout->patch_order.size());
  const int32_t rows = height / merge, cols = width / merge, unit = merge * merge;
  layout->pixels.insert(layout->pixels.end(), image.pixels.begin(), image.pixels.end());
  const size_t first_unit = layout->feature_of_unit.size();
  layout->feature_of_unit.resize(first_unit + static_cast<size_t>(time) * rows * cols);
  for (int32_t t = 0; t < time; ++t) {
    for (int32_t wr = 0; wr < rows; wr += window_units) {
      for (int32_t wc = 0; wc < cols; wc += window_units) {
        for (int32_t r = wr; r < std::min(rows, wr + window_units); ++r) {
          for (int32_t c = wc; c < std::min(cols, wc + window_units); ++c) {
            const int32_t source_unit = (t * rows + r) * cols + c;
            layout->feature_of_unit[first_unit + static_cast<size_t>(source_unit)] = layout->num_features++;
            for (int32_t i = 0; i < unit; ++i) {
              layout->patch_order.push_back(first_patch + source_unit * unit + i);
              layout->heights.push_back(r * merge + i / merge);
              layout->widths.push_back(c * merge + i % merge);
            }
          }
        }
        layout->window_bounds.push_back(static_cast<int32_t>(layout->patch_order.size()));
      }
    }
    layout->image_bounds.push_back(static_cast<int32_t>(layout->patch_order.size()));
  }
  return Status::success();
}

// Text counts on all three axes; an image's tokens stand at (start, start + row, start + column), and the text after it
// begins past the largest of them.
Status Qwen25Vl::positions(const GroupInput& group, Positions* positions) const {
  size_t image = 0;
  int32_t next = 0;
  const auto& tokens = group.prompt_tokens;
  for (size_t i = 0; i < tokens.size();) {
    if (tokens[i] != image_token) {
      for (auto& axis : positions->axes) axis.push_back(next);
      ++next;
      ++i;
      continue;
    }
    if (image >= group.images.size()) {
      return Status::error(Code::image_count_mismatch,
                           "Expected placeholder tokens for " + std::to_string(group.images.size()) +
                               " images in the prompt but received more. Give every image that the prompt names.");
    }
    const auto [time, height, width] = group.images[image++].grid;
    const int32_t rows = height / merge, cols = width / merge;
    const size_t count = static_cast<size_t>(time) * rows * cols;
    for (size_t n = 0; n < count; ++n, ++i) {
      if (i >= tokens.size() || tokens[i] != image_token) {
        return Status::error(Code::image_count_mismatch, "Expected " + std::to_string(count) +
                                                             " placeholder tokens for image " + std::to_string(image) +
                                                             " but received " + std::to_string(n) +
                                                             " in the prompt. Repeat its placeholder as often.");
      }
      const int32_t in_frame = static_cast<int32_t>(n) % (rows * cols);
      positions->axes[0].push_back(next);
      positions->axes[1].push_back(next + in_frame / cols);
      positions->axes[2].push_back(next + in_frame % cols);
    }
    next += std::max(rows, cols);
  }
  if (image != group.images.size()) {
    return Status::error(Code::image_count_mismatch,
                         "Expected placeholder tokens for " + std::to_string(group.images.size()) +
                             " images in the prompt but received those of " + std::to_string(image) +
                             ". Give the images that the prompt names and no others.");
  }
  positions->next = next;
  return Status::success();
}

}  // namespace

Status make_qwen2_5_vl(const ModelConfig& config, Weights* weights, std::unique_ptr<Architecture>* architecture) {
  auto model = std::make_unique<Qwen25Vl>();
  GAVEL_RETURN_IF_ERROR(model->declare(config, weights));
  *architecture = std::move(model);
  return Status::success();
}

}  // namespace gavel
