#include "train/dpo_loss.h"

#include <cmath>

#include "test/op_test.h"
#include "train/dpo_objective.h"

namespace gavel::test {
namespace {

using Values = std::vector<double>;

// Five sequences, the fourth of them empty but for a masked target.
struct Pairs {
  Values logprob{-1, -.5, -2, -.7, -1.5, -.2, -.3, -.9, -1.1, -2.2, -.4};
  Values reference{-1.2, -.6, -1.7, -.9, -1, -.3, -.5, -.8, -1, -2, -.7};
  std::vector<uint8_t> mask{1, 1, 1, 1, 1, 0, 1, 1, 0, 1, 1};
  std::vector<int32_t> offsets{0, 3, 6, 8, 9, 11}, chosen{0, 2, 2}, rejected{1, 4, 3};
};

double run(const DpoLossOptions& options, const Pairs& pairs, Values* grad = nullptr, DpoMetrics* metrics = nullptr) {
  Values ignored(pairs.logprob.size());
  DpoLossInputs<double> inputs;
  inputs.num_pairs = static_cast<int64_t>(pairs.chosen.size());
  inputs.num_sequences = static_cast<int64_t>(pairs.offsets.size()) - 1;
  inputs.chosen = pairs.chosen.data();
  inputs.rejected = pairs.rejected.data();
  inputs.offsets = pairs.offsets.data();
  inputs.logprob = pairs.logprob.data();
  inputs.reference = pairs.reference.data();
  inputs.mask = pairs.mask.data();
  return dpo_loss<double>(options, inputs, (grad != nullptr ? grad : &ignored)->data(), metrics);
}

}  // namespace

TEST("dpo_loss gradients agree with finite differences") {
  for (DpoLoss loss : {DpoLoss::sigmoid, DpoLoss::ipo}) {
    for (double beta : {0.1, 3.0}) {
      for (double smoothing : {0.0, 0.1, 0.4}) {
        const Pairs pairs;
        const DpoLossOptions options{loss, beta, loss == DpoLoss::ipo ? 0 : smoothing, 3};
        Values grad(11, std::nan(""));
        run(options, pairs, &grad);
        const auto f = [&](const Values& logprob) {
          Pairs moved = pairs;
          moved.logprob = logprob;
          return run(options, moved);
        };
        CHECK_LE(gradient_error(f, pairs.logprob, grad, 0x1p-10), 1e-9);
        for (size_t t : {5, 8}) CHECK_EQ(grad[t], 0.0);
      }
    }
  }
}

TEST("dpo_loss reads nothing at masked targets, of single pairs adds up to all, and never overflows") {
  Pairs pairs;
  const DpoLossOptions options{DpoLoss::sigmoid, 0.1, 0.1, 3};
  Values grad(11), same(11), one(11), sum(11);
  DpoMetrics metrics, added;
  const double loss = run(options, pairs, &grad, &metrics);
  Pairs dirty = pairs;
  for (size_t t : {5, 8}) dirty.logprob[t] = dirty.reference[t] = std::nan("");
  CHECK_EQ(run(options, dirty, &same), loss);
  CHECK(same == grad);
  double total = 0;
  for (size_t p = 0; p < 3; ++p) {
    Pairs single = pairs;
    single.chosen = {pairs.chosen[p]};
    single.rejected = {pairs.rejected[p]};
    total += run(options, single, &one, &added);
    for (size_t t = 0; t < 11; ++t) sum[t] += one[t];
  }
  CHECK_NEAR(total, loss, 1e-15);
  CHECK_RELATIVE_L2(sum, grad, 1e-15);
  CHECK_EQ(added.num_pairs, metrics.num_pairs);
  CHECK_NEAR(added.reward_chosen, metrics.reward_chosen, 1e-15);
  pairs.reference[0] = 1e6;
  CHECK(std::isfinite(run(options, pairs, &grad)));
  pairs.reference[0] = -1e6;
  CHECK(std::isfinite(run(options, pairs, &grad)));
}

TEST("check_dpo names what is wrong with a pair") {
  std::vector<GroupInput> groups(2);
  groups[0].completions.resize(2);
  groups[1].completions.resize(1);
  for (GroupInput& group : groups) {
    for (CompletionInput& completion : group.completions) {
      completion.tokens = {1, 2};
      completion.reference_logprobs = {-1, -1};
    }
  }
  const auto complaint = [&](std::vector<int32_t> chosen, std::vector<int32_t> rejected) {
    DpoObjective objective;
    objective.chosen = std::move(chosen);
    objective.rejected = std::move(rejected);
    return check_dpo(objective, "objectives[0]", groups).message;
  };
  const auto says = [&](const std::string& message, const char* part) {
    CHECK(message.find(part) != std::string::npos);
  };
  CHECK_EQ(complaint({0, 2}, {1, 0}), std::string());
  says(complaint({}, {}), "received 0 and 0");
  says(complaint({0}, {1, 2}), "received 1 and 2");
  says(complaint({0, 3}, {1, 1}), "`objectives[0].pairs.chosen[1]` but received 3");
  says(complaint({0}, {-1}), "`objectives[0].pairs.rejected[0]` but received -1");
  says(complaint({1}, {1}), "received completion 1 twice");
  groups[1].completions[0].reference_logprobs.clear();
  CHECK_EQ(complaint({0}, {1}), std::string());
  says(complaint({0}, {2}), "of completion 2, which `objectives[0].pairs.rejected[0]` names");
}

}  // namespace gavel::test
