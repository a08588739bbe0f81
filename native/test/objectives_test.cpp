// StepObjectives::token_local: where it says yes, a token's gradient has its bits as soon as its own log-prob is there;
// where it says no, it has not.
#include "train/objectives.h"

#include <cmath>

#include "core/philox.h"
#include "test/check.h"

namespace gavel::test {
namespace {

float value(uint64_t seed, uint64_t index) {
  return static_cast<float>(random_bits({seed, index, 0, 0})[0]) * 0x1p-32f;
}

// Two groups of completions of unlike lengths with a masked token; one completion is on-policy, one has no ratios.
std::vector<GroupInput> make_groups() {
  std::vector<GroupInput> groups(2);
  uint64_t token = 0;
  for (size_t g = 0; g < groups.size(); ++g) {
    groups[g].prompt_tokens = {1, 2};
    for (size_t length : {size_t{5}, size_t{3}, size_t{7} + g}) {
      CompletionInput completion;
      completion.tokens.assign(length, 3);
      completion.advantage = value(1, token) < 0.5f ? -1.2f : 0.9f;
      if (length == 3) completion.mask = {1, 0, 1};
      for (size_t t = 0; t < length; ++t, ++token) {
        completion.reference_logprobs.push_back(-1 - value(2, token));
        if (length != 5) completion.old_logprobs.push_back(-1 - value(3, token));
        if (length != 3) completion.importance_ratio.push_back(0.5f + value(4, token));
      }
      groups[g].completions.push_back(std::move(completion));
    }
  }
  return groups;
}

struct Tokens {
  std::vector<const GroupInput*> batch;
  std::vector<float> logprobs, entropies;
  explicit Tokens(const std::vector<GroupInput>& groups) {
    for (const GroupInput& group : groups) {
      batch.push_back(&group);
      for (const CompletionInput& completion : group.completions) {
        for (size_t t = 0; t < completion.tokens.size(); ++t) {
          logprobs.push_back(-1 - value(5, logprobs.size()));
          entropies.push_back(2 * value(6, entropies.size()));
        }
      }
    }
  }
};

// Gradients of each token when nothing but its own values is known, and of all at once, bit for bit the same.
bool same_alone(StepObjectives& step, const Tokens& tokens) {
  const size_t count = tokens.logprobs.size();
  std::vector<float> alone(count), alone_entropy(count);
  for (size_t t = 0; t < count; ++t) {
    std::vector<float> logprobs(count), entropies(count), grad(count, 9.0f);
    std::vector<float> grad_entropy(step.has_entropy_gradient() ? count : 0, 9.0f);
    logprobs[t] = tokens.logprobs[t];
    entropies[t] = tokens.entropies[t];
    step.gradients(tokens.batch, logprobs, entropies, &grad, &grad_entropy);
    alone[t] = grad[t];
    if (!grad_entropy.empty()) alone_entropy[t] = grad_entropy[t];
  }
  std::vector<float> whole(count), whole_entropy(step.has_entropy_gradient() ? count : 0);
  step.apply(tokens.batch, tokens.logprobs, tokens.entropies, &whole, &whole_entropy);
  if (whole_entropy.empty()) return alone == whole;
  return alone == whole && alone_entropy == whole_entropy;
}

Objective grpo(PolicyLoss loss, ImportanceLevel level) {
  Objective objective;
  objective.kind = Objective::Kind::grpo;
  objective.weight = 0.7;
  objective.grpo.loss.loss = loss;
  objective.grpo.loss.level = level;
  objective.grpo.loss.beta = 0.1;
  objective.grpo.loss.max_completion_length = 8;
  if (loss == PolicyLoss::cispo) objective.grpo.loss.eps_high = 3;
  return objective;
}

void check_local(const std::vector<Objective>& objectives, bool local) {
  const std::vector<GroupInput> groups = make_groups();
  const Tokens tokens(groups);
  StepObjectives step(objectives, groups, {});
  CHECK(step.check().ok());
  CHECK_EQ(step.token_local(), local);
  CHECK_EQ(same_alone(step, tokens), local);
}

}  // namespace

TEST("objectives: token-local are those whose gradient a token's own log-prob gives, for every loss and option") {
  for (PolicyLoss loss : {PolicyLoss::grpo, PolicyLoss::bnpo, PolicyLoss::dr_grpo, PolicyLoss::dapo, PolicyLoss::cispo,
                          PolicyLoss::sapo, PolicyLoss::luspo, PolicyLoss::vespo}) {
    for (ImportanceLevel level : {ImportanceLevel::token, ImportanceLevel::sequence}) {
      const bool weighs_tokens = level == ImportanceLevel::token && loss != PolicyLoss::vespo;
      check_local({grpo(loss, level)}, weighs_tokens);
      Objective more = grpo(loss, level);
      more.grpo.loss.entropy_coef = 0.01;
      more.grpo.loss.entropy_threshold = 0.7;
      more.grpo.loss.kl_estimator = KlEstimator::k2;
      if (clips_ratio(loss)) {
        more.grpo.loss.delta = 1.5;
        more.grpo.loss.dual_clip = 1.2;
      }
      Objective nll;
      nll.normalization = NllNormalization::completions;
      check_local({more, nll}, weighs_tokens);
    }
  }
  Objective drift = grpo(PolicyLoss::dapo, ImportanceLevel::token);
  drift.grpo.loss.off_policy_threshold = -0.9;
  check_local({drift}, false);
  Objective dpo;
  dpo.kind = Objective::Kind::dpo;
  dpo.dpo.chosen = {0, 4};
  dpo.dpo.rejected = {2, 3};
  check_local({Objective{}, dpo}, false);
  dpo.weight = 0;
  check_local({Objective{}, dpo}, true);
}

TEST("objectives: an entropy quantile is token-local once the step's threshold is known") {
  const std::vector<GroupInput> groups = make_groups();
  const Tokens tokens(groups);
  Objective objective = grpo(PolicyLoss::dapo, ImportanceLevel::token);
  objective.grpo.top_entropy_quantile = 0.4;
  const std::vector<Objective> objectives{objective};
  StepObjectives late(objectives, groups, {}), early(objectives, groups, {});
  CHECK(!late.token_local());
  early.set_step_entropies(tokens.batch, tokens.entropies);
  CHECK(early.token_local());
  CHECK(same_alone(early, tokens));
  const size_t count = tokens.logprobs.size();
  std::vector<float> one(count), other(count), none;
  late.apply(tokens.batch, tokens.logprobs, tokens.entropies, &one, &none);
  early.apply(tokens.batch, tokens.logprobs, tokens.entropies, &other, &none);
  CHECK(one == other);
}

}  // namespace gavel::test
