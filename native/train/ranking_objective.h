// The ranking objectives of one step: pairs and targets name scores of the call by index (reward tokens in order of
// groups, a prompt before its completions); each micro-batch gives its own share. Job thread only.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "core/status.h"
#include "model/input.h"
#include "train/micro_batches.h"
#include "train/ranking_loss.h"

namespace gavel {

struct RankingObjective {
  RankingLossOptions options;
  std::vector<int32_t> chosen, rejected;  // [P]
  std::vector<float> margins;             // [P] or empty
  std::vector<uint8_t> ties;              // [P] or empty
  std::vector<int8_t> labels;             // [P, H] or empty: heads are fused
  std::vector<float> targets;             // [S, H] or empty; NaN where missing
  std::vector<double> head_weights;       // [H] or empty
  double step_count = 0;  // labelled pairs (regression: scores with a target) of the step; 0: the call's
};

class RankingStep {
 public:
  // `heads` 0: the model has no reward head.
  RankingStep(const std::vector<GroupInput>& groups, int32_t reward_token, int32_t heads);
  // `weight` 0 leaves it out.
  void add(double weight, const RankingObjective& objective);

  bool active() const { return !objectives_.empty(); }
  // `mixed`: other objectives train too, so a group without a reward token, or a score that nothing reads, is no
  // mistake. Errors: invalid_argument.
  Status check(bool mixed) const;
  // What check() has passed.
  std::vector<GroupJoin> links() const;

  // Adds the loss of the groups `batch`, whose scores mu and log sigma [S, H] stand in their order, and the gradients.
  void apply(const std::vector<const GroupInput*>& batch, const std::vector<double>& mu,
             const std::vector<double>& log_sigma, std::vector<double>* grad_mu, std::vector<double>* grad_log_sigma);
  double loss() const { return loss_; }
  void finish(std::map<std::string, double>* metrics) const;

 private:
  struct Weighted {
    double weight;
    const RankingObjective* objective;
  };
  Status check_objective(const RankingObjective& objective, std::vector<uint8_t>* read) const;
  int32_t group_of(int32_t score) const;
  // The call's scores in the batch, in its order.
  std::vector<int32_t> scores_of(const std::vector<const GroupInput*>& batch) const;
  RankingInputs inputs_of(const RankingObjective& objective) const;

  const std::vector<GroupInput>& groups_;
  int32_t heads_;
  std::vector<int32_t> first_score_;  // [groups + 1]
  std::vector<Weighted> objectives_;
  double loss_ = 0;
  RankingMetrics metrics_;
};

}  // namespace gavel
