// LLaVA-OneVision (Li et al. 2024): SigLIP (Zhai et al. 2023) over the tiles of a picture, a two-layer projector,
// features arranged by anyres.h, and a Qwen2 decoder.
#include "model/anyres.h"
#include "model/decoder.h"
#include "model/encoder.h"
#include "model/patch_batch.h"
#include "model/projection.h"
#include "ops/builders.h"

namespace gavel {
namespace {

struct TileBatch final : PatchBatch {
  std::vector<int32_t> places;  // [patches] row of the position embeddings
  RowSums sums;                 // of projected patches; the newline is named by the row past the last when finished
};

class LlavaOnevision final : public Architecture {
 public:
  Decoder decoder;
  Encoder encoder;
  TileGrid tile;
  int32_t image_size = 0, patch_columns = 0;
  std::vector<Resolution> resolutions;
  int32_t patch_weight = -1, patch_bias = -1, position_table = -1, newline = -1;
  int32_t in = -1, in_bias = -1, out = -1, out_bias = -1;
  size_t used_layers = 0;  // of the tower; later ones and its last norm lead nowhere

  Status declare(const ModelConfig& config, Weights* weights);
  VisionFeatures tower(Tape& tape, const Weights& weights, const VisionBatch& pictures) const override;
  Tensor decode(Tape& tape, const Weights& weights, const PackView& pack, const VisionFeatures& vision) const override {
    return decoder.forward(tape, weights, pack, vision);
  }
  std::unique_ptr<VisionBatch> new_vision_batch() const override { return std::make_unique<TileBatch>(); }
  Status add_image(const ImageInput& image, VisionBatch* batch, std::vector<int32_t>* feature_rows) const override;
  void finish_vision(VisionBatch* batch) const override;
  Placeholders placeholders(const ImageInput& image) const override;

