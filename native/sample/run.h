// One call of the sampler: groups and rows in flight, their pages, and the buffers of a decode step. prompts.cpp fills
// it, decode_step.cpp empties it. On a device steps are enqueued without waiting and their results read one step late:
// a row that has stopped meanwhile is computed once too often, which nobody reads.
#pragma once
#include <chrono>
#include <deque>
#include <memory>
#include <span>

#include "model/planned_run.h"
#include "ops/all.h"
#include "sample/draws.h"
#include "sample/kv_pool.h"
#include "sample/sampler.h"

namespace gavel::sampling {

inline double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// A group in flight: its prompt's pages live until its last row has finished.
struct Group {
  int32_t request = 0;
  int32_t prompt_length = 0, next_position = 0;
  int32_t most_tokens = 0;      // of a completion: as requested, or fewer where the model's positions end
  std::vector<int32_t> blocks;  // the prompt's pages, the partial last one included
  int32_t last_row = 0;         // of hidden_: the last prompt row, which predicts every first token
  ContentKey key;               // of the prompt, when prompts are kept
  int32_t admitted = 0, finished = 0;
  int32_t full_blocks() const { return prompt_length / kKeyBlock; }
  bool has_partial() const { return prompt_length % kKeyBlock != 0; }
};

struct Row {
  Group* group = nullptr;
  int64_t reserved = 0;         // pages it may still take
  bool copy_pending = false;    // its first page starts as a copy of the prompt's partial one
  std::vector<int32_t> blocks;  // its own pages, from the prompt's first partial block on
  std::string tail;             // the last bytes of its text, in which a stop string may have begun
  int32_t drawn = 0;            // tokens that were enqueued; the completion has those that came back
  int32_t place = 0;            // of its token in the last step's draws
  bool finished = false;
  Completion completion;
};

// A decode step that was enqueued: its rows in the order of their draws.
struct Flight {
  std::vector<std::shared_ptr<Row>> rows;
  int turn = 0;
};

class Run {
 public:
  Run(Model& model, Context& context, const std::vector<SampleRequest>& requests, const SampleSettings& settings,
      SampleStats* stats);

  Status prepare();
  bool done() const {
    return next_request_ == requests_.size() && rows_.empty() && groups_.empty() && flights_.empty();
  }
  Status step(std::vector<Completion>* finished);
  // After a failure: what earlier steps finished.
  void drain(std::vector<Completion>* finished) {
    while (!flights_.empty() && collect(finished).ok()) {
    }
  }

 private:
  size_t row_bytes() const {
    return static_cast<size_t>(model_.architecture().hidden_size) * dtype_size(model_.weights().dtype());
  }
  int64_t most_tokens(const SampleRequest& request) const;
  int64_t own_pages(const SampleRequest& request) const;
  int64_t prompt_pages(const SampleRequest& request) const;
  size_t logits_bytes() const;  // of a row
  Status check_room(int64_t blocks, int64_t rows) const;

  Status prefill();
  Status begin_prompts(const std::vector<int32_t>& batch);
  Status compute_prompts(const std::vector<std::unique_ptr<Group>>& groups);
  void keep_prompt(const Group& group, std::span<const int32_t> states, const uint8_t* hidden);
  uint8_t* last_hidden(const Group& group) const {
    return hidden_.data() + static_cast<size_t>(capacity_ + group.last_row) * row_bytes();
  }
  void admit();

  // Rows of a step of `count`: on a device one of few numbers, so that steps repeat one another's calls.
  int32_t padded(int32_t count) const;
  struct StepLists;
  Status enqueue(std::vector<std::shared_ptr<Row>> rows);
  void list_decoding(const std::vector<std::shared_ptr<Row>>& rows, StepLists* lists);
  void list_draws(const std::vector<std::shared_ptr<Row>>& rows, StepLists* lists);
  void draw(const StepLists& lists);
  Status collect(std::vector<Completion>* finished);
  bool stops(Row& row) const;
  void retire(std::vector<Completion>* finished);
  PassCounts passes() const { return memory_.on_device() ? memory_.device().counts() : PassCounts(); }
  // Keys and values take the place of what a training step left.
  void make_room(size_t peak) {
    if (peak > 0 && !std::exchange(reserved_, true)) model_.arena().shrink(peak);
  }

  Model& model_;
  Context& context_;
  const std::vector<SampleRequest>& requests_;
  const SampleSettings& settings_;
  SampleStats& stats_;
  Reuse reuse_;
  const TensorMemory memory_;
  const size_t lag_;  // steps between enqueuing and reading
  std::vector<Tensor> no_grads_;
  KvPool pool_;
  bool reserved_ = false;  // the arena, for this run
  int64_t promised_ = 0;   // pages reserved by rows that have not taken them yet
  size_t next_request_ = 0;
  std::vector<std::unique_ptr<Group>> groups_;
  std::vector<std::shared_ptr<Row>> rows_;
  std::deque<Flight> flights_;
  int64_t capacity_ = 0;  // the most rows there can be
  // [2 capacity_, H] what the head reads: rows that decode, then the last row of each prompt in flight, which has a row
  // that decodes or waits.
  Pages hidden_;
  std::vector<int32_t> free_last_rows_;
  Pages logits_;  // [rows, V], then [rows, tiles, 2]
  Draws draws_;
};

}  // namespace gavel::sampling
