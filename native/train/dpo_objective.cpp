#include "train/dpo_objective.h"

#include "train/completions.h"

namespace gavel {
namespace {

struct Place {
  int32_t group;
  const CompletionInput* completion;
};

std::vector<Place> places_of(const std::vector<GroupInput>& groups) {
  std::vector<Place> places;
  for (size_t g = 0; g < groups.size(); ++g) {
    for (const CompletionInput& completion : groups[g].completions) {
      places.push_back({static_cast<int32_t>(g), &completion});
    }
  }
  return places;
}

}  // namespace

Status check_dpo(const DpoObjective& objective, const std::string& name, const std::vector<GroupInput>& groups) {
  const std::vector<Place> places = places_of(groups);
  const std::string pairs = "`" + name + ".pairs";
  if (objective.chosen.empty() || objective.chosen.size() != objective.rejected.size()) {
    return Status::error(Code::invalid_argument,
                         "Expected as many chosen as rejected completions, at least one, for " + pairs +
                             "` but received " + std::to_string(objective.chosen.size()) + " and " +
                             std::to_string(objective.rejected.size()) + ". A pair is one entry of each list.");
  }
  for (size_t p = 0; p < objective.chosen.size(); ++p) {
    for (const bool is_chosen : {true, false}) {
      const int32_t index = is_chosen ? objective.chosen[p] : objective.rejected[p];
      const std::string entry = pairs + (is_chosen ? ".chosen[" : ".rejected[") + std::to_string(p) + "]`";
      if (index < 0 || index >= static_cast<int32_t>(places.size())) {
        return Status::error(Code::invalid_argument,
                             "Expected an index from 0 to " + std::to_string(places.size() - 1) + " for " + entry +
                                 " but received " + std::to_string(index) +
                                 ". Completions are counted over all groups of the call, in order.");
      }
      const CompletionInput& completion = *places[static_cast<size_t>(index)].completion;
      if (completion.reference_logprobs.size() != completion.tokens.size()) {
        return Status::error(Code::invalid_argument,
                             "Expected `referenceLogprobs` for every token of completion " + std::to_string(index) +
                                 ", which " + entry + " names, but received " +
                                 std::to_string(completion.reference_logprobs.size()) + " for " +
                                 std::to_string(completion.tokens.size()) +
                                 " tokens. Score them with logprobs() of the frozen reference.");
      }
    }
    if (objective.chosen[p] == objective.rejected[p]) {
      return Status::error(Code::invalid_argument, "Expected two completions for pair " + std::to_string(p) + " of " +
                                                       pairs + "` but received completion " +
                                                       std::to_string(objective.chosen[p]) +
                                                       " twice. Leave pairs without a preference out.");
    }
  }
  return Status::success();
}

void join_pairs(const DpoObjective& objective, const std::vector<GroupInput>& groups, std::vector<GroupJoin>* joins) {
  const std::vector<Place> places = places_of(groups);
  for (size_t p = 0; p < objective.chosen.size(); ++p) {
    joins->emplace_back(places[static_cast<size_t>(objective.chosen[p])].group,
                        places[static_cast<size_t>(objective.rejected[p])].group);
  }
}

double apply_dpo(const DpoObjective& objective, const std::vector<GroupInput>& groups,
                 const std::vector<const GroupInput*>& batch, const std::vector<float>& logprobs,
                 std::vector<float>* grad_logprobs, DpoMetrics* metrics) {
  // Completions of the call, in order, as sequences of the batch; -1: in another micro-batch.
  std::vector<size_t> first_completion{0};
  for (const GroupInput& group : groups) {
    first_completion.push_back(first_completion.back() + group.completions.size());
  }
  std::vector<int32_t> sequence_of(first_completion.back(), -1);
  int32_t sequences = 0;
  for (const GroupInput* group : batch) {
    const size_t first = first_completion[static_cast<size_t>(group - groups.data())];
    for (size_t c = 0; c < group->completions.size(); ++c) sequence_of[first + c] = sequences++;
  }
  std::vector<int32_t> chosen, rejected;
  for (size_t p = 0; p < objective.chosen.size(); ++p) {
    const int32_t one = sequence_of[static_cast<size_t>(objective.chosen[p])];
    if (one < 0) continue;
    chosen.push_back(one);
    rejected.push_back(sequence_of[static_cast<size_t>(objective.rejected[p])]);
  }
  const FlatBatch flat = flatten(batch);
  std::vector<float> reference(logprobs.size());
  for_each_completion(batch, [&](const CompletionInput& completion, size_t first) {
    std::copy(completion.reference_logprobs.begin(), completion.reference_logprobs.end(),
              reference.begin() + static_cast<std::ptrdiff_t>(first));
  });

  DpoLossOptions options = objective.loss;
  if (options.num_pairs <= 0) options.num_pairs = static_cast<double>(objective.chosen.size());
  DpoLossInputs<float> inputs;
  inputs.num_pairs = static_cast<int64_t>(chosen.size());
  inputs.num_sequences = sequences;
  inputs.chosen = chosen.data();
  inputs.rejected = rejected.data();
  inputs.offsets = flat.offsets.data();
  inputs.logprob = logprobs.data();
  inputs.reference = reference.data();
  inputs.mask = flat.mask.data();
  return dpo_loss<float>(options, inputs, grad_logprobs->data(), metrics);
}

void name_dpo_metrics(const DpoMetrics& m, std::map<std::string, double>* named) {
  const double pairs = std::max(m.num_pairs, 1.0);
  (*named)["rewards/chosen"] = m.reward_chosen / pairs;
  (*named)["rewards/rejected"] = m.reward_rejected / pairs;
  (*named)["rewards/accuracies"] = m.right / pairs;
  (*named)["rewards/margins"] = (m.reward_chosen - m.reward_rejected) / pairs;
  (*named)["logps/chosen"] = m.logprob_chosen / pairs;
  (*named)["logps/rejected"] = m.logprob_rejected / pairs;
}

}  // namespace gavel