 private:
  Status declare_vision(ConfigReader& reader, Weights* weights);
  void declare_projector(ConfigReader& reader, Weights* weights);
  Status arrange(const ImageInput& image, int32_t first, RowSums* sums) const;
};

Status LlavaOnevision::declare_vision(ConfigReader& reader, Weights* weights) {
  const std::string vision = "vision_config.";
  reader.choice(vision + "model_type", "siglip_vision_model", {"siglip_vision_model"});
  reader.choice("vision_feature_select_strategy", "full", {"full"});
  encoder.hidden_size = reader.integer(vision + "hidden_size");
  encoder.heads = reader.integer(vision + "num_attention_heads", ConfigReader::kMost);
  encoder.intermediate_size = reader.integer(vision + "intermediate_size");
  encoder.eps = static_cast<float>(reader.number(vision + "layer_norm_eps", 1e-6));
  encoder.tanh = reader.choice(vision + "hidden_act", "gelu_pytorch_tanh", {"gelu_pytorch_tanh", "gelu"}) != "gelu";
  const int32_t depth = reader.integer(vision + "num_hidden_layers", ConfigReader::kMost);
  const int32_t patch = reader.integer(vision + "patch_size", 1024);
  const int32_t channels = reader.optional(vision + "num_channels", 3, 1, 16);
  image_size = reader.integer(vision + "image_size", 1 << 14);
  if (reader.has("vision_feature_layer") && reader.numbers("vision_feature_layer").size() != 1)
    reader.refuse_as(Code::unsupported, "Expected one layer for `vision_feature_layer` but received several.");
  // Layer -1 is the last one's output, 0 what goes into the first.
  const int32_t layer = reader.optional("vision_feature_layer", -1, -depth - 1, depth);
  if (reader.flag(vision + "vision_use_head", true))
    reader.refuse_as(Code::unsupported,
                     "Expected false for `vision_config.vision_use_head`: the pooling head is unused.");
  if (image_size < patch) reader.refuse("Expected `vision_config.image_size` of at least one patch.");
  GAVEL_RETURN_IF_ERROR(Status(reader.status()));
  used_layers = static_cast<size_t>(layer < 0 ? depth + 1 + layer : layer);
  tile.height = tile.width = image_size / patch;
  patch_columns = channels * patch * patch;

  const std::string at = "vision_tower.vision_model.";
  const int64_t h = encoder.hidden_size;
  patch_weight = weights->add("vision.patch", ParameterKind::matrix,
                              {{at + "embeddings.patch_embedding.weight", {h, channels, patch, patch}}});
  patch_bias = weights->add("vision.patch_bias", ParameterKind::bias, {{at + "embeddings.patch_embedding.bias", {h}}});
  position_table =
      weights->add("vision.positions", ParameterKind::embedding,
                   {{at + "embeddings.position_embedding.weight", {tile.height * tile.width, h}}}, Layout::rows);
  GAVEL_RETURN_IF_ERROR(encoder.declare(reader, at + "encoder.layers.",
                                        {"layer_norm1",
                                         "layer_norm2",
                                         "self_attn.out_proj",
                                         "mlp.fc1",
                                         "mlp.fc2",
                                         {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}},
                                        depth, weights));
  weights->add("vision.post_norm", ParameterKind::norm, {{at + "post_layernorm.weight", {h}}});
  weights->add("vision.post_norm_bias", ParameterKind::bias, {{at + "post_layernorm.bias", {h}}});
  return Status::success();
}

void LlavaOnevision::declare_projector(ConfigReader& reader, Weights* weights) {
  reader.choice("projector_hidden_act", "gelu", {"gelu"});
  const bool biased = reader.flag("multimodal_projector_bias", true);
  const int64_t h = encoder.hidden_size, to = reader.integer("hidden_size");
  const std::string at = "multi_modal_projector.";
  const auto bias = [&](const char* name, const char* source) {
    return biased ? weights->add(name, ParameterKind::bias, {{at + source, {to}}}) : -1;
  };
  in = weights->add("projector.in", ParameterKind::matrix, {{at + "linear_1.weight", {to, h}}});
  in_bias = bias("projector.in_bias", "linear_1.bias");
  out = weights->add("projector.out", ParameterKind::matrix, {{at + "linear_2.weight", {to, to}}});
  out_bias = bias("projector.out_bias", "linear_2.bias");
  newline = weights->add("projector.newline", ParameterKind::embedding, {{"image_newline", {to}}});

  // "anyres_max_9": at most the features of nine tiles.
  const std::string aspect = reader.text("vision_aspect_ratio", "anyres_max_9"), prefix = "anyres_max_";
  const std::string count = aspect.compare(0, prefix.size(), prefix) == 0 ? aspect.substr(prefix.size()) : "";
  if (count.empty() || count.size() > 4 || count.find_first_not_of("0123456789") != std::string::npos ||
      std::stoi(count) == 0) {
    reader.refuse_as(Code::unsupported, "Expected `vision_aspect_ratio` anyres_max_ and a number but it is \"" +
                                            aspect + "\". Choose a checkpoint with anyres tiles.");
  } else {
    tile.most_tiles = std::stoi(count);
  }
  const std::vector<int32_t> pins = reader.integers("image_grid_pinpoints", 1 << 20);
  for (size_t i = 0; i + 1 < pins.size(); i += 2) resolutions.push_back({pins[i], pins[i + 1]});
  for (int32_t i = 0; pins.empty() && i < 36; ++i) resolutions.push_back({384 * (i / 6 + 1), 384 * (i % 6 + 1)});
  for (const Resolution& one : resolutions) {
    if (pins.size() % 2 == 0 && one.height >= image_size && one.width >= image_size && one.height % image_size == 0 &&
        one.width % image_size == 0)
      continue;
    reader.refuse(
        "Expected `image_grid_pinpoints` of [height, width] that are multiples of `vision_config.image_size` (" +
        std::to_string(image_size) + ").");
  }
}

Status LlavaOnevision::declare(const ModelConfig& config, Weights* weights) {
  ConfigReader reader(config);
  image_token = reader.token(reader.has("image_token_index") ? "image_token_index" : "image_token_id");
  video_token = reader.token(reader.has("video_token_index") ? "video_token_index" : "video_token_id");
  if (image_token < 0) reader.refuse("Expected `image_token_index` in config.json of family llava_onevision.");
  reader.choice("model_type", "qwen2", {"qwen2", "llava_onevision"});  // of the text config, when there is one
  GAVEL_RETURN_IF_ERROR(Status(reader.status()));
  GAVEL_RETURN_IF_ERROR(declare_vision(reader, weights));
  declare_projector(reader, weights);
  DecoderForm form;
  form.prefix = "language_model.model.";
  form.head = "language_model.lm_head.weight";
  form.qkv_bias = true;
  GAVEL_RETURN_IF_ERROR(decoder.declare(reader, form, weights, this));
  return Status(reader.status());
}

VisionFeatures LlavaOnevision::tower(Tape& tape, const Weights& weights, const VisionBatch& pictures) const {
  const auto& batch = static_cast<const TileBatch&>(pictures);
  Tensor x = patch_embedding(tape, weights[patch_weight], weights[patch_bias], batch.pixels.data(), nullptr,
                             batch.num_patches);
  x = row_mix(tape, x, weights[position_table], batch.places.data(), nullptr, 1, batch.num_patches);
  for (size_t i = 0; i < used_layers; ++i) x = encoder.layer(tape, weights, i, x, &batch.view);
  x = gelu(tape, projection(tape, weights, x, in, in_bias));
  x = projection(tape, weights, x, out, out_bias);
  x = row_mix(tape, {}, x, batch.sums.index.data(), batch.sums.weights.data(), kMixTaps, batch.sums.rows(),
              weights[newline]);
  return {x, {}};
}

Status LlavaOnevision::arrange(const ImageInput& image, int32_t first, RowSums* sums) const {
  if (image.video) {
    arrange_video(image.grid[0], tile, first, sums);
    return Status::success();
  }
  if (image.grid[0] == 1) {
    arrange_tile(tile, first, sums);
    return Status::success();
  }
  const Resolution size{image.size[0], image.size[1]};
  if (size.height < 1 || size.width < 1) {
    return Status::error(Code::bad_data,
                         "Expected `size`, the picture's [height, width] in pixels, of a picture of several tiles but "
                         "received none. The features of its padding could not be cut off.");
  }
  const Resolution best = best_resolution(size, resolutions);
  TileGrid grid = tile;
  grid.rows = best.height / image_size;
  grid.cols = best.width / image_size;
  const int64_t tiles = 1 + int64_t{grid.rows} * grid.cols;
  if (image.grid[0] != tiles) {
    return Status::error(Code::bad_data, "Expected " + std::to_string(tiles) + " tiles of a picture of " +
                                             std::to_string(size.height) + "x" + std::to_string(size.width) +
                                             " pixels but received " + std::to_string(image.grid[0]) +
                                             ". Prepare images with this checkpoint's processor.");
  }
  arrange_picture(size, grid, first, sums);
  return Status::success();
}

Placeholders LlavaOnevision::placeholders(const ImageInput& image) const {
  RowSums sums;
  const Status status = arrange(image, 0, &sums);
  return {1, status.ok() ? sums.rows() : 0};
}

Status LlavaOnevision::add_image(const ImageInput& image, VisionBatch* batch,
                                 std::vector<int32_t>* feature_rows) const {
  GAVEL_RETURN_IF_ERROR(check_kind(image, *this));
  const auto [tiles, height, width] = image.grid;
  if (tiles < 1 || height != tile.height || width != tile.width) {
    return Status::error(Code::bad_data, "Expected tiles of " + std::to_string(tile.height) + "x" +
                                             std::to_string(tile.width) + " patches but received " +
                                             std::to_string(height) + "x" + std::to_string(width) +
                                             ". Prepare images with this checkpoint's processor.");
  }
  GAVEL_RETURN_IF_ERROR(check_pixels(image, patch_columns));
  auto& layout = static_cast<TileBatch&>(*batch);
  GAVEL_RETURN_IF_ERROR(arrange(image, layout.num_patches, &layout.sums));
  layout.pixels.insert(layout.pixels.end(), image.pixels.begin(), image.pixels.end());
  for (int32_t t = 0; t < tiles; ++t) {
    for (int32_t i = 0; i < height * width; ++i) layout.places.push_back(i);
    layout.num_patches += height * width;
    layout.bounds.push_back(layout.num_patches);
  }
  while (layout.num_features < layout.sums.rows()) feature_rows->push_back(layout.num_features++);
  return Status::success();
}

void LlavaOnevision::finish_vision(VisionBatch* batch) const {
  auto& layout = static_cast<TileBatch&>(*batch);
  layout.finish();
  for (int32_t& row : layout.sums.index) {
    if (row == kNewline) row = layout.num_patches;
  }
}

}  // namespace

Status make_llava_onevision(const ModelConfig& config, Weights* weights, std::unique_ptr<Architecture>* architecture) {
  auto model = std::make_unique<LlavaOnevision>();
  GAVEL_RETURN_IF_ERROR(model->declare(config, weights));
  *architecture = std::move(model);
  return Status::success();
}

}  // namespace gavel
