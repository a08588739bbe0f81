#include "train/ranking_objective.h"

#include <algorithm>
#include <cmath>

#include "model/pack.h"

namespace gavel {
namespace {

Status refuse(const std::string& expected, const std::string& received, const std::string& advice) {
  return Status::error(Code::invalid_argument, "Expected " + expected + " but received " + received + ". " + advice);
}

std::string count(size_t number) { return std::to_string(number); }

// Of a whole call, so that its pairs can be counted.
double denominator_of(const RankingObjective& objective, const RankingInputs& inputs) {
  if (objective.step_count > 0) return objective.step_count;
  return std::max(count_labelled(objective.options.loss, inputs), 1.0);
}

}  // namespace

RankingStep::RankingStep(const std::vector<GroupInput>& groups, int32_t reward_token, int32_t heads)
    : groups_(groups), heads_(heads), first_score_{0} {
  for (const GroupInput& group : groups)
    first_score_.push_back(first_score_.back() + static_cast<int32_t>(Pack::scores_of(group, reward_token)));
}

RankingInputs RankingStep::inputs_of(const RankingObjective& objective) const {
  RankingInputs inputs;
  inputs.num_heads = heads_;
  inputs.num_pairs = static_cast<int64_t>(objective.chosen.size());
  inputs.labels = objective.labels.empty() ? nullptr : objective.labels.data();
  inputs.head_weights = objective.head_weights.empty() ? nullptr : objective.head_weights.data();
  return inputs;
}

void RankingStep::add(double weight, const RankingObjective& objective) {
  if (weight != 0) objectives_.push_back({weight, &objective});
}

Status RankingStep::check_objective(const RankingObjective& objective, std::vector<uint8_t>* read) const {
  const size_t scores = static_cast<size_t>(first_score_.back()), pairs = objective.chosen.size(),
               heads = static_cast<size_t>(heads_);
  const RankingLoss loss = objective.options.loss;
  if (objective.rejected.size() != pairs)
    return refuse("as many `pairs.rejected` as `pairs.chosen`, " + count(pairs) + ",", count(objective.rejected.size()),
                  "A pair is one of each.");
  if (loss != RankingLoss::regression && pairs == 0)
    return refuse("at least one pair", "none", "Name the scores to compare in `pairs`.");
  const auto demand = [&](const char* name, size_t size, size_t wanted, const char* shape) {
    if (size == 0 || size == wanted) return Status::success();
    return refuse(count(wanted) + " values for `" + name + "` (" + shape + ")", count(size), "Give all, or none.");
  };
  GAVEL_RETURN_IF_ERROR(demand("pairs.margins", objective.margins.size(), pairs, "one a pair"));
  GAVEL_RETURN_IF_ERROR(demand("pairs.ties", objective.ties.size(), pairs, "one a pair"));
  GAVEL_RETURN_IF_ERROR(demand("pairs.labels", objective.labels.size(), pairs * heads, "pairs x heads"));
  GAVEL_RETURN_IF_ERROR(demand("targets", objective.targets.size(), scores * heads, "scores x heads"));
  GAVEL_RETURN_IF_ERROR(demand("headWeights", objective.head_weights.size(), heads, "one a head"));
  if (loss == RankingLoss::regression && objective.targets.empty())
    return refuse("`targets` for the loss 'regression'", "none",
                  "Give [scores x heads] values, NaN where one is missing.");
  for (const std::vector<int32_t>* side : {&objective.chosen, &objective.rejected}) {
    for (int32_t score : *side) {
      if (score >= 0 && static_cast<size_t>(score) < scores) {
        (*read)[static_cast<size_t>(score)] = 1;
        continue;
      }
      return refuse("pairs of the " + count(scores) + " scores of this call", std::to_string(score),
                    "A score is a reward token; they are counted from 0 in order of groups, a prompt before its "
                    "completions.");
    }
  }
  const bool knows_ties = loss == RankingLoss::bradley_terry_ties || loss == RankingLoss::regression;
  for (size_t p = 0; p < pairs; ++p) {
    if (objective.chosen[p] == objective.rejected[p])
      return refuse("two scores in a pair", std::to_string(objective.chosen[p]) + " twice in pair " + count(p),
                    "A score does not compete with itself.");
    bool tie = !objective.ties.empty() && objective.ties[p] != 0;
    for (size_t h = 0; h < heads && !objective.labels.empty(); ++h) tie = tie || objective.labels[p * heads + h] == 0;
    if (tie && !knows_ties)
      return refuse("pairs with a preference", "a tie at pair " + count(p),
                    "Use the loss 'bradley_terry_ties', or leave the pair out.");
  }
  if (loss != RankingLoss::regression) return Status::success();
  RankingInputs inputs = inputs_of(objective);
  const std::vector<double> targets(objective.targets.begin(), objective.targets.end());
  inputs.targets = targets.data();
  for (size_t s = 0; s < scores; ++s) {
    if (has_target(inputs, static_cast<int64_t>(s))) (*read)[s] = 1;
  }
  return Status::success();
}

Status RankingStep::check(bool mixed) const {
  if (!active()) return Status::success();
  if (heads_ == 0)
    return refuse("a model with a reward head for a ranking objective", "one without",
                  "Load it with the option `rewardHead`.");
  std::vector<uint8_t> read(static_cast<size_t>(first_score_.back()));
  for (const Weighted& one : objectives_) GAVEL_RETURN_IF_ERROR(check_objective(*one.objective, &read));
  if (mixed) return Status::success();
  for (size_t g = 0; g < groups_.size(); ++g) {
    if (first_score_[g] == first_score_[g + 1])
      return refuse("a reward token in every group of a ranking objective", "none in group " + count(g),
                    "Put it after the instruction, or leave the group out.");
  }
  for (size_t s = 0; s < read.size(); ++s) {
    if (read[s] == 0)
      return refuse("every score in a pair or with a target",
                    "score " + count(s) + " of group " + std::to_string(group_of(static_cast<int32_t>(s))) +
                        ", which nothing reads",
                    "Leave its group out, or compare it.");
  }
  return Status::success();
}

int32_t RankingStep::group_of(int32_t score) const {
  return static_cast<int32_t>(std::upper_bound(first_score_.begin(), first_score_.end(), score) -
                              first_score_.begin()) -
         1;
}

std::vector<GroupJoin> RankingStep::links() const {
  std::vector<GroupJoin> links;
  for (const Weighted& one : objectives_) {
    for (size_t p = 0; p < one.objective->chosen.size(); ++p)
      links.emplace_back(group_of(one.objective->chosen[p]), group_of(one.objective->rejected[p]));
  }
  return links;
}

std::vector<int32_t> RankingStep::scores_of(const std::vector<const GroupInput*>& batch) const {
  std::vector<int32_t> scores;
  for (const GroupInput* group : batch) {
    const auto g = static_cast<size_t>(group - groups_.data());
    for (int32_t score = first_score_[g]; score < first_score_[g + 1]; ++score) scores.push_back(score);
  }
  return scores;
}

void RankingStep::apply(const std::vector<const GroupInput*>& batch, const std::vector<double>& mu,
                        const std::vector<double>& log_sigma, std::vector<double>* grad_mu,
                        std::vector<double>* grad_log_sigma) {
  const std::vector<int32_t> scores = scores_of(batch);
  const auto heads = static_cast<size_t>(heads_);
  std::vector<int32_t> place(static_cast<size_t>(first_score_.back()), -1);
  for (size_t i = 0; i < scores.size(); ++i) place[static_cast<size_t>(scores[i])] = static_cast<int32_t>(i);
  for (const Weighted& one : objectives_) {
    const RankingObjective& objective = *one.objective;
    const RankingLossOptions& options = objective.options;
    RankingInputs whole = inputs_of(objective);
    const std::vector<double> all_targets(objective.targets.begin(), objective.targets.end());
    whole.num_scores = first_score_.back();
    whole.targets = all_targets.empty() ? nullptr : all_targets.data();
    const double denominator = denominator_of(objective, whole);

    std::vector<int32_t> chosen, rejected;
    std::vector<int64_t> ids;
    std::vector<double> margins, targets;
    std::vector<uint8_t> ties;
    std::vector<int8_t> labels;
    for (size_t p = 0; p < objective.chosen.size(); ++p) {
      const int32_t winner = place[static_cast<size_t>(objective.chosen[p])],
                    loser = place[static_cast<size_t>(objective.rejected[p])];
      if (winner < 0 || loser < 0) continue;
      chosen.push_back(winner);
      rejected.push_back(loser);
      ids.push_back(static_cast<int64_t>(p));
      if (!objective.margins.empty()) margins.push_back(objective.margins[p]);
      if (!objective.ties.empty()) ties.push_back(objective.ties[p]);
      for (size_t h = 0; h < heads && !objective.labels.empty(); ++h) labels.push_back(objective.labels[p * heads + h]);
    }
    for (size_t i = 0; i < scores.size() && !all_targets.empty(); ++i) {
      for (size_t h = 0; h < heads; ++h) targets.push_back(all_targets[static_cast<size_t>(scores[i]) * heads + h]);
    }
    RankingInputs inputs = whole;
    inputs.num_scores = static_cast<int64_t>(scores.size());
    inputs.mu = mu.data();
    inputs.log_sigma = log_sigma.data();
    inputs.num_pairs = static_cast<int64_t>(chosen.size());
    inputs.chosen = chosen.data();
    inputs.rejected = rejected.data();
    inputs.pair_ids = ids.data();
    inputs.margins = margins.empty() ? nullptr : margins.data();
    inputs.ties = ties.empty() ? nullptr : ties.data();
    inputs.labels = labels.empty() ? nullptr : labels.data();
    inputs.targets = targets.empty() ? nullptr : targets.data();
    inputs.denominator = denominator;
    loss_ += one.weight * ranking_loss(options, inputs, one.weight, grad_mu->data(), grad_log_sigma->data(), &metrics_);
  }
}

void RankingStep::finish(std::map<std::string, double>* metrics) const {
  if (active()) name_ranking_metrics(metrics_, metrics);
}

}  // namespace gavel
