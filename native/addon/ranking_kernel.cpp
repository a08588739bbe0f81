#include "addon/ranking_kernel.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "addon/arguments.h"
#include "addon/environment.h"
#include "addon/outputs.h"
#include "addon/ranking_inputs.h"
#include "train/ranking_loss.h"

namespace gavel {
namespace {

void demand_size(const Argument& argument, size_t size, size_t wanted, const char* shape) {
  if (size != wanted) argument.fail(std::to_string(wanted) + " elements (" + shape + ")");
}

[[noreturn]] void fail_at(const Argument& argument, const std::string& expected, const std::string& received,
                          size_t index, const std::string& advice = "") {
  argument.fail_as(Code::invalid_argument, expected, received + " at index " + std::to_string(index), advice);
}

// What one call was given, checked; RankingInputs points into it.
class Scores {
 public:
  Scores(const Argument& input, const RankingLossOptions& options) : options_(options) {
    heads_ = input["heads"].integer(1, 1024);
    read_scores(input);
    if (const Argument pairs = input["pairs"]; !pairs.absent() || options.loss != RankingLoss::regression)
      read_pairs(pairs);
    const Argument targets = input["targets"], weights = input["options"]["headWeights"];
    if (!targets.absent() || options.loss == RankingLoss::regression) {
      targets_ = targets.float64s();
      demand_size(targets, targets_.size(), mu_.size(), "scores x heads");
      demand_finite(targets, targets_, true);
    }
    if (!weights.absent()) {
      head_weights_ = head_weights_from(weights);
      demand_size(weights, head_weights_.size(), static_cast<size_t>(heads_), "one a head");
    }
  }

  RankingInputs view() const {
    const auto optional = [](const auto& values) { return values.empty() ? nullptr : values.data(); };
    RankingInputs view;
    view.num_scores = static_cast<int64_t>(mu_.size()) / heads_;
    view.num_heads = heads_;
    view.mu = mu_.data();
    view.log_sigma = log_sigma_.data();
    view.num_pairs = static_cast<int64_t>(chosen_.size());
    view.chosen = chosen_.data();
    view.rejected = rejected_.data();
    view.margins = optional(margins_);
    view.ties = optional(ties_);
    view.labels = optional(labels_);
    view.pair_ids = optional(ids_);
    view.targets = optional(targets_);
    view.head_weights = optional(head_weights_);
    return view;
  }

 private:
  void read_scores(const Argument& input) {
    const Argument mu = input["mu"], log_sigma = input["logSigma"];
    mu_ = mu.float64s();
    if (mu_.empty() || mu_.size() % static_cast<size_t>(heads_) != 0)
      mu.fail("a whole number of rows of " + std::to_string(heads_) + ", at least one,");
    demand_finite(mu, mu_, false);
    log_sigma_.resize(mu_.size());
    if (log_sigma.absent() && options_.loss != RankingLoss::uncertainty) return;
    log_sigma_ = log_sigma.float64s();
    demand_size(log_sigma, log_sigma_.size(), mu_.size(), "one for each of mu");
    demand_finite(log_sigma, log_sigma_, false);
  }

  std::vector<int32_t> side(const Argument& argument) const {
    std::vector<int32_t> scores = argument.int32s();
    if (scores.empty() && options_.loss != RankingLoss::regression) argument.fail("at least one score");
    const int64_t count = static_cast<int64_t>(mu_.size()) / heads_;
    for (size_t p = 0; p < scores.size(); ++p) {
      if (scores[p] < 0 || scores[p] >= count)
        fail_at(argument, "scores from 0 to " + std::to_string(count - 1), std::to_string(scores[p]), p,
                "A score is a row of `input.mu`.");
    }
    return scores;
  }

