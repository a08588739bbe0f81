#include "train/trainer.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "model/pack.h"
#include "model/planned_run.h"
#include "ops/builders.h"
#include "train/head_pass.h"
#include "train/micro_batches.h"
#include "train/objectives.h"
#include "train/score_graph.h"

namespace gavel {
namespace {

std::vector<Tensor> gradients_of(const Weights& weights) {
  std::vector<Tensor> grads;
  // A parameter that was frozen later keeps its buffer, but gets no work.
  for (int32_t i = 0; i < weights.size(); ++i)
    grads.push_back(weights.parameter(i).trainable ? weights.parameter(i).grad : Tensor{});
  return grads;
}

HeadLogprob head_of(const Model& model, const Tensor& hidden, const PackTargets& targets, float* logprob,
                    float* normalizer) {
  HeadLogprob head;
  head.hidden = hidden;
  head.weight = model.weights()[model.architecture().head];
  head.num_targets = static_cast<int32_t>(targets.rows.size());
  head.rows = targets.rows.data();
  head.tokens = targets.tokens.data();
  head.inverse_temperature = targets.inverse_temperature.data();
  head.logprob = logprob;
  head.log_normalizer = normalizer;
  return head;
}

Status check_dropout(const Weights& weights, const std::vector<Objective>& objectives) {
  if (weights.adapter().dropout <= 0) return Status::success();
  for (const Objective& objective : objectives) {
    const bool compares = objective.kind == Objective::Kind::grpo || objective.kind == Objective::Kind::dpo;
    if (!compares || objective.weight == 0) continue;
    return Status::error(
        Code::invalid_argument,
        "Expected an adapter without dropout for objectives that compare log-probs of two passes: with it they are not "
        "those of one policy. Load the model with `lora.dropout` 0.");
  }
  return Status::success();
}

// Of the call's completion tokens, `per_token` values each: a NaN weight must not end in numbers that look like
// results.
Status check_finite(std::span<const float> values, size_t per_token) {
  const auto found = std::find_if_not(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
  if (found == values.end()) return Status::success();
  const size_t token = static_cast<size_t>(found - values.begin()) / per_token;
  return Status::error(Code::non_finite, "Expected finite logits but received " + std::to_string(*found) +
                                             " for completion token " + std::to_string(token) +
                                             " of this call. The weights are damaged: go back to an earlier "
                                             "checkpoint.");
}

int64_t completion_tokens_of(const std::vector<const GroupInput*>& groups) {
  int64_t count = 0;
  for (const GroupInput* group : groups) {
    for (const CompletionInput& completion : group->completions)
      count += static_cast<int64_t>(completion.tokens.size());
  }
  return count;
}

// What reads log-probs: everything but ranking, and of that what weighs anything, unless nothing does.
std::vector<Objective> language_objectives(const std::vector<Objective>& objectives, bool ranks) {
  std::vector<Objective> all, weighing;
  for (const Objective& objective : objectives) {
    if (objective.kind == Objective::Kind::ranking) continue;
    all.push_back(objective);
    if (objective.weight != 0) weighing.push_back(objective);
  }
  return weighing.empty() && !ranks ? all : weighing;
}

}  // namespace

template <class Body>
Status Trainer::run_pass(const Body& body) {
  Status status = plan_and_run(model_.arena(), body);
  activation_bytes_ = model_.arena().capacity();
  return status;
}

Status Trainer::logprobs(const std::vector<GroupInput>& groups, const StepOptions& options,
                         const std::atomic<bool>& aborted, StepResult* result) {
  const AdapterScope scope(model_.weights(), !options.adapter_off);
  const std::vector<Tensor> no_grads(static_cast<size_t>(model_.weights().size()));
  Reuse reuse(model_, !options.adapter_off);
  Pack pack;
  for (const auto& batch :
       micro_batches(groups, {}, options.max_tokens_per_micro_batch, model_.architecture().reward_token)) {
    if (aborted.load(std::memory_order_relaxed)) return aborted_status();
    GAVEL_RETURN_IF_ERROR(pack.build(model_.architecture(), batch, Reads::log_probs, &reuse));
    const PackTargets& targets = pack.targets();
    const size_t count = targets.rows.size();
    std::vector<float> logprob(count), normalizer(count), entropy(options.entropy ? count : 0);
    GAVEL_RETURN_IF_ERROR(run_pass([&] {
      Tape tape(context_, ops_of(context_), model_.arena(), no_grads, {});
      VisionFeatures features;
      const Tensor hidden = model_.architecture().forward(tape, model_.weights(), pack.view(), &features);
      GAVEL_RETURN_IF_ERROR(Status(tape.status()));
      if (tape.dry() && context_.device == nullptr) return Status::success();
      if (!tape.dry()) pack.keep_features(features, &reuse);
      HeadLogprob head = head_of(model_, hidden, targets, logprob.data(), normalizer.data());
      head.entropy = options.entropy ? entropy.data() : nullptr;
      ops_of(context_)[Op::head_logprob].forward(context_, &head);
      return Status::success();
    }));
    const size_t first = result->logprobs.size();
    result->logprobs.resize(first + static_cast<size_t>(completion_tokens_of(batch)));
    if (options.entropy) result->entropies.resize(result->logprobs.size());
    for (size_t r = 0; r < count; ++r) {
      result->logprobs[first + static_cast<size_t>(targets.output[r])] = logprob[r];
      if (options.entropy) result->entropies[first + static_cast<size_t>(targets.output[r])] = entropy[r];
    }
    result->packed_tokens += pack.view().num_tokens;
    ++result->micro_batches;
  }
  result->completion_tokens = static_cast<int64_t>(result->logprobs.size());
  result->reused = reuse.stats();
  return check_finite(result->logprobs, 1);
}

Status Trainer::logits(const GroupInput& group, bool adapter_off, const std::atomic<bool>& aborted,
                       std::vector<float>* out) {
  const AdapterScope scope(model_.weights(), !adapter_off);
  if (aborted.load(std::memory_order_relaxed)) return aborted_status();
  const std::vector<Tensor> no_grads(static_cast<size_t>(model_.weights().size()));
  const GroupInput* groups[] = {&group};
  Pack pack;
  GAVEL_RETURN_IF_ERROR(pack.build(model_.architecture(), groups, Reads::log_probs));
  const size_t count = pack.targets().rows.size(), vocabulary = static_cast<size_t>(model_.architecture().vocabulary);
  std::vector<float> logprob(count), normalizer(count);
  Pages rows;
  GAVEL_RETURN_IF_ERROR(rows.reserve(model_.weights().memory(), std::max<size_t>(1, count * vocabulary) * sizeof(float),
                                     "logits", "Ask for a shorter completion's."));
  GAVEL_RETURN_IF_ERROR(run_pass([&] {
    Tape tape(context_, ops_of(context_), model_.arena(), no_grads, {});
    const Tensor hidden = model_.architecture().forward(tape, model_.weights(), pack.view());
    GAVEL_RETURN_IF_ERROR(Status(tape.status()));
    if (tape.dry() && context_.device == nullptr) return Status::success();
    HeadLogprob head = head_of(model_, hidden, pack.targets(), logprob.data(), normalizer.data());
    head.logits = reinterpret_cast<float*>(rows.data());
    ops_of(context_)[Op::head_logprob].forward(context_, &head);
    return Status::success();
  }));
  out->resize(count * vocabulary);
  const size_t row_bytes = vocabulary * sizeof(float);
  std::vector<TensorMemory::Transfer> transfers;
  for (size_t r = 0; r < count; ++r) {
    transfers.push_back({out->data() + static_cast<size_t>(pack.targets().output[r]) * vocabulary,
                         rows.data() + r * row_bytes, row_bytes});
  }
  model_.weights().memory().download(transfers);
  GAVEL_RETURN_IF_ERROR(model_.weights().memory().finish());
  return check_finite(*out, vocabulary);
}

// Entropies before the first micro-batch: a forward pass has the same bits however it is cut.
Status Trainer::score_step(const std::vector<GroupInput>& groups, const StepOptions& options,
                           const std::atomic<bool>& aborted, StepObjectives* step) {
  StepOptions scoring = options;
  scoring.entropy = true;
  scoring.adapter_off = false;
  StepResult scored;
  GAVEL_RETURN_IF_ERROR(logprobs(groups, scoring, aborted, &scored));
  std::vector<const GroupInput*> all;
  for (const GroupInput& group : groups) all.push_back(&group);
  step->set_step_entropies(all, scored.entropies);
  return Status::success();
}

Status Trainer::forward_backward(const std::vector<GroupInput>& groups, const std::vector<Objective>& objectives,
                                 const StepOptions& options, const std::atomic<bool>& aborted, StepResult* result) {
  Weights& weights = model_.weights();
  GAVEL_RETURN_IF_ERROR(check_dropout(weights, objectives));
  GAVEL_RETURN_IF_ERROR(weights.ensure_gradients());
  const int32_t reward_token = model_.architecture().reward_token;
  RankingStep ranking(groups, reward_token, model_.reward_head().count());
  for (const Objective& objective : objectives) {
    if (objective.kind == Objective::Kind::ranking) ranking.add(objective.weight, objective.ranking);
  }
  const std::vector<Objective> language = language_objectives(objectives, ranking.active());
  const bool speaks = !ranking.active() || !language.empty();
  StepObjectives step(language, groups, options);
  if (speaks) GAVEL_RETURN_IF_ERROR(step.check());
  GAVEL_RETURN_IF_ERROR(ranking.check(!language.empty()));
  std::vector<GroupJoin> joins = ranking.links();
  if (speaks) {
    const std::vector<GroupJoin> further = step.joined_groups();
    joins.insert(joins.end(), further.begin(), further.end());
  }
  Status status = Status::success();
  const auto batches = micro_batches(groups, joins, options.max_tokens_per_micro_batch, reward_token);
  if (speaks && batches.size() > 1 && step.needs_step_entropies()) status = score_step(groups, options, aborted, &step);
  // The step needs the memory, and what follows it makes these entries stale.
  model_.drop_trained();
  Reuse reuse(model_, true);
  Reuse* const kept = model_.architecture().tower_trains(weights) ? nullptr : &reuse;
  const AdapterScope scope(weights, true, weights.adapter().dropout, static_cast<uint32_t>(step_));
  const std::vector<Tensor> grads = gradients_of(weights);
  const std::vector<size_t> first_tokens = first_completion_tokens(groups);
  if (speaks) result->logprobs.resize(first_tokens.back());
  const Reads wanted = !ranking.active() ? Reads::log_probs : speaks ? Reads::both : Reads::scores;
  Pack pack;
  for (const auto& batch : batches) {
    if (aborted.load(std::memory_order_relaxed)) status = aborted_status();
    if (status.ok()) status = pack.build(model_.architecture(), batch, wanted, kept, true);
    if (!status.ok()) break;
    const PackTargets& targets = pack.targets();
    HeadPass head_pass(step, batch, targets, static_cast<size_t>(completion_tokens_of(batch)));
    weights.adapter().first_row = dropout_rows_;
    status = run_pass([&] {
      Tape tape(context_, ops_of(context_), model_.arena(), grads, {true, options.activation_checkpointing});
      VisionFeatures features;
      const Tensor hidden = model_.architecture().forward(tape, weights, pack.view(), &features);
      if (!tape.dry() && tape.status().ok()) pack.keep_features(features, &reuse);
      ScoreGraph scores;
      if (ranking.active()) scores = ScoreGraph::build(tape, model_, hidden, pack);
      GAVEL_RETURN_IF_ERROR(Status(tape.status()));
      if (ranking.active()) {
        const bool fills = !tape.dry() && !context_.planning;
        std::vector<double> grad_mu, grad_log_sigma;
        if (fills) {
          const auto values = scores.values(tape);
          const std::vector<double> mu = scores.column<double>(values, 0), log_sigma = scores.column<double>(values, 1);
          grad_mu.resize(mu.size());
          grad_log_sigma.resize(mu.size());
          ranking.apply(batch, mu, log_sigma, &grad_mu, &grad_log_sigma);
        }
        scores.seed(tape, grad_mu, grad_log_sigma, fills);
      }
      if (speaks) {
        HeadLogprob head = head_of(model_, hidden, targets, nullptr, nullptr);
        head.grad_weight = grads[static_cast<size_t>(model_.architecture().head)];
        if (tape.requires_grad(hidden.id)) head.grad_hidden = tape.seed(hidden);
        if (tape.dry()) {
          head_pass.measure(context_, head);
        } else {
          add_token_row_gradients(weights, head_pass.run(context_, head));
        }
      }
      if (tape.requires_grad(hidden.id) || scores.requires_grad(tape)) tape.backward();
      return Status(tape.status());
    });
    if (!status.ok()) break;
    if (speaks) place_tokens(groups, first_tokens, batch, head_pass.logprobs(), &result->logprobs);
    result->packed_tokens += pack.view().num_tokens;
    dropout_rows_ += static_cast<uint32_t>(pack.view().num_tokens);
    ++result->micro_batches;
  }
  mask_adapter_gradients(weights);
  if (status.ok()) {
    if (speaks) step.finish(result);
    result->loss += ranking.loss();
    ranking.finish(&result->metrics);
    if (!std::isfinite(result->loss)) {
      status = Status::error(Code::non_finite,
                             "Expected a finite loss but received " + std::to_string(result->loss) +
                                 ". The step was not applied; lower the learning rate or check rewards and log-probs.");
    }
  }
  // Half a step's gradient must never be applied by accident.
  if (!status.ok()) weights.zero_gradients();
  result->completion_tokens = static_cast<int64_t>(first_tokens.back());
  result->reused = reuse.stats();
  return status;
}

Status Trainer::score(const std::vector<GroupInput>& groups, const StepOptions& options, bool states,
                      const std::atomic<bool>& aborted, ScoreResult* result) {
  const int32_t reward_token = model_.architecture().reward_token;
  if (!model_.reward_head().attached())
    return Status::error(Code::invalid_argument,
                         "Expected a model with a reward head to score with but received one without. Load it with the "
                         "option `rewardHead`.");
  for (size_t g = 0; g < groups.size(); ++g) {
    if (Pack::scores_of(groups[g], reward_token) > 0) continue;
    return Status::error(Code::invalid_argument, "Expected the reward token " + std::to_string(reward_token) +
                                                     " in every group to score but received none in group " +
                                                     std::to_string(g) + ". Put it after the instruction.")
        .with("group", std::to_string(g));
  }
  const AdapterScope scope(model_.weights(), !options.adapter_off);
  const std::vector<Tensor> no_grads(static_cast<size_t>(model_.weights().size()));
  result->heads = model_.reward_head().count();
  Reuse reuse(model_, !options.adapter_off);
  Pack pack;
  for (const auto& batch : micro_batches(groups, {}, options.max_tokens_per_micro_batch, reward_token)) {
    if (aborted.load(std::memory_order_relaxed)) return aborted_status();
    GAVEL_RETURN_IF_ERROR(pack.build(model_.architecture(), batch, Reads::scores, &reuse));
    GAVEL_RETURN_IF_ERROR(run_pass([&] {
      Tape tape(context_, ops_of(context_), model_.arena(), no_grads, {});
      VisionFeatures features;
      const Tensor hidden = model_.architecture().forward(tape, model_.weights(), pack.view(), &features);
      const ScoreGraph scores = ScoreGraph::build(tape, model_, hidden, pack);
      GAVEL_RETURN_IF_ERROR(Status(tape.status()));
      if (tape.dry() || context_.planning) return Status::success();
      pack.keep_features(features, &reuse);
      const auto values = scores.values(tape);
      const std::vector<float> mu = scores.column<float>(values, 0), log_sigma = scores.column<float>(values, 1);
      result->mu.insert(result->mu.end(), mu.begin(), mu.end());
      result->log_sigma.insert(result->log_sigma.end(), log_sigma.begin(), log_sigma.end());
      if (states) {
        const std::vector<float> rows = values_of(tape.memory(), scores.states);
        result->states.insert(result->states.end(), rows.begin(), rows.end());
      }
      result->count += scores.states.rows();
      return Status::success();
    }));
  }
  result->reused = reuse.stats();
  const auto damaged = [](const std::vector<float>& values) {
    return std::any_of(values.begin(), values.end(), [](float value) { return !std::isfinite(value); });
  };
  if (damaged(result->mu) || damaged(result->log_sigma)) {
    return Status::error(Code::non_finite,
                         "Expected finite scores but received others. The weights are damaged: go back to an earlier "
                         "checkpoint.");
  }
  return Status::success();
}

Status Trainer::optimizer_step(const OptimizerOptions& options, OptimizerResult* result) {
  Weights& weights = model_.weights();
  GAVEL_RETURN_IF_ERROR(weights.ensure_gradients());
  GAVEL_RETURN_IF_ERROR(weights.ensure_moments());
  std::vector<const float*> grads;
  std::vector<int64_t> counts;
  for (int32_t i = 0; i < weights.size(); ++i) {
    const Parameter& parameter = weights.parameter(i);
    if (!parameter.trainable) continue;
    grads.push_back(parameter.grad.f32());
    counts.push_back(parameter.count());
  }
  bool finite = true;
  GlobalNorm norm{grads.data(), counts.data(), static_cast<int32_t>(grads.size()), &result->grad_norm, &finite};
  ops_of(context_)[Op::global_norm].forward(context_, &norm);
  GAVEL_RETURN_IF_ERROR(weights.memory().finish());
  result->step = step_;
  result->applied = finite && std::isfinite(result->grad_norm);
  if (result->applied) {
    model_.drop_trained();
    ++step_;
    result->step = step_;
    // torch.nn.utils.clip_grad_norm_: the coefficient has 1e-6 under it.
    const double scale =
        options.max_grad_norm > 0 ? std::min(1.0, options.max_grad_norm / (result->grad_norm + 1e-6)) : 1.0;
    for (int32_t i = 0; i < weights.size(); ++i) {
      const Parameter& parameter = weights.parameter(i);
      if (!parameter.trainable) continue;
      const bool decays = options.decay_all || parameter.kind == ParameterKind::matrix;
      AdamW update;
      update.value = parameter.value;
      update.master = parameter.master;
      update.grad = parameter.grad.f32();
      update.moment1 = parameter.moment1;
      update.moment2 = parameter.moment2;
      update.scales1 = parameter.scales1.f32();
      update.scales2 = parameter.scales2.f32();
      update.seed = weights.training_state().seed;
      update.parameter = hash_name(parameter.name);
      update.count = parameter.count();
      update.learning_rate = options.learning_rate;
      update.beta1 = options.beta1;
      update.beta2 = options.beta2;
      update.eps = options.eps;
      update.weight_decay = decays ? options.weight_decay : 0.0;
      update.step = step_;
      update.grad_scale = static_cast<float>(scale);
      ops_of(context_)[Op::adamw].forward(context_, &update);
    }
  }
  refresh_token_rows(weights);
  dropout_rows_ = 0;
  weights.zero_gradients();
  return weights.memory().finish();
}

}  // namespace gavel
