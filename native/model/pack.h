// A packed micro-batch: groups laid out as [prompt | completion 1 | ... | completion G] without padding, images as the
// family lays them out, positions, attention plans, and the targets of the head. The last token of a completion
// predicts nothing, so it has no row unless it is the reward token; the last prompt row predicts the first token of
// every completion of its group. Groups may have no completions.
#pragma once
#include <span>

#include "model/architecture.h"
#include "model/attention_plan.h"

namespace gavel {

struct PackTargets {
  std::vector<int32_t> rows;               // [R] ascending
  std::vector<int32_t> tokens;             // [R]
  std::vector<float> inverse_temperature;  // [R]
  std::vector<int32_t> output;             // [R] index of the completion token, completions concatenated in order
};

class Pack {
 public:
  // Checks prompts against the architecture (token range, image counts) and lays everything out.
  Status build(const Architecture& architecture, std::span<const GroupInput* const> groups);

  // Valid until the next build. The decoder plan is the transient one; the sampler replaces it.
  const PackView& view() const { return view_; }
  const PackTargets& targets() const { return targets_; }
  const std::vector<RowRange>& prompts() const { return prompts_; }
  // Rope position after each group's prompt.
  const std::vector<int32_t>& next_positions() const { return next_positions_; }

  // Of the reward token, ascending: by group, the prompt before its completions.
  const std::vector<int32_t>& reward_rows() const { return reward_rows_; }

  // Rows a group takes, before it is built; `reward_token` -1 is none.
  static int64_t rows_of(const GroupInput& group, int32_t reward_token = -1);
  // Reward tokens of a group.
  static int64_t scores_of(const GroupInput& group, int32_t reward_token);

 private:
  Status add_group(const Architecture& architecture, const GroupInput& group);
  Status add_prompt(const Architecture& architecture, const GroupInput& group, Positions* positions);
  std::vector<int32_t> tokens_, positions_, axes_[3], feature_rows_, next_positions_, reward_rows_;
  std::vector<RowRange> prompts_, completions_;
  std::vector<int32_t> completion_begin_;
  std::unique_ptr<VisionBatch> vision_;
  bool has_images_ = false;
  PackTargets targets_;
  int32_t num_outputs_ = 0;
  OwnedPlan plan_;
  AttentionPlan plan_view_;
  PackView view_;
};

}  // namespace gavel
