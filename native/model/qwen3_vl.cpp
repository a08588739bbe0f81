// Qwen3-VL (Bai et al. 2025): a vision tower with interpolated position embeddings, a 2x2 merger, features of several
// of its layers added to the first decoder layers (DeepStack, Meng et al. 2024), and a Qwen3 decoder with interleaved
// mRoPE. A video's frames are separate runs of placeholders, told apart by time stamps in the text.
#include <algorithm>
#include <cmath>

#include "model/decoder.h"
#include "model/encoder.h"
#include "model/mrope.h"
#include "model/patch_batch.h"
#include "model/projection.h"
#include "ops/builders.h"

namespace gavel {
namespace {

constexpr int32_t kTaps = 4;

struct GridBatch final : PatchBatch {
  std::vector<int32_t> taps;  // [patches, 4] rows of the position embeddings
  std::vector<float> tap_weights;
};

struct Merger {
  int32_t norm, norm_bias, in, in_bias, out, out_bias;
};

class Qwen3Vl final : public Architecture {
 public:
  Decoder decoder;
  Encoder encoder;
  PatchRope rope;
  int32_t patch_columns = 0, merge = 2, side = 1;  // side of the learned position grid
  int32_t patch_weight = -1, patch_bias = -1, position_table = -1;
  Merger merger;
  std::vector<int32_t> deep_layers;
  std::vector<Merger> deep_mergers;

  Status declare(const ModelConfig& config, Weights* weights);
  VisionFeatures tower(Tape& tape, const Weights& weights, const VisionBatch& pictures) const override;
  Tensor decode(Tape& tape, const Weights& weights, const PackView& pack, const VisionFeatures& vision) const override {
    return decoder.forward(tape, weights, pack, vision);
  }
  std::unique_ptr<VisionBatch> new_vision_batch() const override { return std::make_unique<GridBatch>(); }
  Status add_image(const ImageInput& image, VisionBatch* batch, std::vector<int32_t>* feature_rows) const override;
  void finish_vision(VisionBatch* batch) const override { static_cast<GridBatch&>(*batch).finish(); }
  Placeholders placeholders(const ImageInput& image) const override {
    return {image.video ? image.grid[0] : 1,
            (image.video ? 1 : image.grid[0]) * (image.grid[1] / merge) * (image.grid[2] / merge)};
  }
  Status positions(const GroupInput& group, std::span<const PlaceholderRun> runs, Positions* positions) const override;

