#include "sample/sampler.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <iterator>
#include <memory>
#include <utility>

#include "core/memory.h"
#include "model/pack.h"
#include "ops/all.h"
#include "sample/kv_pool.h"

namespace gavel {
namespace {

constexpr int64_t kPrefillRows = 2048;  // prompts computed together, in rows: enough to fill the cores

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// A group in flight: its prompt's pages live until its last row has finished.
struct Group {
  int32_t request = 0;
  int32_t prompt_length = 0, next_position = 0;
  int32_t most_tokens = 0;           // of a completion: as requested, or fewer where the model's positions end
  std::vector<int32_t> blocks;       // the prompt's pages, the partial last one included
  std::vector<uint8_t> last_hidden;  // [H] of the last prompt row: predicts every first token
  ContentKey key;                    // of the prompt, when prompts are kept
  int32_t admitted = 0, finished = 0;
  int32_t full_blocks() const { return prompt_length / kKeyBlock; }
  bool has_partial() const { return prompt_length % kKeyBlock != 0; }
};

struct Row {
  Group* group = nullptr;
  int32_t reserved = 0;         // pages it may still take
  bool copy_pending = false;    // its first page starts as a copy of the prompt's partial one
  std::vector<int32_t> blocks;  // its own pages, from the prompt's first partial block on
  std::string tail;             // the last bytes of its text, in which a stop string may have begun
  Completion completion;
};

class Run {
 public:
  Run(Model& model, Context& context, const std::vector<SampleRequest>& requests, const SampleSettings& settings,
      SampleStats* stats)
      : model_(model),
        context_(context),
        requests_(requests),
        settings_(settings),
        stats_(*stats),
        reuse_(model, !settings.adapter_off),
        no_grads_(static_cast<size_t>(model.weights().size())) {}

  Status prepare();
  bool done() const { return next_request_ == requests_.size() && rows_.empty() && groups_.empty(); }
  Status step(std::vector<Completion>* finished);

 private:
  size_t row_bytes() const {
    return static_cast<size_t>(model_.architecture().hidden_size) * dtype_size(model_.weights().dtype());
  }
  int32_t own_pages(const SampleRequest& request) const;
  int32_t prompt_pages(const SampleRequest& request) const;
  Status prefill();
  Status check_room(int64_t blocks, int32_t rows) const;
  Status begin_prompts(const std::vector<int32_t>& batch);
  Status compute_prompts(const std::vector<std::unique_ptr<Group>>& groups);
  void keep_prompt(const Group& group, std::span<const uint8_t> reward_states);
  void admit();
  Status decode();
  Status draw();
  bool stops(Row& row) const;
  void retire(std::vector<Completion>* finished);
  template <class Body>
  Status run_graph(const Body& body);

