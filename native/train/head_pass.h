// The language head of one micro-batch, between hidden states and the objectives of its step. Targets stand in the
// order of rows, what objectives see in the order of completions. Job thread only.
#pragma once
#include <vector>

#include "core/context.h"
#include "model/pack.h"
#include "ops/head_logprob.h"
#include "train/objectives.h"

namespace gavel {

class HeadPass {
 public:
  // All outlive it; `tokens` are the completion tokens of the batch.
  HeadPass(StepObjectives& step, const std::vector<const GroupInput*>& batch, const PackTargets& targets,
           size_t tokens);
  // Log-probs, the step's loss and metrics, and the gradients that `head` has tensors for. One pass where the
  // objectives are token-local, else two: same bits. Returns `head` with what was computed for it.
  HeadLogprob run(Context& context, HeadLogprob head);
  // Tells a device what run() will take.
  void measure(Context& context, HeadLogprob head);
  const std::vector<float>& logprobs() const { return logprobs_; }  // [completion tokens]

 private:
  void attach(HeadLogprob* head);
  void to_tokens(size_t begin, size_t end);
  void to_targets(size_t begin, size_t end);

  StepObjectives& step_;
  const std::vector<const GroupInput*>& batch_;
  const PackTargets& targets_;
  std::vector<float> logprob_, normalizer_, entropy_, grad_logprob_, grad_entropy_;  // of targets
  std::vector<float> logprobs_, entropies_, grad_logprobs_, grad_entropies_;         // of completion tokens
};

}  // namespace gavel
