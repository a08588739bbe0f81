#include "model/pack.h"

#include <algorithm>

namespace gavel {

int64_t Pack::rows_of(const GroupInput& group, int32_t reward_token) {
  int64_t rows = static_cast<int64_t>(group.prompt_tokens.size());
  for (const CompletionInput& completion : group.completions) {
    if (completion.tokens.empty()) continue;
    const bool scored = reward_token >= 0 && completion.tokens.back() == reward_token;
    rows += static_cast<int64_t>(completion.tokens.size()) - (scored ? 0 : 1);
  }
  return rows;
}

int64_t Pack::scores_of(const GroupInput& group, int32_t reward_token) {
  if (reward_token < 0) return 0;
  int64_t scores = std::count(group.prompt_tokens.begin(), group.prompt_tokens.end(), reward_token);
  for (const CompletionInput& completion : group.completions)
    scores += std::count(completion.tokens.begin(), completion.tokens.end(), reward_token);
  return scores;
}

// Tokens, feature rows and positions of the prompt.
Status Pack::add_prompt(const Architecture& architecture, const GroupInput& group, Positions* positions) {
  std::vector<int32_t> features;
  for (const ImageInput& image : group.images)
    GAVEL_RETURN_IF_ERROR(architecture.add_image(image, vision_.get(), &features));
  std::vector<PlaceholderRun> runs;
  GAVEL_RETURN_IF_ERROR(architecture.find_runs(group, &runs));
  GAVEL_RETURN_IF_ERROR(architecture.positions(group, runs, positions));
  has_images_ = has_images_ || !group.images.empty();
  size_t feature = 0;
  for (int32_t token : group.prompt_tokens) {
    if (token < 0 || token >= architecture.vocabulary) {
      return Status::error(Code::tokenizer_mismatch,
                           "Expected tokens below the vocabulary size " + std::to_string(architecture.vocabulary) +
                               " but received " + std::to_string(token) + ". Use the tokenizer of this checkpoint.");
    }
    tokens_.push_back(token);
    feature_rows_.push_back(architecture.is_placeholder(token) ? features[feature++] : -1);
  }
  for (int32_t axis = 0; axis < architecture.rope_axes; ++axis)
    axes_[axis].insert(axes_[axis].end(), positions->axes[axis].begin(), positions->axes[axis].end());
  return Status::success();
}

Status Pack::add_group(const Architecture& architecture, const GroupInput& group) {
  if (group.prompt_tokens.empty()) {
    return Status::error(
        Code::invalid_argument,
        "Expected at least one prompt token but received none. The first token of a completion needs one to follow.");
  }
  const int32_t prompt_begin = static_cast<int32_t>(tokens_.size());
  Positions positions;
  GAVEL_RETURN_IF_ERROR(add_prompt(architecture, group, &positions));
  const int32_t prompt_end = static_cast<int32_t>(tokens_.size());
  size_t longest = 0;
  for (const CompletionInput& completion : group.completions) longest = std::max(longest, completion.tokens.size());
  GAVEL_RETURN_IF_ERROR(architecture.check_length(positions.next + static_cast<int64_t>(longest)));
  prompts_.push_back({prompt_begin, prompt_end});
  next_positions_.push_back(positions.next);

  // The first tokens of all completions hang on the last prompt row: their targets come first, so rows stay ascending.
  int32_t output = num_outputs_;
  for (const CompletionInput& completion : group.completions) {
    if (!completion.tokens.empty()) {
      targets_.rows.push_back(prompt_end - 1);
      targets_.tokens.push_back(completion.tokens[0]);
      targets_.inverse_temperature.push_back(completion.temperature > 0 ? 1.0f / completion.temperature : 1.0f);
      targets_.output.push_back(output);
    }
    output += static_cast<int32_t>(completion.tokens.size());
  }
  for (const CompletionInput& completion : group.completions) {
    const int32_t begin = static_cast<int32_t>(tokens_.size());
    const size_t count = completion.tokens.size();
    for (size_t j = 0; j < count; ++j) {
      if (completion.tokens[j] < 0 || completion.tokens[j] >= architecture.vocabulary) {
        return Status::error(Code::tokenizer_mismatch, "Expected tokens below the vocabulary size " +
                                                           std::to_string(architecture.vocabulary) + " but received " +
                                                           std::to_string(completion.tokens[j]) +
                                                           " in a completion. Use the tokenizer of this checkpoint.");
      }
      if (architecture.is_placeholder(completion.tokens[j])) {
        return Status::error(
            Code::bad_data, "Expected no image placeholder in a completion but received one. Images stand in prompts.");
      }
      const bool last = j + 1 == count;
      if (last && completion.tokens[j] != architecture.reward_token) break;
      if (!last) {
        targets_.rows.push_back(static_cast<int32_t>(tokens_.size()));
        targets_.tokens.push_back(completion.tokens[j + 1]);
        targets_.inverse_temperature.push_back(completion.temperature > 0 ? 1.0f / completion.temperature : 1.0f);
        targets_.output.push_back(num_outputs_ + static_cast<int32_t>(j) + 1);
      }
      tokens_.push_back(completion.tokens[j]);
      feature_rows_.push_back(-1);
      for (int32_t axis = 0; axis < architecture.rope_axes; ++axis) {
        axes_[axis].push_back(positions.next + static_cast<int32_t>(j));
      }
    }
    completions_.push_back({begin, static_cast<int32_t>(tokens_.size())});
    num_outputs_ += static_cast<int32_t>(count);
  }
  completion_begin_.push_back(static_cast<int32_t>(completions_.size()));
  return Status::success();
}

Status Pack::build(const Architecture& architecture, std::span<const GroupInput* const> groups) {
  *this = Pack();
  completion_begin_.push_back(0);
  vision_ = architecture.new_vision_batch();
  for (const GroupInput* group : groups) GAVEL_RETURN_IF_ERROR(add_group(architecture, *group));

  const int32_t rows = static_cast<int32_t>(tokens_.size());
  for (int32_t row = 0; row < rows && architecture.reward_token >= 0; ++row) {
    if (tokens_[static_cast<size_t>(row)] == architecture.reward_token) reward_rows_.push_back(row);
  }
  for (int32_t axis = 0; axis < architecture.rope_axes; ++axis) {
    positions_.insert(positions_.end(), axes_[axis].begin(), axes_[axis].end());
  }
  plan_ = plan_groups(rows, prompts_, completion_begin_, completions_);
  plan_view_ = plan_.view();
  view_.num_tokens = rows;
  view_.tokens = tokens_.data();
  view_.positions = positions_.data();
  view_.plan = &plan_view_;
  if (has_images_) {
    architecture.finish_vision(vision_.get());
    view_.feature_rows = feature_rows_.data();
    view_.vision = vision_.get();
  }
  return Status::success();
}

}  // namespace gavel