  void read_pairs(const Argument& pairs) {
    const Argument rejected = pairs["rejected"], margins = pairs["margins"], ids = pairs["ids"];
    chosen_ = side(pairs["chosen"]);
    rejected_ = side(rejected);
    demand_size(rejected, rejected_.size(), chosen_.size(), "as many as chosen");
    for (size_t p = 0; p < chosen_.size(); ++p) {
      if (chosen_[p] == rejected_[p])
        fail_at(rejected, "two scores a pair", "score " + std::to_string(chosen_[p]) + " twice", p,
                "A score does not compete with itself.");
    }
    if (!margins.absent()) {
      margins_ = margins.float64s();
      demand_size(margins, margins_.size(), chosen_.size(), "one a pair");
      demand_finite(margins, margins_, false);
    }
    if (!ids.absent()) {
      const std::vector<int32_t> keys = ids.int32s();
      demand_size(ids, keys.size(), chosen_.size(), "one a pair");
      ids_.assign(keys.begin(), keys.end());
    }
    read_preferences(pairs["ties"], pairs["labels"]);
  }

  void read_preferences(const Argument& ties, const Argument& labels) {
    const bool knows_ties =
        options_.loss == RankingLoss::bradley_terry_ties || options_.loss == RankingLoss::regression;
    const auto refuse_tie = [&](const Argument& argument, size_t index) {
      if (!knows_ties)
        fail_at(argument, "preferences", "a tie", index, "Use the loss 'bradley_terry_ties', or leave the pair out.");
    };
    if (!ties.absent()) {
      ties_ = ties.uint8s();
      demand_size(ties, ties_.size(), chosen_.size(), "one a pair");
      for (size_t p = 0; p < ties_.size(); ++p) {
        if (ties_[p] > 1) fail_at(ties, "0 or 1", std::to_string(ties_[p]), p);
        if (ties_[p] == 1) refuse_tie(ties, p);
      }
    }
    if (labels.absent()) return;
    labels_ = ranking_labels_from(labels);
    demand_size(labels, labels_.size(), chosen_.size() * static_cast<size_t>(heads_), "pairs x heads");
    for (size_t i = 0; i < labels_.size(); ++i) {
      if (labels_[i] == 0) refuse_tie(labels, i);
    }
  }

  const RankingLossOptions& options_;
  int64_t heads_ = 0;
  std::vector<double> mu_, log_sigma_, margins_, targets_, head_weights_;
  std::vector<int32_t> chosen_, rejected_;
  std::vector<int64_t> ids_;
  std::vector<uint8_t> ties_;
  std::vector<int8_t> labels_;
};

}  // namespace

Napi::Value ranking_loss_kernel(const Napi::CallbackInfo& info) {
  const Argument input(info[0], "input");
  const RankingLossOptions options = ranking_loss_options_from(input["options"]);
  const Scores scores(input, options);
  RankingInputs inputs = scores.view();
  if (const Argument count = input["stepCount"]; !count.absent()) {
    inputs.denominator = count.number();
    if (inputs.denominator <= 0) count.fail("a number > 0");
  } else {
    inputs.denominator = std::max(count_labelled(options.loss, inputs), 1.0);
  }
  const size_t size = static_cast<size_t>(inputs.num_scores * inputs.num_heads);
  std::vector<double> grad_mu(size), grad_log_sigma(size);
  RankingMetrics metrics;
  const double loss = ranking_loss(options, inputs, 1, grad_mu.data(), grad_log_sigma.data(), &metrics);
  if (!std::isfinite(loss)) {
    throw_status(info.Env(),
                 Status::error(Code::non_finite, "Expected a finite loss but received " + std::to_string(loss) +
                                                     ". Scale the scores down: doubles overflow."));
  }
  std::map<std::string, double> named;
  name_ranking_metrics(metrics, &named);

  const Napi::Env env = info.Env();
  Napi::Object result = Napi::Object::New(env);
  result.Set("loss", Napi::Number::New(env, loss));
  result.Set("gradMu", doubles_to_js(env, grad_mu));
  result.Set("gradLogSigma", doubles_to_js(env, grad_log_sigma));
  result.Set("metrics", numbers_to_js(env, named));
  return result;
}

}  // namespace gavel