 private:
  Status declare_vision(ConfigReader& reader, Weights* weights);
  Tensor merged(Tape& tape, const Weights& weights, const Merger& by, Tensor x, bool norm_after) const;
};

Merger declare_merger(const std::string& name, const std::string& at, int64_t normed, int64_t merged, int64_t out,
                      Weights* weights) {
  Merger made;
  made.norm = weights->add(name + ".norm", ParameterKind::norm, {{at + "norm.weight", {normed}}});
  made.norm_bias = weights->add(name + ".norm_bias", ParameterKind::bias, {{at + "norm.bias", {normed}}});
  made.in = weights->add(name + ".in", ParameterKind::matrix, {{at + "linear_fc1.weight", {merged, merged}}});
  made.in_bias = weights->add(name + ".in_bias", ParameterKind::bias, {{at + "linear_fc1.bias", {merged}}});
  made.out = weights->add(name + ".out", ParameterKind::matrix, {{at + "linear_fc2.weight", {out, merged}}});
  made.out_bias = weights->add(name + ".out_bias", ParameterKind::bias, {{at + "linear_fc2.bias", {out}}});
  return made;
}

Status Qwen3Vl::declare_vision(ConfigReader& reader, Weights* weights) {
  const int32_t depth = reader.integer("vision_config.depth", ConfigReader::kMost);
  encoder.hidden_size = reader.integer("vision_config.hidden_size");
  encoder.heads = reader.integer("vision_config.num_heads", ConfigReader::kMost);
  encoder.intermediate_size = reader.integer("vision_config.intermediate_size");
  encoder.tanh =
      reader.choice("vision_config.hidden_act", "gelu_pytorch_tanh", {"gelu_pytorch_tanh", "gelu"}) != "gelu";
  const int32_t patch = reader.optional("vision_config.patch_size", 16, 1, 1024);
  const int32_t temporal = reader.optional("vision_config.temporal_patch_size", 2, 1, 16);
  const int32_t channels = reader.optional("vision_config.in_channels", 3, 1, 16);
  const int32_t table = reader.optional("vision_config.num_position_embeddings", 2304);
  merge = reader.optional("vision_config.spatial_merge_size", 2, 1, 4);
  image_token = reader.token("image_token_id");
  video_token = reader.token("video_token_id");
  deep_layers = reader.integers("vision_config.deepstack_visual_indexes");
  feature_parts = 1 + static_cast<int32_t>(deep_layers.size());
  const int32_t out = reader.optional("vision_config.out_hidden_size", 3584), hidden = reader.integer("hidden_size");
  GAVEL_RETURN_IF_ERROR(Status(reader.status()));
  side = static_cast<int32_t>(std::sqrt(static_cast<double>(table)));
  if (side * side != table)
    reader.refuse("Expected `vision_config.num_position_embeddings` to be a square but it is " + std::to_string(table) +
                  ".");
  if (out != hidden) reader.refuse("Expected `vision_config.out_hidden_size` to equal `hidden_size`.");
  if (image_token < 0) reader.refuse("Expected `image_token_id` in config.json of family qwen3_vl.");
  for (size_t i = 0; i < deep_layers.size(); ++i) {
    if (deep_layers[i] >= depth || (i > 0 && deep_layers[i] <= deep_layers[i - 1]))
      reader.refuse("Expected `vision_config.deepstack_visual_indexes` ascending and below `vision_config.depth`.");
  }
  if (static_cast<int32_t>(deep_layers.size()) > reader.integer("num_hidden_layers", ConfigReader::kMost))
    reader.refuse("Expected no more `vision_config.deepstack_visual_indexes` than decoder layers.");
  GAVEL_RETURN_IF_ERROR(Status(reader.status()));

  patch_columns = channels * temporal * patch * patch;
  const std::string at = "model.visual.";
  const int64_t h = encoder.hidden_size, wide = int64_t{merge} * merge * h;
  patch_weight =
      weights->add("vision.patch", ParameterKind::matrix, {{at + "patch_embed.proj.weight", {h, patch_columns}}});
  patch_bias = weights->add("vision.patch_bias", ParameterKind::bias, {{at + "patch_embed.proj.bias", {h}}});
  position_table =
      weights->add("vision.positions", ParameterKind::embedding, {{at + "pos_embed.weight", {table, h}}}, Layout::rows);
  GAVEL_RETURN_IF_ERROR(encoder.declare(
      reader, at + "blocks.", {"norm1", "norm2", "attn.proj", "mlp.linear_fc1", "mlp.linear_fc2", {"attn.qkv"}}, depth,
      weights));
  merger = declare_merger("vision.merger", at + "merger.", h, wide, out, weights);
  for (size_t i = 0; i < deep_layers.size(); ++i) {
    const std::string index = std::to_string(i);
    deep_mergers.push_back(declare_merger("vision.deepstack." + index, at + "deepstack_merger_list." + index + ".",
                                          wide, wide, out, weights));
  }
  rope = patch_rope(reader.number("vision_config.rope_parameters.rope_theta", 10000.0), encoder.head_dim());
  return Status(reader.status());
}

Status Qwen3Vl::declare(const ModelConfig& config, Weights* weights) {
  ConfigReader reader(config);
  GAVEL_RETURN_IF_ERROR(declare_vision(reader, weights));
  DecoderForm form;
  form.prefix = "model.language_model.";
  form.qkv_bias = form.output_bias = reader.flag("attention_bias", false);
  form.qk_norm = true;
  form.head_dim = 128;
  form.theta = 500000.0;
  form.sections = {24, 20, 20};
  form.interleaved = true;
  GAVEL_RETURN_IF_ERROR(decoder.declare(reader, form, weights, this));
  return Status(reader.status());
}

// Units of merge * merge patches as one row each; the norm is over a patch, or over the unit.
Tensor Qwen3Vl::merged(Tape& tape, const Weights& weights, const Merger& by, Tensor x, bool norm_after) const {
  const int64_t unit = int64_t{merge} * merge, rows = x.rows() / unit, cols = x.cols() * unit;
  if (norm_after) x = reshaped(x, rows, cols);
  x = layer_norm(tape, x, weights[by.norm], weights[by.norm_bias], 1e-6f);
  x = reshaped(x, rows, cols);
  x = gelu(tape, projection(tape, weights, x, by.in, by.in_bias));
  return projection(tape, weights, x, by.out, by.out_bias);
}

VisionFeatures Qwen3Vl::tower(Tape& tape, const Weights& weights, const VisionBatch& pictures) const {
  const auto& batch = static_cast<const GridBatch&>(pictures);
  std::vector<Tensor> deepstack;
  const auto [cosine, sine] =
      rope_table(tape, batch.positions.data(), batch.num_patches, rope.axis, rope.inverse_frequency);
  Tensor x = patch_embedding(tape, weights[patch_weight], weights[patch_bias], batch.pixels.data(), nullptr,
                             batch.num_patches);
  x = row_mix(tape, x, weights[position_table], batch.taps.data(), batch.tap_weights.data(), kTaps, batch.num_patches);
  for (size_t i = 0; i < encoder.layers.size(); ++i) {
    x = encoder.layer(tape, weights, i, x, &batch.view, cosine, sine);
    const auto deep = std::find(deep_layers.begin(), deep_layers.end(), static_cast<int32_t>(i));
    if (deep == deep_layers.end()) continue;
    const size_t which = static_cast<size_t>(deep - deep_layers.begin());
    deepstack.push_back(merged(tape, weights, deep_mergers[which], x, true));
  }
  return {merged(tape, weights, merger, x, false), std::move(deepstack)};
}

// Bilinear taps of position i of n on the learned grid, corners on corners.
struct AxisTaps {
  int32_t low, high;
  double upper;  // weight of high
};

AxisTaps axis_taps(int32_t i, int32_t n, int32_t side) {
  const double place = static_cast<double>(i) * (side - 1) / std::max(n - 1, 1);
  const int32_t low = static_cast<int32_t>(place);
  return {low, std::min(low + 1, side - 1), place - low};
}

// Patches stand as the processor wrote them: unit by unit, frame by frame.
Status Qwen3Vl::add_image(const ImageInput& image, VisionBatch* batch, std::vector<int32_t>* feature_rows) const {
  GAVEL_RETURN_IF_ERROR(check_kind(image, *this));
  GAVEL_RETURN_IF_ERROR(check_units(image, merge));
  GAVEL_RETURN_IF_ERROR(check_pixels(image, patch_columns));
  auto& layout = static_cast<GridBatch&>(*batch);
  const auto [time, height, width] = image.grid;
  const int32_t cols = width / merge, unit = merge * merge;
  layout.pixels.insert(layout.pixels.end(), image.pixels.begin(), image.pixels.end());
  for (int32_t t = 0; t < time; ++t) {
    for (int32_t n = 0; n < height * width; ++n) {
      const int32_t row = n / unit / cols * merge + n % unit / merge, col = n / unit % cols * merge + n % merge;
      const AxisTaps y = axis_taps(row, height, side), x = axis_taps(col, width, side);
      layout.heights.push_back(row);
      layout.widths.push_back(col);
      for (int32_t tap = 0; tap < kTaps; ++tap) {
        const double weight = (tap < 2 ? 1 - y.upper : y.upper) * (tap % 2 == 0 ? 1 - x.upper : x.upper);
        layout.taps.push_back((tap < 2 ? y.low : y.high) * side + (tap % 2 == 0 ? x.low : x.high));
        layout.tap_weights.push_back(static_cast<float>(weight));
      }
    }
    layout.num_patches += height * width;
    layout.bounds.push_back(layout.num_patches);
  }
  for (int32_t n = 0; n < time * height * width / unit; ++n) feature_rows->push_back(layout.num_features++);
  return Status::success();
}

// Every frame of a video has a run of its own and no temporal extent.
Status Qwen3Vl::positions(const GroupInput& group, std::span<const PlaceholderRun> runs, Positions* positions) const {
  std::vector<RunGrid> grids;
  for (const PlaceholderRun& run : runs) {
    const ImageInput& image = group.images[static_cast<size_t>(run.image)];
    grids.push_back({image.grid[1] / merge, image.grid[2] / merge});
  }
  mrope_positions(group, runs, grids, positions);
  return Status::success();
}

}  // namespace

Status make_qwen3_vl(const ModelConfig& config, Weights* weights, std::unique_ptr<Architecture>* architecture) {
  auto model = std::make_unique<Qwen3Vl>();
  GAVEL_RETURN_IF_ERROR(model->declare(config, weights));
  *architecture = std::move(model);
  return Status::success();
}

}  // namespace gavel
