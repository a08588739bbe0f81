#include "train/head_pass.h"

#include "ops/registry.h"

namespace gavel {

HeadPass::HeadPass(StepObjectives& step, const std::vector<const GroupInput*>& batch, const PackTargets& targets,
                   size_t tokens)
    : step_(step), batch_(batch), targets_(targets) {
  const size_t count = targets.rows.size();
  for (std::vector<float>* values : {&logprob_, &normalizer_, &grad_logprob_}) values->resize(count);
  for (std::vector<float>* values : {&logprobs_, &grad_logprobs_}) values->resize(tokens);
  if (step.needs_entropy()) {
    entropy_.resize(count);
    entropies_.resize(tokens);
  }
  if (step.has_entropy_gradient()) {
    grad_entropy_.resize(count);
    grad_entropies_.resize(tokens);
  }
}

void HeadPass::to_tokens(size_t begin, size_t end) {
  for (size_t r = begin; r < end; ++r) {
    const auto token = static_cast<size_t>(targets_.output[r]);
    logprobs_[token] = logprob_[r];
    if (!entropy_.empty()) entropies_[token] = entropy_[r];
  }
}

void HeadPass::to_targets(size_t begin, size_t end) {
  for (size_t r = begin; r < end; ++r) {
    const auto token = static_cast<size_t>(targets_.output[r]);
    grad_logprob_[r] = grad_logprobs_[token];
    if (!grad_entropy_.empty()) grad_entropy_[r] = grad_entropies_[token];
  }
}

void HeadPass::attach(HeadLogprob* head) {
  head->logprob = logprob_.data();
  head->log_normalizer = normalizer_.data();
  head->entropy = entropy_.empty() ? nullptr : entropy_.data();
  head->grad_logprob = grad_logprob_.data();
  head->grad_entropy = grad_entropy_.empty() ? nullptr : grad_entropy_.data();
}

void HeadPass::measure(Context& context, HeadLogprob head) {
  if (context.device == nullptr) return;
  attach(&head);
  const OpRow& op = ops_of(context)[Op::head_logprob];
  op.forward(context, &head);
  op.backward(context, &head);
}

HeadLogprob HeadPass::run(Context& context, HeadLogprob head) {
  attach(&head);
  const OpRow& op = ops_of(context)[Op::head_logprob];
  const auto apply = [&] { step_.apply(batch_, logprobs_, entropies_, &grad_logprobs_, &grad_entropies_); };
  if (!step_.token_local()) {
    op.forward(context, &head);
    to_tokens(0, logprob_.size());
    apply();
    to_targets(0, logprob_.size());
    op.backward(context, &head);
    return head;
  }
  head.coefficients.objective = this;
  head.coefficients.fill = [](void* objective, int32_t first, int32_t last) {
    HeadPass& pass = *static_cast<HeadPass*>(objective);
    const auto begin = static_cast<size_t>(first), end = static_cast<size_t>(last);
    pass.to_tokens(begin, end);
    pass.step_.gradients(pass.batch_, pass.logprobs_, pass.entropies_, &pass.grad_logprobs_, &pass.grad_entropies_);
    pass.to_targets(begin, end);
  };
  op.backward(context, &head);
  apply();  // loss and metrics; its gradients are those that the blocks took
  return head;
}

}  // namespace gavel
