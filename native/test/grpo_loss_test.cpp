#include "train/grpo_loss.h"

#include "test/op_test.h"

namespace gavel::test {
namespace {

using Values = std::vector<double>;

// Four sequences of three targets; the numbers below came from TRL 1.13 in float64.
struct Batch {
  Values logprob{-1, -.5, -2, -.7, -1.5, -.2, -.3, -.9, -1.1, -2.2, -.4, -.6};
  Values old{-1.1, -.9, -2, -.7, -1.2, -.6, -.35, -.6, -1.4, -1.7, -.4, -1};
  Values reference{-1.2, -.6, -1.7, -.9, -1, -.3, -.5, -.8, -1, -2, -.7, -.5};
  Values sampling{-1, -.95, -2.1, -.8, -1.2, -.5, -.3, -.7, -1.3, -1.9, -.4, -1.1};
  Values entropy{.9, .1, 1.4, .3, 1.1, 9, .2, 9, 9, 1.6, .5, .05};
  Values ratio;
  std::vector<uint8_t> mask{1, 1, 1, 1, 1, 0, 1, 0, 0, 1, 1, 1};
  Values advantages{0.7070067953, -0.7070067953, 0.7067070073, -0.7067070073};
  std::vector<int32_t> offsets{0, 3, 6, 9, 12};
  bool on_policy = false, with_sampling = false;
};

struct Result {
  double loss = 0;
  Values grad, grad_entropy;
  GrpoMetrics metrics;
};

GrpoLossOptions options_of(PolicyLoss loss, ImportanceLevel level = ImportanceLevel::token) {
  GrpoLossOptions options;
  options.loss = loss;
  options.level = level;
  options.num_sequences = 4;
  options.num_tokens = 9;
  options.max_completion_length = 4;
  return options;
}

// Sequences [first, last) of the batch.
Result run(const GrpoLossOptions& options, const Batch& batch, size_t first = 0, size_t last = 4) {
  Result result;
  result.grad.assign(12, std::nan(""));
  result.grad_entropy.assign(12, std::nan(""));
  GrpoLossInputs<double> inputs;
  inputs.num_sequences = static_cast<int64_t>(last - first);
  inputs.offsets = batch.offsets.data() + first;
  inputs.logprob = batch.logprob.data();
  inputs.old = batch.on_policy ? nullptr : batch.old.data();
  inputs.reference = batch.reference.data();
  inputs.sampling = batch.with_sampling ? batch.sampling.data() : nullptr;
  inputs.importance_ratio = batch.ratio.empty() ? nullptr : batch.ratio.data();
  inputs.entropy = batch.entropy.data();
  inputs.mask = batch.mask.data();
  inputs.advantages = batch.advantages.data() + first;
  result.loss = grpo_loss(options, inputs, result.grad.data(), result.grad_entropy.data(), &result.metrics);
  return result;
}

double norm(const Values& values) { return relative_l2(values, Values(values.size(), 0.0)); }

void check_golden(const Result& result, double loss, double gradient_norm, double first) {
  CHECK_NEAR(result.loss, loss, 6e-7);
  CHECK_NEAR(norm(result.grad), gradient_norm, 6e-7);
  CHECK_NEAR(result.grad[0], first, 6e-7);
  for (size_t t : {5, 7, 8}) CHECK_EQ(result.grad[t], 0.0);
}

}  // namespace

TEST("grpo_loss reproduces TRL's losses and gradients") {
  const Batch batch;
  const auto sequence = ImportanceLevel::sequence;
  GrpoLossOptions options = options_of(PolicyLoss::grpo);
  check_golden(run(options, batch), -0.027527, 0.247398, -0.065114);
  options.eps_high = 0.28;
  check_golden(run(options, batch), -0.032241, 0.247398, -0.065114);
  options.delta = 1.1;
  CHECK_NEAR(run(options, batch).loss, -0.033806, 6e-7);
  options.eps_high = 0.2;
  check_golden(run(options, batch), -0.038517, 0.221918, 0);

  options = options_of(PolicyLoss::grpo);
  options.beta = 0.04;
  Result result = run(options, batch);
  check_golden(result, -0.026221, 0.246305, -0.064377);
  CHECK_NEAR(result.metrics.kl / result.metrics.num_tokens, 0.031987, 6e-7);
  options.kl_bias_correction = false;
  result = run(options, batch);
  check_golden(result, -0.026033, 0.246596, -0.064509);
  CHECK_NEAR(result.metrics.kl / result.metrics.num_tokens, 0.036334, 6e-7);

  options = options_of(PolicyLoss::grpo, sequence);
  check_golden(run(options, batch), -0.071526, 0.265211, -0.069602);
  options.eps_low = 3e-4;
  options.eps_high = 4e-4;
  check_golden(run(options, batch), -0.000247, 0, 0);

  check_golden(run(options_of(PolicyLoss::bnpo), batch), 0.057694, 0.215829, -0.086818);
  check_golden(run(options_of(PolicyLoss::dapo), batch), 0.057694, 0.215829, -0.086818);
  check_golden(run(options_of(PolicyLoss::dr_grpo), batch), 0.032453, 0.121404, -0.048835);
  check_golden(run(options_of(PolicyLoss::sapo), batch), -0.094589, 0.268962, -0.064934);
  options = options_of(PolicyLoss::cispo);
  options.eps_high = 1.3;
  check_golden(run(options, batch), -0.019962, 0.243648, -0.086818);
  result = run(options_of(PolicyLoss::vespo), batch);
  check_golden(result, -0.214102, 0.170102, -0.030498);
  CHECK_NEAR(result.metrics.vespo_phi / 4, 0.728676, 6e-7);
  check_golden(run(options_of(PolicyLoss::luspo), batch), 0.129812, 0.485615, -0.195341);
  check_golden(run(options_of(PolicyLoss::luspo, sequence), batch), 0.004759, 0.546984, -0.208807);
}

TEST("grpo_loss reproduces TRL's masks, sampler ratios, on-policy form and entropy bonus") {
  Batch batch;
  GrpoLossOptions options = options_of(PolicyLoss::dapo);
  options.entropy_threshold = entropy_threshold<double>(12, batch.entropy.data(), batch.mask.data(), 0.5);
  check_golden(run(options, batch), 0.038812, 0.140976, -0.086818);

  options = options_of(PolicyLoss::dapo);
  options.off_policy_threshold = 0.05;
  batch.with_sampling = true;
  Result result = run(options, batch);
  check_golden(result, -0.083707, 0.201025, -0.086818);
  CHECK_EQ(result.metrics.off_policy_sequences, 1.0);
  batch.with_sampling = false;

  options = options_of(PolicyLoss::dapo);
  for (size_t t = 0; t < 12; ++t) batch.ratio.push_back(std::min(std::exp(batch.old[t] - batch.sampling[t]), 3.0));
  check_golden(run(options, batch), 0.091377, 0.224362, -0.078556);
  for (size_t s = 0; s < 4; ++s) {
    double gap = 0;
    for (size_t t = 3 * s; t < 3 * s + 3; ++t) gap += batch.mask[t] * (batch.old[t] - batch.sampling[t]);
    for (size_t t = 3 * s; t < 3 * s + 3; ++t) batch.ratio[t] = std::exp(gap) > 3 ? 0 : std::exp(gap);
  }
  check_golden(run(options, batch), 0.153712, 0.255132, -0.091269);
  batch.ratio.clear();

  batch.on_policy = true;
  check_golden(run(options, batch), 0.078490, 0.235625, -0.078556);
  batch.on_policy = false;
  options.entropy_coef = 0.01;
  result = run(options, batch);
  check_golden(result, 0.050861, 0.215829, -0.086818);
  CHECK_NEAR(result.metrics.policy_loss, 0.057694, 6e-7);
  for (size_t t = 0; t < 12; ++t) CHECK_NEAR(result.grad_entropy[t], batch.mask[t] * -0.01 / 9, 1e-15);
}

TEST("grpo_loss counts what TRL's metrics count") {
  const GrpoMetrics m = run(options_of(PolicyLoss::grpo), Batch()).metrics;
  CHECK_NEAR(m.clip_low / m.clip_count, 0.222222, 6e-7);
  CHECK_NEAR(m.clip_high / m.clip_count, 0.111111, 6e-7);
  CHECK_EQ(m.clip_low_min, 0.0);
  CHECK_NEAR(m.clip_high_max, 0.333333, 6e-7);
  CHECK_NEAR(m.entropy / m.num_tokens, 0.683333, 6e-7);
  CHECK_EQ(m.num_tokens, 9.0);
  CHECK_EQ(run(options_of(PolicyLoss::grpo, ImportanceLevel::sequence), Batch()).metrics.clip_count, 4.0);
}

TEST("grpo_loss gives the same gradient however the step is split") {
  const Batch batch;
  for (int type = 0; type < 8; ++type) {
    for (ImportanceLevel level : {ImportanceLevel::token, ImportanceLevel::sequence}) {
      GrpoLossOptions options = options_of(static_cast<PolicyLoss>(type), level);
      options.beta = 0.04;
      options.entropy_coef = 0.01;
      if (options.loss == PolicyLoss::cispo) options.eps_high = 1.3;
      const Result whole = run(options, batch);
      for (size_t cut : {1, 2, 3}) {
        const Result left = run(options, batch, 0, cut), right = run(options, batch, cut, 4);
        CHECK_NEAR(left.loss + right.loss, whole.loss, 1e-15);
        for (size_t t = 0; t < 12; ++t) {
          CHECK_EQ((t < 3 * cut ? left : right).grad[t], whole.grad[t]);
          CHECK_EQ((t < 3 * cut ? left : right).grad_entropy[t], whole.grad_entropy[t]);
        }
        GrpoMetrics merged = left.metrics;
        merged.merge(right.metrics);
        CHECK_EQ(merged.clip_low, whole.metrics.clip_low);
        CHECK_EQ(merged.clip_high_max, whole.metrics.clip_high_max);
        CHECK_NEAR(merged.kl, whole.metrics.kl, 1e-15);
      }
    }
  }
}

TEST("grpo_loss gradients agree with finite differences where nothing is detached") {
  for (PolicyLoss loss :
       {PolicyLoss::grpo, PolicyLoss::dr_grpo, PolicyLoss::dapo, PolicyLoss::sapo, PolicyLoss::luspo}) {
    for (ImportanceLevel level : {ImportanceLevel::token, ImportanceLevel::sequence}) {
      for (bool correction : {false, true}) {
        Batch batch;
        // Away from the kinks of clipping: logprob 4 differs from old by -0.3, 9 by -0.5, and so on.
        GrpoLossOptions options = options_of(loss, level);
        options.beta = 0.1;
        options.kl_bias_correction = correction;
        options.eps_low = 0.23;
        options.eps_high = 0.31;
        const auto f = [&](const Values& logprob) {
          Batch moved = batch;
          moved.logprob = logprob;
          return run(options, moved).loss;
        };
        CHECK_LE(gradient_error(f, batch.logprob, run(options, batch).grad, 0x1p-10), 1e-9);
      }
    }
  }
}

TEST("grpo_loss gradients agree with finite differences for every option") {
  using Change = void (*)(GrpoLossOptions&, Batch&);
  const Change changes[] = {
      [](GrpoLossOptions& o, Batch&) { o.dual_clip = 1.25; },
      [](GrpoLossOptions& o, Batch&) { o.dual_clip = 1.25, o.delta = 1.4; },
      [](GrpoLossOptions& o, Batch&) { o.beta = 0.3, o.kl_estimator = KlEstimator::k1; },
      [](GrpoLossOptions& o, Batch&) {
        o.beta = 0.3, o.kl_estimator = KlEstimator::k1, o.kl_bias_correction = false, o.kl_clamp = 0.25;
      },
      [](GrpoLossOptions& o, Batch&) { o.beta = 0.3, o.kl_estimator = KlEstimator::k2, o.kl_clamp = 0.25; },
      [](GrpoLossOptions& o, Batch&) { o.beta = 0.3, o.kl_estimator = KlEstimator::k2, o.kl_bias_correction = false; },
      [](GrpoLossOptions& o, Batch&) { o.beta = 0.3, o.kl_clamp = 0.25; },
      [](GrpoLossOptions& o, Batch&) { o.entropy_threshold = 0.45; },
      [](GrpoLossOptions& o, Batch& b) { o.off_policy_threshold = 0.05, b.with_sampling = true; },
      [](GrpoLossOptions& o, Batch&) { o.sapo_temperature_positive = 0.7, o.sapo_temperature_negative = 1.4; },
      [](GrpoLossOptions& o, Batch&) { o.vespo_k_positive = 1.5, o.vespo_lambda_negative = 1.2; },
      [](GrpoLossOptions& o, Batch&) { o.vespo_lambda_positive = 2.5, o.vespo_k_negative = 2.2; },
      [](GrpoLossOptions&, Batch& b) { b.ratio = {1.2, .7, 1, .9, 1.1, 1, .8, 1, 1, .6, 1.3, 2}; },
      [](GrpoLossOptions& o, Batch&) { o.entropy_coef = 0.2; },
  };
  for (int type = 0; type < 8; ++type) {
    for (ImportanceLevel level : {ImportanceLevel::token, ImportanceLevel::sequence}) {
      for (const Change change : changes) {
        GrpoLossOptions options = options_of(static_cast<PolicyLoss>(type), level);
        options.eps_low = 0.23;
        options.eps_high = options.loss == PolicyLoss::cispo ? 1.3 : 0.31;
        Batch batch;
        // A whole sequence of negative advantage beyond the dual clip.
        batch.old = {-1.1, -.9, -2, -.7, -1.2, -.6, -.35, -.6, -1.4, -2.7, -.8, -1.03};
        change(options, batch);
        // Where the ratio is a detached factor it is held still by moving the old log-prob along, and no KL may move
        // it.
        const bool detached = options.loss == PolicyLoss::cispo || options.loss == PolicyLoss::vespo;
        if (detached && options.beta != 0) continue;
        const auto f = [&](const Values& logprob) {
          Batch moved = batch;
          moved.logprob = logprob;
          for (size_t t = 0; detached && t < 12; ++t) {
            moved.old[t] += logprob[t] - batch.logprob[t];
            moved.sampling[t] += logprob[t] - batch.logprob[t];
          }
          return run(options, moved).loss;
        };
        const Result found = run(options, batch);
        CHECK_LE(gradient_error(f, batch.logprob, found.grad, 0x1p-10), 1e-9);
        if (options.entropy_coef == 0) continue;
        const auto g = [&](const Values& entropy) {
          Batch moved = batch;
          moved.entropy = entropy;
          return run(options, moved).loss;
        };
        CHECK_LE(gradient_error(g, batch.entropy, found.grad_entropy, 0x1p-10), 1e-9);
      }
    }
  }
}

TEST("grpo_loss bounds the loss of negative advantages by the dual clip alone") {
  Batch batch;
  GrpoLossOptions options = options_of(PolicyLoss::dapo);
  const Result free = run(options, batch);
  options.dual_clip = 1.25;
  const Result bound = run(options, batch);
  // Of negative advantages one ratio, exp(.4), is above 1.25.
  CHECK_NEAR(free.loss - bound.loss, (std::exp(0.4) - 1.25) * 0.7067070073 / 9, 1e-12);
  CHECK_EQ(bound.grad[11], 0.0);
  for (size_t t = 0; t < 11; ++t) CHECK_EQ(bound.grad[t], free.grad[t]);
  CHECK_EQ(bound.metrics.dual_clipped, 1.0);
  CHECK_EQ(free.metrics.dual_clipped, 0.0);
  options.dual_clip = 1.6;
  CHECK(run(options, batch).grad == free.grad);
}

TEST("grpo_loss clamps the KL exponent and ignores whatever stands at masked targets") {
  Batch batch;
  GrpoLossOptions options = options_of(PolicyLoss::grpo);
  options.beta = 1;
  options.kl_bias_correction = false;
  batch.reference[0] = batch.logprob[0] + 30;
  const Result clamped = run(options, batch);
  CHECK(clamped.loss < 3000);
  batch.reference[0] = batch.logprob[0] + 40;
  CHECK_EQ(run(options, batch).loss, clamped.loss);
  options.kl_clamp = 0;
  CHECK(run(options, batch).loss > 1e15);

  options = options_of(PolicyLoss::dapo, ImportanceLevel::sequence);
  options.beta = 0.1;
  options.entropy_coef = 0.1;
  const Result clean = run(options, Batch());
  Batch dirty;
  for (size_t t : {5, 7, 8}) dirty.logprob[t] = dirty.old[t] = dirty.reference[t] = dirty.entropy[t] = std::nan("");
  const Result same = run(options, dirty);
  CHECK_EQ(same.loss, clean.loss);
  CHECK(same.grad == clean.grad && same.grad_entropy == clean.grad_entropy);
}

TEST("grpo_loss takes empty sequences and token advantages, and float agrees with double") {
  const Batch batch;
  const std::vector<int32_t> offsets{0, 3, 3, 6};
  const Values per_token{.5, .5, .5, -.3, -.3, -.3};
  const std::vector<float> logprob(batch.logprob.begin(), batch.logprob.begin() + 6),
      old(batch.old.begin(), batch.old.begin() + 6);
  GrpoLossInputs<double> wide;
  wide.num_sequences = 3;
  wide.offsets = offsets.data();
  wide.logprob = batch.logprob.data();
  wide.old = batch.old.data();
  wide.token_advantages = per_token.data();
  GrpoLossInputs<float> narrow;
  narrow.num_sequences = 3;
  narrow.offsets = offsets.data();
  narrow.logprob = logprob.data();
  narrow.old = old.data();
  narrow.token_advantages = per_token.data();
  Values grad(6);
  std::vector<float> grad_float(6);
  GrpoLossOptions options = options_of(PolicyLoss::grpo);
  options.num_sequences = 3;
  GrpoMetrics metrics;
  const double loss = grpo_loss<double>(options, wide, grad.data(), nullptr, &metrics);
  CHECK_NEAR((grpo_loss<float>(options, narrow, grad_float.data(), nullptr, nullptr)), loss, 1e-7);
  CHECK_RELATIVE_L2((Values(grad_float.begin(), grad_float.end())), grad, 1e-6);
  CHECK_EQ(metrics.num_sequences, 3.0);
  CHECK_EQ(metrics.num_tokens, 6.0);
}

TEST("entropy_threshold is the interpolated quantile over active targets") {
  const Values entropy{5, 1, 4, 2, 99, 3};
  const std::vector<uint8_t> mask{1, 1, 1, 1, 0, 1};
  CHECK_NEAR(entropy_threshold<double>(6, entropy.data(), mask.data(), 0.5), 3, 0);
  CHECK_NEAR(entropy_threshold<double>(6, entropy.data(), mask.data(), 0.4), 3.4, 1e-12);
  CHECK_NEAR(entropy_threshold<double>(6, entropy.data(), mask.data(), 1.0), 1, 0);
  CHECK_NEAR(entropy_threshold<double>(6, entropy.data(), mask.data(), 0.0), 5, 0);
  const std::vector<uint8_t> none(6, 0);
  CHECK(entropy_threshold<double>(6, entropy.data(), none.data(), 0.5) < -1e300);
}

}  // namespace gavel::test
