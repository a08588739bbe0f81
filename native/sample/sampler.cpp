// What a call may take, checked before it runs, and its loop.
#include "sample/sampler.h"

#include <algorithm>
#include <set>
#include <utility>

#include "core/memory.h"
#include "sample/run.h"

namespace gavel {
namespace sampling {

Run::Run(Model& model, Context& context, const std::vector<SampleRequest>& requests, const SampleSettings& settings,
         SampleStats* stats)
    : model_(model),
      context_(context),
      requests_(requests),
      settings_(settings),
      stats_(*stats),
      reuse_(model, !settings.adapter_off),
      memory_(model.weights().memory()),
      lag_(memory_.on_device() ? 1 : 0),
      no_grads_(static_cast<size_t>(model.weights().size())) {}

// That a completion can have. A picture's tokens share positions, which are counted when the prompt is computed.
int64_t Run::most_tokens(const SampleRequest& request) const {
  const int64_t limit = model_.architecture().position_limit, requested = request.max_new_tokens;
  if (limit <= 0) return requested;
  const int64_t taken = request.images.empty() ? static_cast<int64_t>(request.prompt_tokens.size()) : 0;
  return std::min(requested, std::max<int64_t>(1, limit - taken));
}

int64_t Run::own_pages(const SampleRequest& request) const {
  const int64_t prompt = static_cast<int64_t>(request.prompt_tokens.size());
  // The last token drawn is never fed back: keys run to the prompt and all drawn tokens but one.
  const int64_t keys = prompt + most_tokens(request) - 1;
  return (keys + kKeyBlock - 1) / kKeyBlock - prompt / kKeyBlock;
}

int64_t Run::prompt_pages(const SampleRequest& request) const {
  return (static_cast<int64_t>(request.prompt_tokens.size()) + kKeyBlock - 1) / kKeyBlock;
}

size_t Run::logits_bytes() const {
  const int64_t vocabulary = model_.architecture().vocabulary;
  const int64_t tiles = (vocabulary + kVocabularyTile - 1) / kVocabularyTile;
  return static_cast<size_t>(vocabulary + 2 * tiles) * sizeof(float);
}

// Compares what the run can take at most, keys, values, logits and hidden rows, with the memory that is there.
Status Run::check_room(int64_t blocks, int64_t rows) const {
  if (model_.weights().planning()) return Status::success();
  const Architecture& architecture = model_.architecture();
  const size_t needed = static_cast<size_t>(blocks * architecture.num_layers *
                                            KvPool::page_bytes(architecture, model_.weights().dtype())) +
                        static_cast<size_t>(rows) * (2 * row_bytes() + logits_bytes());
  Status status = memory_.check(needed, "sampling " + std::to_string(rows) + " rows at once", "");
  if (status.ok()) return status;
  const double share = static_cast<double>(memory_.available()) / static_cast<double>(needed);
  const auto fitting = static_cast<int64_t>(share * static_cast<double>(rows));
  status.message += fitting > 0 ? "Lower `maxRows` (about " + std::to_string(fitting) + " would fit) or `maxNewTokens`."
                                : "Lower `maxNewTokens` or shorten the prompts.";
  return std::move(status).with("maxRows", std::to_string(fitting));
}

Status Run::prepare() {
  int64_t own = 0, prompt = 0, rows = 0, prompts_at_once = 0;
  const int64_t max_rows = settings_.max_rows;
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
    rows = std::min(max_rows, rows + request.count);
    prompts_at_once = std::max(prompts_at_once, (max_rows + request.count - 1) / request.count + 1);
  }
  prompts_at_once = std::min<int64_t>(prompts_at_once, static_cast<int64_t>(requests_.size()));
  // A request's rows cannot be 2^30 pages each, nor 2^31 rows: the product fits.
  const int64_t blocks = std::max<int64_t>(1, rows * own + prompts_at_once * prompt);
  if (blocks > 1 << 30)
    return Status::error(Code::out_of_memory,
                         "Expected fewer key-value pages than 2^30 for this call. Lower `maxRows` or `maxNewTokens`.");
  GAVEL_RETURN_IF_ERROR(check_room(blocks, rows));
  GAVEL_RETURN_IF_ERROR(
      pool_.reserve(memory_, model_.architecture(), model_.weights().dtype(), static_cast<int32_t>(blocks)));
  const char* const advice = "Use fewer rows at once (`maxRows`).";
  const auto row_count = static_cast<size_t>(rows);
  capacity_ = rows;
  GAVEL_RETURN_IF_ERROR(logits_.reserve(memory_, row_count * logits_bytes(), "logits", advice));
  GAVEL_RETURN_IF_ERROR(hidden_.reserve(memory_, 2 * row_count * row_bytes(), "hidden rows", advice));
  GAVEL_RETURN_IF_ERROR(draws_.reserve(memory_, rows));
  for (int32_t row = static_cast<int32_t>(std::min(row_count, requests_.size())); row-- > 0;)
    free_last_rows_.push_back(row);
  stats_.kv_bytes = pool_.size_bytes();
  return Status::success();
}

}  // namespace sampling

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
  const int32_t vocabulary = model_.architecture().vocabulary;
  std::set<int32_t> banned(complete.banned_tokens.begin(), complete.banned_tokens.end());
  std::erase_if(banned, [&](int32_t token) { return token < 0 || token >= vocabulary; });
  if (banned.size() == static_cast<size_t>(vocabulary))
    return Status::error(Code::invalid_argument,
                         "Expected `bannedTokens` that leave at least one token to draw but received all " +
                             std::to_string(vocabulary) + ". Ban fewer.");
  sampling::Run run(model_, context_, requests, complete, stats);
  GAVEL_RETURN_IF_ERROR(run.prepare());
  while (!run.done()) {
    if (aborted.load(std::memory_order_relaxed)) return aborted_status();
    std::vector<Completion> finished;
    Status status = run.step(&finished);
    if (!status.ok()) run.drain(&finished);
    if (!finished.empty()) on_finished(std::move(finished));
    GAVEL_RETURN_IF_ERROR(std::move(status));
    if (settings.max_steps > 0 && stats->decode_steps >= settings.max_steps) break;
  }
  return Status::success();
}

}  // namespace gavel