  Model& model_;
  Context& context_;
  const std::vector<SampleRequest>& requests_;
  const SampleSettings& settings_;
  SampleStats& stats_;
  Reuse reuse_;
  std::vector<Tensor> no_grads_;
  KvPool pool_;
  bool reserved_ = false;  // the arena, for this run
  int32_t promised_ = 0;   // pages reserved by rows that have not taken them yet
  size_t next_request_ = 0;
  std::vector<std::unique_ptr<Group>> groups_;
  std::vector<std::unique_ptr<Row>> rows_;
  std::vector<uint8_t> hidden_;  // [rows, H] what the head reads this step
  std::vector<float> logits_, normalizer_, tile_sums_, inverse_temperature_, logprob_, kept_;
  std::vector<int32_t> head_rows_, drawn_;
  std::vector<SampleOptions> options_;
};

int32_t Run::own_pages(const SampleRequest& request) const {
  const int32_t prompt = static_cast<int32_t>(request.prompt_tokens.size());
  // The last token drawn is never fed back: keys run to prompt + max_new_tokens - 1.
  const int32_t keys = prompt + std::max(0, request.max_new_tokens - 1);
  return (keys + kKeyBlock - 1) / kKeyBlock - prompt / kKeyBlock;
}

int32_t Run::prompt_pages(const SampleRequest& request) const {
  return (static_cast<int32_t>(request.prompt_tokens.size()) + kKeyBlock - 1) / kKeyBlock;
}

// Compares what the run can take at most, keys, values, logits and hidden rows, with the memory that is there.
Status Run::check_room(int64_t blocks, int32_t rows) const {
  if (model_.weights().planning()) return Status::success();
  const Architecture& architecture = model_.architecture();
  const int64_t tiles = (architecture.vocabulary + kVocabularyTile - 1) / kVocabularyTile;
  const size_t row = row_bytes() + static_cast<size_t>(architecture.vocabulary + 2 * tiles) * sizeof(float);
  const size_t needed = static_cast<size_t>(blocks * architecture.num_layers *
                                            KvPool::page_bytes(architecture, model_.weights().dtype())) +
                        static_cast<size_t>(rows) * row;
  Status status = check_memory(needed, "sampling " + std::to_string(rows) + " rows at once", "");
  if (status.ok()) return status;
  const double share = static_cast<double>(available_memory()) / static_cast<double>(needed);
  const auto fitting = static_cast<int64_t>(share * rows);
  status.message += fitting > 0 ? "Lower `maxRows` (about " + std::to_string(fitting) + " would fit) or `maxNewTokens`."
                                : "Lower `maxNewTokens` or shorten the prompts.";
  return std::move(status).with("maxRows", std::to_string(fitting));
}

Status Run::prepare() {
  int32_t own = 0, prompt = 0, rows = 0;
  int64_t prompts_at_once = 0;
  for (const SampleRequest& request : requests_) {
    if (request.prompt_tokens.empty())
      return Status::error(Code::invalid_argument,
                           "Expected at least one prompt token but received none. Begin with a start token.");
    for (const std::string& text : request.stop_strings) {
      if (!text.empty() && !settings_.token_bytes.offsets.empty()) continue;
      return Status::error(Code::invalid_argument,
                           "Expected stop strings of at least one byte, and the bytes of every token with them, but "
                           "received none. Give `tokenBytes` of the tokenizer.");
    }
    if (request.count < 1 || request.max_new_tokens < 1)
      return Status::error(Code::invalid_argument,
                           "Expected `count` and `maxNewTokens` of at least 1. Leave out requests that draw nothing.");
    // Of text a token is a position: known before anything is computed.
    if (request.images.empty())
      GAVEL_RETURN_IF_ERROR(model_.architecture().check_length(static_cast<int64_t>(request.prompt_tokens.size()) + 1));
    own = std::max(own, own_pages(request));
    prompt = std::max(prompt, prompt_pages(request));
    rows = std::min(settings_.max_rows, rows + request.count);
    prompts_at_once = std::max<int64_t>(prompts_at_once, (settings_.max_rows + request.count - 1) / request.count + 1);
  }
  prompts_at_once = std::min<int64_t>(prompts_at_once, static_cast<int64_t>(requests_.size()));
  const int64_t blocks = int64_t{rows} * own + prompts_at_once * prompt;
  if (blocks > 1 << 30)
    return Status::error(Code::out_of_memory,
                         "Expected fewer key-value pages than 2^30 for this call. Lower `maxRows` or `maxNewTokens`.");
  GAVEL_RETURN_IF_ERROR(check_room(std::max<int64_t>(blocks, 1), rows));
  GAVEL_RETURN_IF_ERROR(pool_.reserve(model_.architecture(), model_.weights().dtype(),
                                      static_cast<int32_t>(std::max<int64_t>(blocks, 1))));
  stats_.kv_bytes = pool_.size_bytes();
  return Status::success();
}

template <class Body>
Status Run::run_graph(const Body& body) {
  Arena& arena = model_.arena();
  arena.reset();
  arena.reset_peak();
  arena.set_measuring(true);
  Status status = body();
  const size_t peak = arena.peak();
  arena.set_measuring(false);
  arena.reset();
  // Keys and values take the place of what a training step left.
  if (status.ok() && !std::exchange(reserved_, true)) arena.shrink(peak);
  if (status.ok()) status = arena.reserve(peak);
  if (status.ok()) status = body();
  arena.reset();
  return status;
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
    for (int32_t n = prompt_pages(request); n-- > 0;) group->blocks.push_back(pool_.take());
    stats_.prompt_tokens += group->prompt_length;
    std::shared_ptr<const KeptPrompt> kept;
    if (reuse_.on()) {
      group->key = reuse_.key_of(request.prompt_tokens, reuse_.keys_of(request.images));
      kept = reuse_.prompt(group->key);
    }
    if (kept) {
      pool_.copy_in(group->blocks, kept->pages.data());
      group->next_position = kept->next_position;
      group->last_hidden.assign(kept->hidden.begin(), kept->hidden.begin() + static_cast<std::ptrdiff_t>(row_bytes()));
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
  GAVEL_RETURN_IF_ERROR(pack.build(model_.architecture(), pointers, &reuse_, true));
  PlanBuilder builder(pack.view().num_tokens);
  for (size_t i = 0; i < groups.size(); ++i) {
    groups[i]->next_position = pack.next_positions()[i];
    builder.add_prefill(pack.prompts()[i], groups[i]->blocks);
  }
  const OwnedPlan plan = std::move(builder).finish();
  const AttentionPlan plan_view = plan.view();
  PackView view = pack.view();
  view.plan = &plan_view;
  view.kv = pool_.data();
  view.kv_layer_bytes = pool_.layer_bytes();
  return run_graph([&] {
    Tape tape(context_, cpu_ops(), model_.arena(), no_grads_, {});
    VisionFeatures features;
    const Tensor hidden = model_.architecture().forward(tape, model_.weights(), view, &features);
    if (tape.dry() || !tape.status().ok()) return Status(tape.status());
    pack.keep_features(features, &reuse_);
    const auto* rows = static_cast<const uint8_t*>(hidden.data);
    for (size_t i = 0; i < groups.size(); ++i) {
      const RowRange prompt = pack.prompts()[i];
      const uint8_t* last = rows + static_cast<size_t>(prompt.end - 1) * row_bytes();
      groups[i]->last_hidden.assign(last, last + row_bytes());
      std::vector<uint8_t> reward_states;
      for (const int32_t row : pack.reward_rows()) {
        if (row < prompt.begin || row >= prompt.end) continue;
        const uint8_t* state = rows + static_cast<size_t>(row) * row_bytes();
        reward_states.insert(reward_states.end(), state, state + row_bytes());
      }
      keep_prompt(*groups[i], reward_states);
    }
    return Status::success();
  });
}

void Run::keep_prompt(const Group& group, std::span<const uint8_t> reward_states) {
  if (!reuse_.on()) return;
  const int64_t layer_bytes = pool_.page_bytes() * static_cast<int64_t>(group.blocks.size());
  const size_t pages = static_cast<size_t>(layer_bytes * pool_.layers());
  if (!reuse_.cache().admits(pages + group.last_hidden.size() + reward_states.size())) return;
  auto kept = std::make_shared<KeptPrompt>();
  kept->length = group.prompt_length;
  kept->next_position = group.next_position;
  kept->reward_tokens = static_cast<int32_t>(reward_states.size() / row_bytes());
  kept->layer_bytes = layer_bytes;
  kept->page_bytes = pool_.page_bytes();
  kept->pages.resize(pages);
  pool_.copy_out(group.blocks, kept->pages.data());
  kept->hidden = group.last_hidden;
  kept->hidden.insert(kept->hidden.end(), reward_states.begin(), reward_states.end());
  reuse_.cache().keep(group.key, std::move(kept));
}

// Takes as many waiting prompts as free rows and pages allow.
Status Run::prefill() {
  int64_t free_rows = settings_.max_rows - static_cast<int64_t>(rows_.size());
  for (const auto& group : groups_) free_rows -= requests_[static_cast<size_t>(group->request)].count - group->admitted;
  std::vector<int32_t> batch;
  int64_t prompt_rows = 0;
  int32_t pages = pool_.available() - promised_;
  while (next_request_ < requests_.size() && free_rows > 0) {
    const SampleRequest& request = requests_[next_request_];
    // One row at least must be able to follow its prompt.
    const int32_t needed = prompt_pages(request) + own_pages(request);
    if (pages < needed) break;
    if (!batch.empty() && prompt_rows + static_cast<int64_t>(request.prompt_tokens.size()) > kPrefillRows) {
      GAVEL_RETURN_IF_ERROR(begin_prompts(batch));
      batch.clear();
      prompt_rows = 0;
    }
    batch.push_back(static_cast<int32_t>(next_request_++));
    prompt_rows += static_cast<int64_t>(request.prompt_tokens.size());
    pages -=
        prompt_pages(request) + own_pages(request) * static_cast<int32_t>(std::min<int64_t>(request.count, free_rows));
    free_rows -= request.count;
  }
  return batch.empty() ? Status::success() : begin_prompts(batch);
}

void Run::admit() {
  for (const auto& group : groups_) {
    const SampleRequest& request = requests_[static_cast<size_t>(group->request)];
    const int32_t own = own_pages(request);
    while (group->admitted < request.count && static_cast<int32_t>(rows_.size()) < settings_.max_rows &&
           pool_.available() - promised_ >= own) {
      auto row = std::make_unique<Row>();
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

// One forward over every row that has drawn a token; the others take their group's last prompt row.
Status Run::decode() {
  const Architecture& architecture = model_.architecture();
  const size_t row_bytes = this->row_bytes();
  hidden_.resize(std::max(hidden_.size(), rows_.size() * row_bytes));
  std::vector<int32_t> tokens, positions, slots;
  for (size_t i = 0; i < rows_.size(); ++i) {
    const Row& row = *rows_[i];
    if (row.completion.tokens.empty()) {
      std::memcpy(hidden_.data() + i * row_bytes, row.group->last_hidden.data(), row_bytes);
    } else {
      tokens.push_back(row.completion.tokens.back());
      positions.push_back(row.group->next_position + static_cast<int32_t>(row.completion.tokens.size()) - 1);
      slots.push_back(static_cast<int32_t>(i));
    }
  }
  if (tokens.empty()) return Status::success();
  const int32_t count = static_cast<int32_t>(tokens.size());
  std::vector<int32_t> all_positions;
  for (int32_t axis = 0; axis < architecture.rope_axes; ++axis)
    all_positions.insert(all_positions.end(), positions.begin(), positions.end());

  PlanBuilder builder(count);
  std::vector<DecodeRow> group_rows;
  for (int32_t begin = 0; begin < count;) {
    Group* group = rows_[static_cast<size_t>(slots[static_cast<size_t>(begin)])]->group;
    group_rows.clear();
    int32_t end = begin;
    for (; end < count && rows_[static_cast<size_t>(slots[static_cast<size_t>(end)])]->group == group; ++end) {
      Row& row = *rows_[static_cast<size_t>(slots[static_cast<size_t>(end)])];
      const int32_t keys = group->prompt_length + static_cast<int32_t>(row.completion.tokens.size());
      const int32_t needed = (keys + kKeyBlock - 1) / kKeyBlock - group->full_blocks();
      while (static_cast<int32_t>(row.blocks.size()) < needed) {
        row.blocks.push_back(pool_.take());
        --row.reserved;
        --promised_;
      }
      if (row.copy_pending) {
        builder.add_copy(group->blocks.back(), row.blocks.front());
        row.copy_pending = false;
      }
      group_rows.push_back({row.blocks, keys});
    }
    builder.add_decode_rows(begin, std::span(group->blocks).first(static_cast<size_t>(group->full_blocks())),
                            group_rows);
    begin = end;
  }
  const OwnedPlan plan = std::move(builder).finish();
  const AttentionPlan plan_view = plan.view();
  PackView view;
  view.num_tokens = count;
  view.tokens = tokens.data();
  view.positions = all_positions.data();
  view.plan = &plan_view;
  view.kv = pool_.data();
  view.kv_layer_bytes = pool_.layer_bytes();
  return run_graph([&] {
    Tape tape(context_, cpu_ops(), model_.arena(), no_grads_, {});
    const Tensor hidden = architecture.forward(tape, model_.weights(), view);
    if (tape.dry() || !tape.status().ok()) return Status(tape.status());
    for (size_t n = 0; n < slots.size(); ++n) {
      std::memcpy(hidden_.data() + static_cast<size_t>(slots[n]) * row_bytes,
                  static_cast<const uint8_t*>(hidden.data) + n * row_bytes, row_bytes);
    }
    return Status::success();
  });
}

Status Run::draw() {
  const Architecture& architecture = model_.architecture();
  const size_t count = rows_.size(), vocabulary = static_cast<size_t>(architecture.vocabulary);
  const size_t tiles = (vocabulary + kVocabularyTile - 1) / kVocabularyTile;
  logits_.resize(std::max(logits_.size(), count * vocabulary));
  tile_sums_.resize(std::max(tile_sums_.size(), count * tiles * 2));
  normalizer_.resize(count);
  logprob_.resize(count);
  kept_.resize(count);
  drawn_.resize(count);
  inverse_temperature_.resize(count);
  options_.resize(count);
  head_rows_.resize(count);
  for (size_t i = 0; i < count; ++i) {
    const Row& row = *rows_[i];
    const SampleRequest& request = requests_[static_cast<size_t>(row.completion.request)];
    head_rows_[i] = static_cast<int32_t>(i);
    inverse_temperature_[i] = request.temperature > 0 ? 1.0f / request.temperature : 1.0f;
    options_[i].key = {request.seed, request.id, static_cast<uint32_t>(row.completion.sample),
                       static_cast<uint32_t>(row.completion.tokens.size())};
    options_[i].greedy = request.temperature <= 0;
    options_[i].top_k = request.top_k;
    options_[i].top_p = request.top_p;
    options_[i].min_p = request.min_p;
  }
  HeadLogprob head;
  head.hidden.data = hidden_.data();
  head.hidden.shape = {static_cast<int64_t>(count), architecture.hidden_size};
  head.hidden.dtype = model_.weights().dtype();
  head.weight = model_.weights()[architecture.head];
  head.num_targets = static_cast<int32_t>(count);
  head.rows = head_rows_.data();
  head.inverse_temperature = inverse_temperature_.data();
  head.log_normalizer = normalizer_.data();
  head.logits = logits_.data();
  head.tile_sums = tile_sums_.data();
  cpu_ops()[Op::head_logprob].forward(context_, &head);

  SampleToken sample;
  sample.num_rows = static_cast<int32_t>(count);
  sample.vocabulary = architecture.vocabulary;
  sample.logits = logits_.data();
  sample.log_normalizer = normalizer_.data();
  sample.tile_sums = tile_sums_.data();
  sample.options = options_.data();
  sample.banned = settings_.banned_tokens.data();
  sample.num_banned = static_cast<int32_t>(settings_.banned_tokens.size());
  sample.tokens = drawn_.data();
  sample.logprob = logprob_.data();
  sample.log_kept_mass = kept_.data();
  cpu_ops()[Op::sample_token].forward(context_, &sample);
  for (size_t i = 0; i < count; ++i) {
    Completion& completion = rows_[i]->completion;
    if (drawn_[i] < 0) {
      return Status::error(Code::non_finite, "Expected finite logits but request " +
                                                 std::to_string(completion.request) + " has none at token " +
                                                 std::to_string(completion.tokens.size()) +
                                                 ". The weights are damaged: go back to an earlier checkpoint.");
    }
    completion.tokens.push_back(drawn_[i]);
    completion.logprobs.push_back(logprob_[i]);
    completion.log_kept_mass.push_back(kept_[i]);
  }
  return Status::success();
}

// Whether the row's last token is one to stop at, or completes a string to stop at.
bool Run::stops(Row& row) const {
  const SampleRequest& request = requests_[static_cast<size_t>(row.completion.request)];
  const int32_t token = row.completion.tokens.back();
  if (std::find(request.stop_tokens.begin(), request.stop_tokens.end(), token) != request.stop_tokens.end())
    return true;
  if (request.stop_strings.empty()) return false;
  row.tail += settings_.token_bytes.of(token);
  size_t longest = 0;
  for (const std::string& text : request.stop_strings) {
    if (row.tail.find(text) != std::string::npos) return true;
    longest = std::max(longest, text.size());
  }
  if (row.tail.size() >= longest) row.tail.erase(0, row.tail.size() - longest + 1);
  return false;
}

void Run::retire(std::vector<Completion>* finished) {
  std::erase_if(rows_, [&](const std::unique_ptr<Row>& row) {
    const auto& tokens = row->completion.tokens;
    const bool stopped = stops(*row);
    if (!stopped && static_cast<int32_t>(tokens.size()) < row->group->most_tokens) return false;
    row->completion.stopped = stopped;
    stats_.completion_tokens += static_cast<int64_t>(tokens.size());
    ++stats_.completions;
    ++row->group->finished;
    promised_ -= row->reserved;
    pool_.give(&row->blocks);
    finished->push_back(std::move(row->completion));
    return true;
  });
  std::erase_if(groups_, [&](const std::unique_ptr<Group>& group) {
    if (group->finished < requests_[static_cast<size_t>(group->request)].count) return false;
    pool_.give(&group->blocks);
    return true;
  });
}

Status Run::step(std::vector<Completion>* finished) {
  GAVEL_RETURN_IF_ERROR(prefill());
  admit();
  if (rows_.empty()) return Status::error(Code::internal, "Expected pages for at least one row.");
  const auto start = std::chrono::steady_clock::now();
  const bool tail = rows_.size() < kTailRows;
  GAVEL_RETURN_IF_ERROR(decode());
  GAVEL_RETURN_IF_ERROR(draw());
  retire(finished);
  ++stats_.decode_steps;
  stats_.buffer_bytes = hidden_.capacity() + (logits_.capacity() + tile_sums_.capacity()) * sizeof(float);
  stats_.activation_bytes = model_.arena().capacity();
  const double seconds = seconds_since(start);
  stats_.decode_seconds += seconds;
  if (tail) stats_.tail_seconds += seconds;
  return Status::success();
}

}  // namespace

Status Sampler::run(const std::vector<SampleRequest>& requests, const SampleSettings& settings,
                    const std::atomic<bool>& aborted, const std::function<void(std::vector<Completion>)>& on_finished,
                    SampleStats* stats) {
  if (settings.max_rows < 1)
    return Status::error(Code::invalid_argument, "Expected `maxRows` of at least 1. It is 256 by default.");
  const AdapterScope scope(model_.weights(), !settings.adapter_off);
  // The reward token is read, never written.
  SampleSettings complete = settings;
  if (model_.architecture().reward_token >= 0) {
    std::vector<int32_t>& banned = complete.banned_tokens;
    banned.push_back(model_.architecture().reward_token);
    std::sort(banned.begin(), banned.end());
    banned.erase(std::unique(banned.begin(), banned.end()), banned.end());
  }
  Run run(model_, context_, requests, complete, stats);
  GAVEL_RETURN_IF_ERROR(run.prepare());
  while (!run.done()) {
    if (aborted.load(std::memory_order_relaxed)) return Status::error(Code::aborted, "The run was aborted.");
    std::vector<Completion> finished;
    GAVEL_RETURN_IF_ERROR(run.step(&finished));
    if (!finished.empty()) on_finished(std::move(finished));
    if (settings.max_steps > 0 && stats->decode_steps >= settings.max_steps) break;
  }
  return Status::success();
}

}  // namespace gavel
