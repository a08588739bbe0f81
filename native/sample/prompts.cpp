// From waiting prompts to rows that decode: prompts are computed together, or taken from what earlier calls kept, and
// rows are admitted while pages last.
#include <algorithm>
#include <iterator>
#include <utility>

#include "model/pack.h"
#include "sample/run.h"

namespace gavel::sampling {
namespace {
constexpr int64_t kPrefillRows = 2048;  // prompts computed together, in rows: enough to fill the cores
}

// Gives waiting prompts pages, and fills them: from what earlier calls kept, or by the model.
Status Run::begin_prompts(const std::vector<int32_t>& batch) {
  const auto start = std::chrono::steady_clock::now();
  const int32_t limit = model_.architecture().position_limit;
  std::vector<std::unique_ptr<Group>> made, missing;
  for (const int32_t index : batch) {
    const SampleRequest& request = requests_[static_cast<size_t>(index)];
    auto group = std::make_unique<Group>();
    group->request = index;
    group->prompt_length = static_cast<int32_t>(request.prompt_tokens.size());
    for (int64_t n = prompt_pages(request); n-- > 0;) group->blocks.push_back(pool_.take());
    group->last_row = free_last_rows_.back();
    free_last_rows_.pop_back();
    stats_.prompt_tokens += group->prompt_length;
    std::shared_ptr<const KeptPrompt> kept;
    if (reuse_.on()) {
      group->key = reuse_.key_of(request.prompt_tokens, reuse_.keys_of(request.images));
      kept = reuse_.prompt(group->key);
    }
    if (kept) {
      pool_.copy_in(group->blocks, kept->pages.data());
      group->next_position = kept->next_position;
      memory_.upload(last_hidden(*group), kept->hidden.data(), row_bytes());
      reuse_.count_prompt(kept->length);
      reuse_.count_images(request.images.size());
      made.push_back(std::move(group));
    } else {
      missing.push_back(std::move(group));
    }
  }
  if (!missing.empty()) GAVEL_RETURN_IF_ERROR(compute_prompts(missing));
  std::move(missing.begin(), missing.end(), std::back_inserter(made));
  for (auto& group : made) {
    // A prompt that fills the model's positions leaves none to draw at.
    GAVEL_RETURN_IF_ERROR(model_.architecture().check_length(int64_t{group->next_position} + 1));
    group->most_tokens = requests_[static_cast<size_t>(group->request)].max_new_tokens;
    if (limit > 0) group->most_tokens = std::min(group->most_tokens, limit - group->next_position);
    groups_.push_back(std::move(group));
  }
  std::sort(groups_.begin(), groups_.end(), [](const auto& a, const auto& b) { return a->request < b->request; });
  stats_.reused = reuse_.stats();
  stats_.prefill_seconds += seconds_since(start);
  return Status::success();
}

// One forward pass over the prompts of `groups`.
Status Run::compute_prompts(const std::vector<std::unique_ptr<Group>>& groups) {
  std::vector<GroupInput> inputs;
  std::vector<const GroupInput*> pointers;
  for (const auto& group : groups) {
    const SampleRequest& request = requests_[static_cast<size_t>(group->request)];
    inputs.push_back({request.prompt_tokens, request.images, {}});
  }
  for (const GroupInput& input : inputs) pointers.push_back(&input);
  Pack pack;
  GAVEL_RETURN_IF_ERROR(pack.build(model_.architecture(), pointers, Reads::prompts, &reuse_, true));
  PlanBuilder builder(pack.view().num_tokens);
  for (size_t i = 0; i < groups.size(); ++i) {
    groups[i]->next_position = pack.next_positions()[i];
    builder.add_prefill(pack.prompts()[i], groups[i]->blocks);
  }
  const OwnedPlan plan = std::move(builder).finish();
  const AttentionPlan plan_view = plan.view();
  PackView view = pack.view();
  view.plan = &plan_view;
  const std::vector<QueryTile> read_tiles = tiles_of_rows(plan_view, view.read_rows);
  AttentionPlan read_plan = plan_view;
  read_plan.tiles = read_tiles.data();
  read_plan.num_tiles = static_cast<int32_t>(read_tiles.size());
  view.read_plan = &read_plan;
  view.kv = pool_.data();
  view.kv_layer_bytes = pool_.layer_bytes();
  const auto body = [&] {
    Tape tape(context_, ops_of(context_), model_.arena(), no_grads_, {});
    VisionFeatures features;
    const Tensor hidden = model_.architecture().forward(tape, model_.weights(), view, &features);
    if (tape.dry() || !tape.status().ok()) return Status(tape.status());
    pack.keep_features(features, &reuse_);
    const auto* rows = static_cast<const uint8_t*>(hidden.data);
    for (size_t i = 0; i < groups.size(); ++i) {
      const RowRange prompt = pack.prompts()[i];
      const int32_t first_row = pack.hidden_row(prompt.begin), last_row = pack.hidden_row(prompt.end - 1);
      std::vector<int32_t> states{last_row};
      memory_.copy(last_hidden(*groups[i]), rows + static_cast<size_t>(last_row) * row_bytes(), row_bytes());
      for (const int32_t row : pack.reward_rows()) {
        if (row >= first_row && row <= last_row) states.push_back(row);
      }
      keep_prompt(*groups[i], states, rows);
    }
    return Status::success();
  };
  return plan_and_run(model_.arena(), body, [&](size_t peak) { make_room(peak); });
}

// `states` are the rows of `hidden` that others read.
void Run::keep_prompt(const Group& group, std::span<const int32_t> states, const uint8_t* hidden) {
  if (!reuse_.on()) return;
  const int64_t layer_bytes = pool_.page_bytes() * static_cast<int64_t>(group.blocks.size());
  const size_t pages = static_cast<size_t>(layer_bytes * pool_.layers());
  if (!reuse_.cache().admits(pages + states.size() * row_bytes())) return;
  auto kept = std::make_shared<KeptPrompt>();
  kept->length = group.prompt_length;
  kept->next_position = group.next_position;
  kept->reward_tokens = static_cast<int32_t>(states.size()) - 1;
  kept->layer_bytes = layer_bytes;
  kept->page_bytes = pool_.page_bytes();
  kept->pages.resize(pages);
  pool_.copy_out(group.blocks, kept->pages.data());
  kept->hidden.resize(states.size() * row_bytes());
  std::vector<TensorMemory::Transfer> transfers;
  for (size_t i = 0; i < states.size(); ++i) {
    transfers.push_back(
        {kept->hidden.data() + i * row_bytes(), hidden + static_cast<size_t>(states[i]) * row_bytes(), row_bytes()});
  }
  memory_.download(transfers);
  reuse_.cache().keep(group.key, std::move(kept));
}

// Takes as many waiting prompts as free rows and pages allow.
Status Run::prefill() {
  int64_t free_rows = settings_.max_rows - static_cast<int64_t>(rows_.size());
  for (const auto& group : groups_) free_rows -= requests_[static_cast<size_t>(group->request)].count - group->admitted;
  std::vector<int32_t> batch;
  int64_t prompt_rows = 0;
  int64_t pages = pool_.available() - promised_;
  while (next_request_ < requests_.size() && free_rows > 0) {
    const SampleRequest& request = requests_[next_request_];
    // One row at least must be able to follow its prompt.
    const int64_t own = own_pages(request), prompt = prompt_pages(request);
    if (pages < prompt + own) break;
    if (!batch.empty() && prompt_rows + static_cast<int64_t>(request.prompt_tokens.size()) > kPrefillRows) {
      GAVEL_RETURN_IF_ERROR(begin_prompts(batch));
      batch.clear();
      prompt_rows = 0;
    }
    batch.push_back(static_cast<int32_t>(next_request_++));
    prompt_rows += static_cast<int64_t>(request.prompt_tokens.size());
    pages -= prompt + own * std::min<int64_t>(request.count, free_rows);
    free_rows -= request.count;
  }
  return batch.empty() ? Status::success() : begin_prompts(batch);
}

void Run::admit() {
  for (const auto& group : groups_) {
    const SampleRequest& request = requests_[static_cast<size_t>(group->request)];
    const int64_t own = own_pages(request);
    while (group->admitted < request.count && static_cast<int32_t>(rows_.size()) < settings_.max_rows &&
           pool_.available() - promised_ >= own) {
      auto row = std::make_shared<Row>();
      row->group = group.get();
      row->reserved = own;
      promised_ += own;
      row->copy_pending = group->has_partial();
      row->completion.request = group->request;
      row->completion.sample = request.first_sample + group->admitted++;
      rows_.push_back(std::move(row));
    }
  }
  // Rows of a group side by side read its prompt's pages once.
  std::stable_sort(rows_.begin(), rows_.end(),
                   [](const auto& a, const auto& b) { return a->completion.request < b->completion.request; });
}

}  // namespace gavel::sampling
