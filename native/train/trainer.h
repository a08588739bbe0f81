// Log-probs, forward + backward under objectives, and the optimizer step, over one model. Job thread only. A failed or
// aborted call leaves weights and moments as they were; gradients are cleared.
#pragma once
#include <atomic>
#include <map>
#include <string>
#include <vector>

#include "core/context.h"
#include "model/input.h"
#include "model/model.h"
#include "model/reuse.h"
#include "train/dpo_objective.h"
#include "train/grpo_objective.h"
#include "train/ranking_objective.h"

namespace gavel {

enum class NllNormalization : uint8_t { tokens, completions, sum };

// One of weight 0 is not there: nothing of it is checked, computed or reported.
struct Objective {
  enum class Kind : uint8_t { nll, grpo, dpo, ranking } kind = Kind::nll;
  double weight = 1.0;
  NllNormalization normalization = NllNormalization::tokens;
  GrpoObjective grpo;
  DpoObjective dpo;
  RankingObjective ranking;
};

struct StepOptions {
  int64_t max_tokens_per_micro_batch = 16384;
  bool activation_checkpointing = false;
  double step_completions = 0, step_tokens = 0;  // 0: counted over the call
  bool entropy = false;                          // logprobs only
  bool adapter_off = false;                      // logprobs only: the base model, an adapter's reference policy
};

struct StepResult {
  double loss = 0;
  int64_t completion_tokens = 0, packed_tokens = 0, micro_batches = 0;
  std::map<std::string, double> metrics;
  std::vector<float> logprobs;   // every completion token in order; empty when ranking alone trains
  std::vector<float> entropies;  // same, or empty
  ReuseStats reused;
};

// Of every reward token of a call: by group, a prompt before its completions.
struct ScoreResult {
  int32_t heads = 0;
  int64_t count = 0;                 // S
  std::vector<float> mu, log_sigma;  // [S, heads]
  std::vector<float> states;         // [S, hidden] after the final norm, or empty
  ReuseStats reused;
};

struct OptimizerOptions {
  double learning_rate = 1e-6, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0, max_grad_norm = 1.0;
  bool decay_all = false;  // false: matrices only
};

struct OptimizerResult {
  double grad_norm = 0;
  bool applied = false;
  int64_t step = 0;
};

class StepObjectives;

class Trainer {
 public:
  Trainer(Model& model, Context& context) : model_(model), context_(context) {}

  Status logprobs(const std::vector<GroupInput>& groups, const StepOptions& options, const std::atomic<bool>& aborted,
                  StepResult* result);
  // Scaled logits [C, V] of the first completion of a group.
  Status logits(const GroupInput& group, bool adapter_off, const std::atomic<bool>& aborted, std::vector<float>* out);
  // One forward without the language head. Groups may have no completions.
  Status score(const std::vector<GroupInput>& groups, const StepOptions& options, bool states,
               const std::atomic<bool>& aborted, ScoreResult* result);
  Status forward_backward(const std::vector<GroupInput>& groups, const std::vector<Objective>& objectives,
                          const StepOptions& options, const std::atomic<bool>& aborted, StepResult* result);
  Status optimizer_step(const OptimizerOptions& options, OptimizerResult* result);

  // Held by the last pass; sampling gives it back.
  size_t activation_bytes() const { return activation_bytes_; }
  int64_t step_count() const { return step_; }
  void set_step_count(int64_t step) { step_ = step; }

 private:
  Status score_step(const std::vector<GroupInput>& groups, const StepOptions& options, const std::atomic<bool>& aborted,
                    StepObjectives* step);
  template <class Body>
  Status run_pass(const Body& body);

  Model& model_;
  Context& context_;
  size_t activation_bytes_ = 0;
  int64_t step_ = 0;
  uint32_t dropout_rows_ = 0;  // packed since the last optimizer step: where the next pass's masks begin
};

}  // namespace gavel
