// What a family is: it reads its config, declares its weights by their Hugging Face names, lays out pictures and
// positions, and builds its graph. One file a family; families.cpp is the only list of them.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "model/config_reader.h"
#include "model/input.h"
#include "model/weights.h"
#include "ops/attention.h"
#include "ops/tape.h"

namespace gavel {

// The pictures of one packed batch, laid out and read by the family alone.
class VisionBatch {
 public:
  virtual ~VisionBatch() = default;
};

// What a vision tower makes of pictures: a row for every placeholder, and what is added to those rows after the first
// decoder layers. All [rows, H].
struct VisionFeatures {
  Tensor rows;
  std::vector<Tensor> deepstack;
};

// The same of one picture, kept from an earlier pass; rows in the order of its placeholders, one part after the other.
struct KeptFeatures {
  int32_t rows = 0, parts = 0;
  std::vector<uint8_t> data;  // [parts, rows, H]
};

// Everything a graph reads of one packed batch. Memory is owned by the Pack (or the sampler's step).
struct PackView {
  int32_t num_tokens = 0;
  const int32_t* tokens = nullptr;
  const int32_t* sources = nullptr;       // [T] or null: row t's token is tokens[sources[t]]
  const int32_t* positions = nullptr;     // [axes, T]
  const int32_t* feature_rows = nullptr;  // [T] row of the pictures' features, or -1; null without images
  const AttentionPlan* plan = nullptr;
  // Rows whose hidden states are read, ascending: the last layer computes no others. Empty: all. `read_plan` attends
  // for them alone, where no gradient passes; null: `plan` does.
  std::span<const int32_t> read_rows;
  const AttentionPlan* read_plan = nullptr;
  int64_t hidden_rows() const { return read_rows.empty() ? num_tokens : static_cast<int64_t>(read_rows.size()); }
  // Paged store of all layers, or null: then each layer takes a transient one.
  uint8_t* kv = nullptr;
  int64_t kv_layer_bytes = 0;
  const VisionBatch* vision = nullptr;  // of the family's own kind; null without images that the tower must see
  // From earlier passes, in passes without a gradient there: features that follow the tower's, pages of prompts that
  // have no rows, and hidden rows that follow the packed ones.
  std::span<const KeptFeatures* const> kept_features;
  std::span<const KvPage> kept_pages;
  std::span<const uint8_t* const> kept_hidden;
};

// The placeholder tokens that a picture or video has in its prompt: so many runs of so many tokens.
struct Placeholders {
  int32_t runs = 1, tokens = 0;
};

// One run of them, in a prompt.
struct PlaceholderRun {
  int32_t begin = 0, tokens = 0;
  int32_t image = 0, run = 0;  // of GroupInput::images, and which of its runs
};

struct Positions {
  std::vector<int32_t> axes[3];  // one per rope axis of the family
  int32_t next = 0;              // of the token after the prompt, equal on every axis
};

class Architecture {
 public:
  virtual ~Architecture() = default;

  // [read rows, H] after the final norm, then the pack's kept hidden rows. `computed` gets what the tower made.
  Tensor forward(Tape& tape, const Weights& weights, const PackView& pack, VisionFeatures* computed = nullptr) const;

  // Null: a text model, which has no use for the functions below.
  virtual std::unique_ptr<VisionBatch> new_vision_batch() const { return nullptr; }
  // Checks a picture, adds it to the batch, and appends to `feature_rows` the row of the tower's output that each of
  // its placeholders takes, in their order.
  virtual Status add_image(const ImageInput& image, VisionBatch* batch, std::vector<int32_t>* feature_rows) const;
  // After the last picture.
  virtual void finish_vision(VisionBatch*) const {}
  virtual Placeholders placeholders(const ImageInput& image) const;
  // Of the prompt; by default 0, 1, 2, ... on every axis.
  virtual Status positions(const GroupInput& group, std::span<const PlaceholderRun> runs, Positions* positions) const;

  // Whether a gradient may reach a parameter of the tower.
  bool tower_trains(const Weights& weights) const;
  // Whether an adapter changes what the tower makes.
  bool tower_adapted(const Weights& weights) const;

  bool is_placeholder(int32_t token) const { return token >= 0 && (token == image_token || token == video_token); }
  // The runs of placeholders in a group's prompt, checked against its pictures.
  Status find_runs(const GroupInput& group, std::vector<PlaceholderRun>* runs) const;
  // Refuses a sequence of more positions than the model takes.
  Status check_length(int64_t positions) const;

  int32_t vocabulary = 0, hidden_size = 0, num_layers = 0, query_heads = 0, kv_heads = 0, head_dim = 0;
  int32_t head = -1;             // parameter of the language head [V, H]
  int32_t feature_parts = 1;     // the features, and one more for every layer that deepstack adds to
  int32_t tower_parameters = 0;  // those of the vision tower and its projector come first
  int32_t rope_axes = 1;
  int32_t image_token = -1, video_token = -1;  // -1: none
  int32_t position_limit = 0;                  // of a prompt and its completion; 0: none
  bool fixed_until_limit = false;              // rope frequencies change beyond it (rope_scaling.h)
  int32_t reward_token = -1;                   // set when a reward head is attached; -1: none

 protected:
  virtual VisionFeatures tower(Tape&, const Weights&, const VisionBatch&) const { return {}; }
  // [read rows, H] after the final norm.
  virtual Tensor decode(Tape& tape, const Weights& weights, const PackView& pack,
                        const VisionFeatures& vision) const = 0;
};

// families.cpp
Status make_architecture(const ModelConfig& config, Weights* weights, std::unique_ptr<Architecture>* architecture);
// One per family file.
Status make_llama(const ModelConfig& config, Weights* weights, std::unique_ptr<Architecture>* architecture);
Status make_qwen2(const ModelConfig& config, Weights* weights, std::unique_ptr<Architecture>* architecture);
Status make_qwen3(const ModelConfig& config, Weights* weights, std::unique_ptr<Architecture>* architecture);
Status make_qwen2_5_vl(const ModelConfig& config, Weights* weights, std::unique_ptr<Architecture>* architecture);
Status make_qwen3_vl(const ModelConfig& config, Weights* weights, std::unique_ptr<Architecture>* architecture);
Status make_llava_onevision(const ModelConfig& config, Weights* weights, std::unique_ptr<Architecture>* architecture);

}  // namespace gavel
