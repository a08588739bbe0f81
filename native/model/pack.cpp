#include "model/pack.h"

namespace gavel {

int64_t Pack::rows_of(const GroupInput& group) {
  int64_t rows = static_cast<int64_t>(group.prompt_tokens.size());
  for (const CompletionInput& completion : group.completions) {
    rows += std::max<int64_t>(0, static_cast<int64_t>(completion.tokens.size()) - 1);
  }
  return rows;
}

Status Pack::add_group(const Architecture& architecture, const GroupInput& group, VisionLayout* vision) {
  if (group.prompt_tokens.empty()) {
    return Status::error(
        Code::invalid_argument,
        "Expected at least one prompt token but received none. The first token of a completion needs one to follow.");
  }
  auto check_token = [&](int32_t token) { return token >= 0 && token < architecture.vocabulary; };
  const size_t first_unit = vision->feature_of_unit.size();
  for (const ImageInput& image : group.images) GAVEL_RETURN_IF_ERROR(architecture.add_image(image, vision));
  Positions positions;
  GAVEL_RETURN_IF_ERROR(architecture.positions(group, &positions));

  const int32_t prompt_begin = static_cast<int32_t>(tokens_.size());
  size_t unit = first_unit;
  for (int32_t token : group.prompt_tokens) {
    if (!check_token(token)) {
      return Status::error(Code::tokenizer_mismatch,
                           "Expected tokens below the vocabulary size " + std::to_string(architecture.vocabulary) +
                               " but received " + std::to_string(token) + ". Use the tokenizer of this checkpoint.");
    }
    tokens_.push_back(token);
    feature_rows_.push_back(
        architecture.image_token >= 0 && token == architecture.image_token ? vision->feature_of_unit[unit++] : -1);
  }
  const int32_t prompt_end = static_cast<int32_t>(tokens_.size());
  for (int32_t axis = 0; axis < architecture.rope_axes; ++axis) {
    axes_[axis].insert(axes_[axis].end(), positions.axes[axis].begin(), positions.axes[axis].end());
  }
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
      if (!check_token(completion.tokens[j])) {
        return Status::error(Code::tokenizer_mismatch, "Expected tokens below the vocabulary size " +
                                                           std::to_string(architecture.vocabulary) + " but received " +
                                                           std::to_string(completion.tokens[j]) +
                                                           " in a completion. Use the tokenizer of this checkpoint.");
      }
      if (architecture.image_token >= 0 && completion.tokens[j] == architecture.image_token) {
        return Status::error(
            Code::bad_data, "Expected no image placeholder in a completion but received one. Images stand in prompts.");
      }
      if (j + 1 == count) break;
      targets_.rows.push_back(static_cast<int32_t>(tokens_.size()));
      targets_.tokens.push_back(completion.tokens[j + 1]);
      targets_.inverse_temperature.push_back(completion.temperature > 0 ? 1.0f / completion.temperature : 1.0f);
      targets_.output.push_back(num_outputs_ + static_cast<int32_t>(j) + 1);
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
  for (const GroupInput* group : groups) GAVEL_RETURN_IF_ERROR(add_group(architecture, *group, &vision_));

  const int32_t rows = static_cast<int32_t>(tokens_.size());
  for (int32_t axis = 0; axis < architecture.rope_axes; ++axis) {
    positions_.insert(positions_.end(), axes_[axis].begin(), axes_[axis].end());
  }
  plan_ = plan_groups(rows, prompts_, completion_begin_, completions_);
  plan_view_ = plan_.view();
  view_.num_tokens = rows;
  view_.tokens = tokens_.data();
  view_.positions = positions_.data();
  view_.plan = &plan_view_;
  if (!vision_.patch_order.empty()) {
    patch_positions_ = vision_.heights;
    patch_positions_.insert(patch_positions_.end(), vision_.widths.begin(), vision_.widths.end());
    window_plan_ = plan_segments(vision_.window_bounds);
    image_plan_ = plan_segments(vision_.image_bounds);
    window_view_ = window_plan_.view();
    image_view_ = image_plan_.view();
    view_.feature_rows = feature_rows_.data();
    view_.num_patches = static_cast<int32_t>(vision_.patch_order.size());
    view_.pixels = vision_.pixels.data();
    view_.patch_order = vision_.patch_order.data();
    view_.patch_positions = patch_positions_.data();
    view_.window_plan = &window_view_;
    view_.image_plan = &image_view_;
  }
  return Status::success();
}

}  // namespace gavel
