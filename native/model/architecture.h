// What a family is: it reads its config, declares its weights by their Hugging Face names, places images and positions,
// and builds its graph. One file a family; families.cpp is the only list of them.
#pragma once
#include <memory>
#include <vector>

#include "model/input.h"
#include "model/weights.h"
#include "ops/attention.h"
#include "ops/tape.h"

namespace gavel {

// Everything a graph reads of one packed batch. Memory is owned by the Pack (or the sampler's step).
struct PackView {
  int32_t num_tokens = 0;
  const int32_t* tokens = nullptr;
  const int32_t* positions = nullptr;     // [axes, T]
  const int32_t* feature_rows = nullptr;  // [T] row of the vision tower's output, or -1; null without images
  const AttentionPlan* plan = nullptr;
  // Paged store of all layers, or null: then each layer takes a transient one.
  uint8_t* kv = nullptr;
  int64_t kv_layer_bytes = 0;
  // Vision tower: patches of all images in the order the tower visits them.
  int32_t num_patches = 0;
  const float* pixels = nullptr;             // [patches, columns] as the processor made them
  const int32_t* patch_order = nullptr;      // [patches] row of pixels that stands at p
  const int32_t* patch_positions = nullptr;  // [2, patches] height, width
  const AttentionPlan* window_plan = nullptr;
  const AttentionPlan* image_plan = nullptr;
};

// The vision part of a pack, as a family lays it out.
struct VisionLayout {
  std::vector<float> pixels;
  std::vector<int32_t> patch_order;
  std::vector<int32_t> heights, widths;                    // [patches] positions of patches in visiting order
  std::vector<int32_t> window_bounds{0}, image_bounds{0};  // cumulative patches
  std::vector<int32_t> feature_of_unit;                    // output row of the u-th image token, images in order
  int32_t num_features = 0;
};

struct Positions {
  std::vector<int32_t> axes[3];  // one per rope axis of the family
  int32_t next = 0;              // of the token after the prompt, equal on every axis
};

class Architecture {
 public:
  virtual ~Architecture() = default;

  // [T, H] after the final norm.
  virtual Tensor forward(Tape& tape, const Weights& weights, const PackView& pack) const = 0;
  virtual Status add_image(const ImageInput& image, VisionLayout* layout) const;
  virtual Status positions(const GroupInput& group, Positions* positions) const;

  int32_t vocabulary = 0, hidden_size = 0, num_layers = 0, query_heads = 0, kv_heads = 0, head_dim = 0;
  int32_t head = -1;  // parameter of the language head [V, H]
  int32_t rope_axes = 1;
  int32_t image_token = -1;  // -1: no images
};

// Reads numbers out of a flattened config; the first missing or bad one is kept in status().
class ConfigReader {
 public:
  explicit ConfigReader(const ModelConfig& config) : config_(config) {}
  int32_t integer(const std::string& name);                     // > 0
  int32_t integer(const std::string& name, int32_t otherwise);  // any
  double number(const std::string& name, double otherwise);
  std::vector<int32_t> integers(const std::string& name);  // empty when absent
  bool has(const std::string& name) const { return config_.numbers.count(name) != 0; }
  void refuse(std::string message);
  const Status& status() const { return status_; }

 private:
  const ModelConfig& config_;
  Status status_;
};

// families.cpp
Status make_architecture(const ModelConfig& config, Weights* weights, std::unique_ptr<Architecture>* architecture);
// One per family file.
Status make_qwen2(const ModelConfig& config, Weights* weights, std::unique_ptr<Architecture>* architecture);
Status make_qwen2_5_vl(const ModelConfig& config, Weights* weights, std::unique_ptr<Architecture>* architecture);

}  // namespace gavel
