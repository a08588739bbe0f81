// Qwen2.5-VL (Bai et al. 2025): a windowed vision tower at native resolution, a 2x2 merger, and a Qwen2 decoder with
// multimodal rotary positions.
#include <algorithm>
#include <cmath>

#include "model/decoder.h"
#include "model/mrope.h"
#include "model/patch_batch.h"
#include "model/projection.h"
#include "ops/builders.h"

namespace gavel {
namespace {

struct VisionBlock {
  int32_t norm1, qkv, qkv_bias, proj, proj_bias, norm2, gate_up, gate_up_bias, down, down_bias;
};

// Patches window by window; bounds are frames.
struct WindowBatch final : PatchBatch {
  std::vector<int32_t> order;  // [patches] row of pixels that stands at p
  std::vector<int32_t> window_bounds{0};
  OwnedPlan window_plan;
  AttentionPlan window_view;
};

class Qwen25Vl final : public Architecture {
 public:
  Decoder decoder;
  int32_t depth = 0, vision_hidden = 0, vision_heads = 0, patch_columns = 0, merge = 2, window_units = 1,
          tokens_per_second = 4;
  std::vector<int32_t> full_blocks;
  int32_t patch_weight = -1, merger_norm = -1, merger_in = -1, merger_in_bias = -1, merger_out = -1,
          merger_out_bias = -1;
  std::vector<VisionBlock> blocks;
  std::vector<float> vision_frequency;
  std::vector<int32_t> vision_axis;

  Status declare(const ModelConfig& config, Weights* weights);
  VisionFeatures tower(Tape& tape, const Weights& weights, const VisionBatch& pictures) const override;
  Tensor decode(Tape& tape, const Weights& weights, const PackView& pack, const VisionFeatures& vision) const override {
    return decoder.forward(tape, weights, pack, vision);
  }
  std::unique_ptr<VisionBatch> new_vision_batch() const override { return std::make_unique<WindowBatch>(); }
  Status add_image(const ImageInput& image, VisionBatch* batch, std::vector<int32_t>* feature_rows) const override;
  void finish_vision(VisionBatch* batch) const override;
  Placeholders placeholders(const ImageInput& image) const override {
    return {1, image.grid[0] * (image.grid[1] / merge) * (image.grid[2] / merge)};
  }
  Status positions(const GroupInput& group, std::span<const PlaceholderRun> runs, Positions* positions) const override;
};

Status Qwen25Vl::declare(const ModelConfig& config, Weights* weights) {
  ConfigReader reader(config);
  depth = reader.integer("vision_config.depth", ConfigReader::kMost);
  vision_hidden = reader.integer("vision_config.hidden_size");
  vision_heads = reader.integer("vision_config.num_heads", ConfigReader::kMost);
  const int32_t inner = reader.integer("vision_config.intermediate_size");
  const int32_t patch = reader.optional("vision_config.patch_size", 14, 1, 1024);
  const int32_t temporal = reader.optional("vision_config.temporal_patch_size", 2, 1, 16);
  const int32_t channels =
      reader.optional("vision_config.in_channels", reader.optional("vision_config.in_chans", 3, 1, 16), 1, 16);
  merge = reader.optional("vision_config.spatial_merge_size", 2, 1, 4);
  window_units = reader.optional("vision_config.window_size", 112) / merge / patch;
  tokens_per_second = reader.optional("vision_config.tokens_per_second", 4, 0, 1 << 16);
  full_blocks = reader.integers("vision_config.fullatt_block_indexes");
  image_token = reader.token("image_token_id");
  video_token = reader.token("video_token_id");
  reader.choice("vision_config.hidden_act", "silu", {"silu"});
  const int32_t out = reader.optional("vision_config.out_hidden_size", reader.integer("hidden_size"));
  GAVEL_RETURN_IF_ERROR(Status(reader.status()));
  const int32_t vision_head_dim = vision_hidden / vision_heads;
  if (vision_hidden % vision_heads != 0 || vision_head_dim % 16 != 0)
    reader.refuse("Expected a vision head size that is a multiple of 16 but it is " + std::to_string(vision_head_dim) +
                  ". Correct `hidden_size` or `num_heads` of the vision config.");
  if (out != reader.integer("hidden_size"))
    reader.refuse("Expected `vision_config.out_hidden_size` to equal `hidden_size`.");
  if (image_token < 0) reader.refuse("Expected `image_token_id` in config.json of family qwen2_5_vl.");
  if (window_units < 1) reader.refuse("Expected `vision_config.window_size` of at least one merged patch.");
  GAVEL_RETURN_IF_ERROR(Status(reader.status()));

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
  DecoderForm form;
  form.qkv_bias = true;
  form.theta = 1000000.0;
  form.sections = {16, 24, 24};
  GAVEL_RETURN_IF_ERROR(decoder.declare(reader, form, weights, this));
  return Status(reader.status());
}

VisionFeatures Qwen25Vl::tower(Tape& tape, const Weights& weights, const VisionBatch& pictures) const {
  const auto& batch = static_cast<const WindowBatch&>(pictures);
  constexpr float kEps = 1e-6f;
  const int32_t head_size = vision_hidden / vision_heads;
  const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_size)));
  const auto [cosine, sine] =
      rope_table(tape, batch.positions.data(), batch.num_patches, vision_axis, vision_frequency);
  Tensor x =
      patch_embedding(tape, weights[patch_weight], {}, batch.pixels.data(), batch.order.data(), batch.num_patches);
  for (int32_t i = 0; i < depth; ++i) {
    const VisionBlock& block = blocks[static_cast<size_t>(i)];
    const bool full = std::find(full_blocks.begin(), full_blocks.end(), i) != full_blocks.end();
    const AttentionPlan* plan = full ? &batch.view : &batch.window_view;
    x = tape.block(x, [=, this, &weights, &block, cosine = cosine, sine = sine](Tape& t, Tensor in) {
      Tensor h = rms_norm(t, in, weights[block.norm1], kEps);
      Tensor qkv = projection(t, weights, h, block.qkv, block.qkv_bias);
      rope(t, qkv, cosine, sine, 2 * vision_heads, head_size);
      Tensor context = attention(t, qkv, plan, {}, vision_heads, vision_heads, head_size, scale);
      Tensor middle = projection(t, weights, context, block.proj, block.proj_bias, in);
      h = rms_norm(t, middle, weights[block.norm2], kEps);
      h = swiglu(t, projection(t, weights, h, block.gate_up, block.gate_up_bias));
      return projection(t, weights, h, block.down, block.down_bias, middle);
    });
  }
  x = rms_norm(tape, x, weights[merger_norm], kEps);
  const int64_t unit = int64_t{merge} * merge;
  x = reshaped(x, x.rows() / unit, x.cols() * unit);
  x = gelu(tape, projection(tape, weights, x, merger_in, merger_in_bias));
  return {projection(tape, weights, x, merger_out, merger_out_bias), {}};
}

