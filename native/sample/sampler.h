// Batched group sampling with continuous batching: a prompt (and its images) is computed once per group, its full key
// blocks are shared by the group's rows, a finished row is replaced at once. Job thread only.
#pragma once
#include <atomic>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/context.h"
#include "model/input.h"
#include "model/model.h"
#include "model/reuse.h"

namespace gavel {

struct SampleRequest {
  uint64_t id = 0;
  std::vector<int32_t> prompt_tokens;
  std::vector<ImageInput> images;
  int32_t count = 1, first_sample = 0, max_new_tokens = 1;
  uint64_t seed = 0;
  float temperature = 1.0f;  // 0: greedy
  int32_t top_k = 0;
  float top_p = 1.0f, min_p = 0.0f;
  std::vector<int32_t> stop_tokens;
  std::vector<std::string> stop_strings;  // of bytes; needs SampleSettings::token_bytes
};

// The bytes that each token adds to a text: those of token t lie in [offsets[t], offsets[t + 1]).
struct TokenBytes {
  std::vector<uint8_t> bytes;
  std::vector<int32_t> offsets;  // tokens past its end have none
  std::string_view of(int32_t token) const {
    if (static_cast<size_t>(token) + 1 >= offsets.size()) return {};
    const size_t begin = static_cast<size_t>(offsets[static_cast<size_t>(token)]);
    const size_t end = static_cast<size_t>(offsets[static_cast<size_t>(token) + 1]);
    return {reinterpret_cast<const char*>(bytes.data()) + begin, end - begin};
  }
};

struct Completion {
  int32_t request = 0, sample = 0;
  std::vector<int32_t> tokens;
  std::vector<float> logprobs, log_kept_mass;
  bool stopped =
      false;  // by a stop token or string; else by length: max_new_tokens, or the end of the model's positions
};

struct SampleSettings {
  int32_t max_rows = 256;
  std::vector<int32_t> banned_tokens;
  TokenBytes token_bytes = {};
  int64_t max_steps = 0;     // decode steps after which the run ends, for plans; 0: none
  bool adapter_off = false;  // sample from the base model
};

inline constexpr size_t kTailRows = 8;

struct SampleStats {
  int64_t completions = 0, completion_tokens = 0, prompt_tokens = 0, decode_steps = 0;
  double prefill_seconds = 0, decode_seconds = 0;
  double tail_seconds = 0;                                      // of decoding, with fewer than kTailRows rows
  size_t kv_bytes = 0, buffer_bytes = 0, activation_bytes = 0;  // buffers: logits and hidden rows
  ReuseStats reused;
  // On a device: steps that launched a graph of an earlier one, graphs made, and how often the host waited for all that
  // was enqueued. Steps are not among the waits: their results are read one step late.
  int64_t replayed_steps = 0, captured_graphs = 0, device_waits = 0;
};

class Sampler {
 public:
  Sampler(Model& model, Context& context) : model_(model), context_(context) {}
  // `on_finished` is called on the job thread, at most once per decode step, with what that step finished.
  Status run(const std::vector<SampleRequest>& requests, const SampleSettings& settings,
             const std::atomic<bool>& aborted, const std::function<void(std::vector<Completion>)>& on_finished,
             SampleStats* stats);

 private:
  Model& model_;
  Context& context_;
};

}  // namespace gavel
