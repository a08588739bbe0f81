// A packed micro-batch: groups laid out as [prompt | completion 1 | ... | completion G] without padding, images as the
// family lays them out, positions, attention plans, and the targets of the head. The last token of a completion
// predicts nothing, so it has no row unless it is the reward token; the last prompt row predicts the first token of
// every completion of its group. Groups may have no completions.
#pragma once
#include <span>

#include "model/attention_plan.h"
#include "model/reuse.h"

namespace gavel {

// Whose hidden rows are read: those of targets, of reward tokens, of both, or of reward tokens and prompts' last ones.
enum class Reads { log_probs, scores, both, prompts };

struct PackTargets {
  std::vector<int32_t> rows;               // [R] hidden rows, ascending, but those of kept prompts come last
  std::vector<int32_t> tokens;             // [R]
  std::vector<float> inverse_temperature;  // [R]
  std::vector<int32_t> output;             // [R] index of the completion token, completions concatenated in order
};

class Pack {
 public:
  // Checks prompts against the architecture (token range, image counts) and lays everything out. With `reuse`, pictures
  // that are kept, or stand twice, are not given to the tower, and prompts that are kept get no rows unless `all_rows`:
  // such a pack is for passes without a gradient there.
  Status build(const Architecture& architecture, std::span<const GroupInput* const> groups, Reads wanted,
               Reuse* reuse = nullptr, bool all_rows = false);
  // After the forward pass: leaves what the tower made for later calls.
  void keep_features(const VisionFeatures& made, Reuse* reuse) const;

  // Valid until the next build. The decoder plan is the transient one; the sampler replaces it.
  const PackView& view() const { return view_; }
  const PackTargets& targets() const { return targets_; }
  const std::vector<RowRange>& prompts() const { return prompts_; }
  // Rope position after each group's prompt.
  const std::vector<int32_t>& next_positions() const { return next_positions_; }

  // Hidden rows before that of packed row `row`, which is the next one if it is read.
  int32_t hidden_row(int32_t row) const;
  // Hidden rows of the reward token: by group, the prompt before its completions.
  const std::vector<int32_t>& reward_rows() const { return reward_rows_; }

  // Rows a group takes, before it is built; `reward_token` -1 is none.
  static int64_t rows_of(const GroupInput& group, int32_t reward_token = -1);
  // Reward tokens of a group.
  static int64_t scores_of(const GroupInput& group, int32_t reward_token);

 private:
  Status add_group(const Architecture& architecture, const GroupInput& group, Reuse* reuse, bool all_rows);
  Status add_prompt(const Architecture& architecture, const GroupInput& group, std::span<const ContentKey> keys,
                    Reuse* reuse, Positions* positions);
  Status add_picture(const Architecture& architecture, const ImageInput& image, const ContentKey& key, Reuse* reuse,
                     std::vector<int32_t>* features);
  void add_kept_prompt(std::shared_ptr<const KeptPrompt> prompt, const Architecture& architecture);
  OwnedPlan make_plan(int32_t rows);
  void choose_rows(Reads wanted);
  std::vector<int32_t> tokens_, positions_, axes_[3], feature_rows_, next_positions_, reward_rows_;
  std::vector<RowRange> prompts_, completions_;
  std::vector<int32_t> completion_begin_;
  std::unique_ptr<VisionBatch> vision_;
  bool has_images_ = false;
  PackTargets targets_;
  int32_t num_outputs_ = 0;
  // What is kept from earlier passes: its rows are named kKept + index until the packed ones are counted.
  struct Picture {
    ContentKey key;
    std::vector<int32_t> rows;  // of the features, by placeholder
    bool made = false;          // by the tower of this pack
  };
  std::vector<Picture> pictures_;  // once each
  size_t tower_rows_ = 0;
  std::vector<std::shared_ptr<const KeptFeatures>> kept_features_;
  std::vector<const KeptFeatures*> kept_feature_views_;
  int32_t kept_feature_rows_ = 0;
  std::vector<std::shared_ptr<const KeptPrompt>> kept_prompts_;  // by group; null: packed
  std::vector<const uint8_t*> kept_hidden_;
  std::vector<KvPage> kept_pages_;
  OwnedPlan plan_;
  AttentionPlan plan_view_, read_plan_view_;
  std::vector<int32_t> read_rows_;  // empty: all
  std::vector<QueryTile> read_tiles_;
  PackView view_;
};

}  // namespace gavel