// Patches stand window by window; within a window merged units row by row; within a unit as the processor wrote them.
Status Qwen25Vl::add_image(const ImageInput& image, VisionBatch* batch, std::vector<int32_t>* feature_rows) const {
  GAVEL_RETURN_IF_ERROR(check_kind(image, *this));
  GAVEL_RETURN_IF_ERROR(check_units(image, merge));
  GAVEL_RETURN_IF_ERROR(check_pixels(image, patch_columns));
  auto& layout = static_cast<WindowBatch&>(*batch);
  const auto [time, height, width] = image.grid;
  const int32_t first_patch = layout.num_patches, rows = height / merge, cols = width / merge, unit = merge * merge;
  layout.pixels.insert(layout.pixels.end(), image.pixels.begin(), image.pixels.end());
  const size_t first_unit = feature_rows->size();
  feature_rows->resize(first_unit + static_cast<size_t>(time) * static_cast<size_t>(rows * cols));
  for (int32_t t = 0; t < time; ++t) {
    for (int32_t wr = 0; wr < rows; wr += window_units) {
      for (int32_t wc = 0; wc < cols; wc += window_units) {
        for (int32_t r = wr; r < std::min(rows, wr + window_units); ++r) {
          for (int32_t c = wc; c < std::min(cols, wc + window_units); ++c) {
            const int32_t source_unit = (t * rows + r) * cols + c;
            (*feature_rows)[first_unit + static_cast<size_t>(source_unit)] = layout.num_features++;
            for (int32_t i = 0; i < unit; ++i) {
              layout.order.push_back(first_patch + source_unit * unit + i);
              layout.heights.push_back(r * merge + i / merge);
              layout.widths.push_back(c * merge + i % merge);
            }
          }
        }
        layout.window_bounds.push_back(static_cast<int32_t>(layout.order.size()));
      }
    }
    layout.bounds.push_back(static_cast<int32_t>(layout.order.size()));
  }
  layout.num_patches = static_cast<int32_t>(layout.order.size());
  return Status::success();
}

void Qwen25Vl::finish_vision(VisionBatch* batch) const {
  auto& layout = static_cast<WindowBatch&>(*batch);
  layout.finish();
  layout.window_plan = plan_segments(layout.window_bounds);
  layout.window_view = layout.window_plan.view();
}

// A video's frames are tokens_per_second apart for each whole second of a temporal patch; a still's stand together.
Status Qwen25Vl::positions(const GroupInput& group, std::span<const PlaceholderRun> runs, Positions* positions) const {
  std::vector<RunGrid> grids;
  for (const PlaceholderRun& run : runs) {
    const ImageInput& image = group.images[static_cast<size_t>(run.image)];
    const int32_t seconds = static_cast<int32_t>(image.seconds_per_grid);
    if (int64_t{seconds} * tokens_per_second * image.grid[0] > 1 << 28)
      return Status::error(
          Code::bad_data,
          "Expected `secondsPerGrid` of a video whose positions can be counted but it is too large. Give the "
          "seconds from one temporal patch to the next.");
    grids.push_back({image.grid[1] / merge, image.grid[2] / merge, image.video ? tokens_per_second * seconds : 1});
  }
  mrope_positions(group, runs, grids, positions);
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
