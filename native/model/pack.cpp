#include "model/pack.h"

#include <algorithm>

namespace gavel {
namespace {

constexpr int32_t kKept = 1 << 30;

}  // namespace

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

// Appends the feature row of every placeholder of a picture.
Status Pack::add_picture(const Architecture& architecture, const ImageInput& image, const ContentKey& key, Reuse* reuse,
                         std::vector<int32_t>* features) {
  Picture picture{key, {}};
  const auto same =
      std::find_if(pictures_.begin(), pictures_.end(), [&](const Picture& other) { return other.key == picture.key; });
  if (same != pictures_.end()) {
    features->insert(features->end(), same->rows.begin(), same->rows.end());
    reuse->count_images(1);
    return Status::success();
  }
  if (const auto kept = reuse->features(picture.key)) {
    for (int32_t row = 0; row < kept->rows; ++row) picture.rows.push_back(kKept + kept_feature_rows_ + row);
    kept_feature_rows_ += kept->rows;
    kept_features_.push_back(kept);
    reuse->count_images(1);
  } else {
    GAVEL_RETURN_IF_ERROR(architecture.add_image(image, vision_.get(), &picture.rows));
    picture.made = has_images_ = true;
    tower_rows_ += picture.rows.size();
  }
  features->insert(features->end(), picture.rows.begin(), picture.rows.end());
  pictures_.push_back(std::move(picture));
  return Status::success();
}

void Pack::keep_features(const VisionFeatures& made, Reuse* reuse) const {
  for (const Picture& picture : pictures_) {
    if (picture.made) reuse->keep_features(picture.key, made, picture.rows);
  }
}

// Its last hidden row, which predicts first tokens, and those of its reward tokens.
void Pack::add_kept_prompt(std::shared_ptr<const KeptPrompt> prompt, const Architecture& architecture) {
  const size_t rows = 1 + static_cast<size_t>(prompt->reward_tokens), row_bytes = prompt->hidden.size() / rows;
  for (size_t row = 0; row < rows; ++row) {
    if (row > 0 && architecture.reward_token >= 0)
      reward_rows_.push_back(kKept + static_cast<int32_t>(kept_hidden_.size()));
    kept_hidden_.push_back(prompt->hidden.data() + row * row_bytes);
  }
  kept_prompts_.push_back(std::move(prompt));
}

// Tokens, feature rows and positions of the prompt.
Status Pack::add_prompt(const Architecture& architecture, const GroupInput& group, std::span<const ContentKey> keys,
                        Reuse* reuse, Positions* positions) {
  std::vector<int32_t> features;
  for (size_t i = 0; i < group.images.size(); ++i) {
    if (reuse != nullptr) {
      GAVEL_RETURN_IF_ERROR(add_picture(architecture, group.images[i], keys[i], reuse, &features));
    } else {
      has_images_ = true;
      GAVEL_RETURN_IF_ERROR(architecture.add_image(group.images[i], vision_.get(), &features));
    }
  }
  std::vector<PlaceholderRun> runs;
  GAVEL_RETURN_IF_ERROR(architecture.find_runs(group, &runs));
  GAVEL_RETURN_IF_ERROR(architecture.positions(group, runs, positions));
  size_t feature = 0;
  for (int32_t token : group.prompt_tokens) {
    if (token < 0 || token >= architecture.vocabulary) {
      return Status::error(Code::tokenizer_mismatch,
                           "Expected tokens below the vocabulary size " + std::to_string(architecture.vocabulary) +
                               " but received " + std::to_string(token) + ". Use the tokenizer of this checkpoint.");
    }
    if (token == architecture.reward_token) reward_rows_.push_back(static_cast<int32_t>(tokens_.size()));
    tokens_.push_back(token);
    feature_rows_.push_back(architecture.is_placeholder(token) ? features[feature++] : -1);
  }
  for (int32_t axis = 0; axis < architecture.rope_axes; ++axis)
    axes_[axis].insert(axes_[axis].end(), positions->axes[axis].begin(), positions->axes[axis].end());
  return Status::success();
}

Status Pack::add_group(const Architecture& architecture, const GroupInput& group, Reuse* reuse, bool all_rows) {
  if (group.prompt_tokens.empty()) {
    return Status::error(
        Code::invalid_argument,
        "Expected at least one prompt token but received none. The first token of a completion needs one to follow.");
  }
  const int32_t prompt_begin = static_cast<int32_t>(tokens_.size());
  Positions positions;
  std::vector<ContentKey> keys;
  std::shared_ptr<const KeptPrompt> kept;
  if (reuse != nullptr) {
    keys = reuse->keys_of(group.images);
    if (!all_rows) kept = reuse->prompt(reuse->key_of(group.prompt_tokens, keys));
  }
  int32_t last_prompt_row = kKept + static_cast<int32_t>(kept_hidden_.size());
  if (kept) {
    positions.next = kept->next_position;
    reuse->count_prompt(kept->length);
    reuse->count_images(group.images.size());
    add_kept_prompt(std::move(kept), architecture);
  } else {
    GAVEL_RETURN_IF_ERROR(add_prompt(architecture, group, keys, reuse, &positions));
    last_prompt_row = static_cast<int32_t>(tokens_.size()) - 1;
    kept_prompts_.push_back(nullptr);
  }
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
      targets_.rows.push_back(last_prompt_row);
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
      if (completion.tokens[j] == architecture.reward_token)
        reward_rows_.push_back(static_cast<int32_t>(tokens_.size()));
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

OwnedPlan Pack::make_plan(int32_t rows) {
  PlanBuilder builder(rows);
  std::vector<PlanBuilder::Fill> fills;
  for (size_t group = 0; group < prompts_.size(); ++group) {
    const auto begin = static_cast<size_t>(completion_begin_[group]);
    const auto completions = std::span<const RowRange>(completions_)
                                 .subspan(begin, static_cast<size_t>(completion_begin_[group + 1]) - begin);
    const KeptPrompt* kept = kept_prompts_[group].get();
    if (kept == nullptr) {
      builder.add_group(prompts_[group], completions);
      continue;
    }
    fills.clear();
    builder.add_continuations(kept->length, completions, &fills);
    for (const auto& [block, page] : fills) kept_pages_.push_back({block, kept->page(page), kept->layer_bytes});
  }
  return std::move(builder).finish();
}

int32_t Pack::hidden_row(int32_t row) const {
  if (read_rows_.empty()) return row;
  return static_cast<int32_t>(std::lower_bound(read_rows_.begin(), read_rows_.end(), row) - read_rows_.begin());
}

// Leaves out the hidden rows that nobody reads, and names the others by their places among them.
void Pack::choose_rows(Reads wanted) {
  const int32_t rows = static_cast<int32_t>(tokens_.size());
  if (wanted == Reads::scores) targets_ = {};
  std::vector<uint8_t> read(static_cast<size_t>(rows), 0);
  const auto mark = [&](int32_t row) {
    if (row < rows) read[static_cast<size_t>(row)] = 1;
  };
  for (const int32_t row : targets_.rows) mark(row);
  if (wanted != Reads::log_probs) std::for_each(reward_rows_.begin(), reward_rows_.end(), mark);
  for (const RowRange& prompt : prompts_) {
    if (wanted == Reads::prompts && prompt.size() > 0) mark(prompt.end - 1);
  }
  for (int32_t row = 0; row < rows; ++row) {
    if (read[static_cast<size_t>(row)] != 0) read_rows_.push_back(row);
  }
  // Something must be: a graph has rows.
  if (read_rows_.empty() && rows > 0) read_rows_.push_back(rows - 1);
  if (static_cast<int32_t>(read_rows_.size()) == rows) read_rows_.clear();
  const int32_t first_kept = read_rows_.empty() ? rows : static_cast<int32_t>(read_rows_.size());
  for (std::vector<int32_t>* named : {&targets_.rows, &reward_rows_}) {
    for (int32_t& row : *named) row = row >= kKept ? row - kKept + first_kept : hidden_row(row);
  }
}

Status Pack::build(const Architecture& architecture, std::span<const GroupInput* const> groups, Reads wanted,
                   Reuse* reuse, bool all_rows) {
  *this = Pack();
  if (reuse != nullptr && !reuse->on()) reuse = nullptr;
  completion_begin_.push_back(0);
  vision_ = architecture.new_vision_batch();
  for (const GroupInput* group : groups) GAVEL_RETURN_IF_ERROR(add_group(architecture, *group, reuse, all_rows));

  const int32_t rows = static_cast<int32_t>(tokens_.size());
  for (int32_t axis = 0; axis < architecture.rope_axes; ++axis) {
    positions_.insert(positions_.end(), axes_[axis].begin(), axes_[axis].end());
  }
  for (int32_t& row : feature_rows_) {
    if (row >= kKept) row += static_cast<int32_t>(tower_rows_) - kKept;
  }
  choose_rows(wanted);
  plan_ = make_plan(rows);
  plan_view_ = plan_.view();
  view_.num_tokens = rows;
  view_.tokens = tokens_.data();
  view_.positions = positions_.data();
  view_.plan = &plan_view_;
  if (!read_rows_.empty()) {
    read_tiles_ = tiles_of_rows(plan_view_, read_rows_);
    read_plan_view_ = plan_view_;
    read_plan_view_.tiles = read_tiles_.data();
    read_plan_view_.num_tiles = static_cast<int32_t>(read_tiles_.size());
    view_.read_rows = read_rows_;
    view_.read_plan = &read_plan_view_;
  }
  if (has_images_) {
    architecture.finish_vision(vision_.get());
    view_.vision = vision_.get();
  }
  if (has_images_ || !kept_features_.empty()) view_.feature_rows = feature_rows_.data();
  for (const auto& kept : kept_features_) kept_feature_views_.push_back(kept.get());
  view_.kept_features = kept_feature_views_;
  view_.kept_pages = kept_pages_;
  view_.kept_hidden = kept_hidden_;
  return Status::success();
}

}  // namespace gavel
