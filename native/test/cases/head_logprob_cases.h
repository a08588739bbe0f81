// head_logprob: against the double reference, gradients by finite differences, and bits: a target's results do not
// depend on its neighbours, on threads, on the instruction set, or on whether logits and tile sums were asked for.
#pragma once
#include "core/philox.h"
#include "reference/kernels.h"
#include "test/gemm_path.h"

namespace gavel::test {
namespace {

constexpr DType kDTypes[] = {DType::f32, DType::bf16};

struct Outputs {
  GuardedArray<float> logprob, log_normalizer, entropy, logits, tile_sums;
  Outputs(int64_t targets, int64_t vocabulary)
      : logprob(targets),
        log_normalizer(targets),
        entropy(targets),
        logits(targets * vocabulary),
        tile_sums(targets * ((vocabulary + kVocabularyTile - 1) / kVocabularyTile) * 2) {}
  void attach(HeadLogprob& p) const {
    p.logprob = logprob;
    p.log_normalizer = log_normalizer;
    p.entropy = entropy;
    p.logits = logits;
    p.tile_sums = tile_sums;
  }
};

// Owns the inputs: `targets` ascending rows, about one in three repeats its predecessor's row.
struct Problem {
  int64_t rows, vocabulary, hidden_size, targets;
  DType dtype;
  GuardedTensor hidden, weight;
  std::vector<int32_t> row_of, tokens;
  std::vector<float> inverse_temperature, grad_logprob, grad_entropy;

  Problem(int64_t rows_, int64_t vocabulary_, int64_t hidden_, int64_t targets_, DType dtype_, uint64_t seed)
      : rows(rows_),
        vocabulary(vocabulary_),
        hidden_size(hidden_),
        targets(targets_),
        dtype(dtype_),
        hidden(random_tensor({rows, hidden_size}, dtype, seed)),
        weight(panel_tensor(vocabulary, hidden_size, dtype, random_values(vocabulary * hidden_size, seed + 1))) {
    for (int64_t i = 0; i < targets; ++i) {
      const auto bits = random_bits({seed + 2, static_cast<uint64_t>(i), 0, 0});
      const bool repeat = i > 0 && (i < targets / 3 || bits[0] % 3 == 0);
      const int32_t next = i == 0 ? 1 : row_of.back() + 1;
      row_of.push_back(std::min<int32_t>(repeat ? row_of.back() : next, static_cast<int32_t>(rows - 1)));
      tokens.push_back(static_cast<int32_t>(bits[1] % static_cast<uint32_t>(vocabulary)));
      inverse_temperature.push_back(i % 4 == 0 ? 1.0f : 0.5f + static_cast<float>(bits[2] % 100) * 0.01f);
      grad_logprob.push_back(static_cast<float>(random_value(seed + 3, static_cast<uint64_t>(i))));
      grad_entropy.push_back(static_cast<float>(random_value(seed + 4, static_cast<uint64_t>(i))));
    }
  }
  HeadLogprob parameters(int64_t begin = 0, int64_t end = -1) const {
    HeadLogprob p;
    p.hidden = hidden;
    p.weight = weight;
    p.num_targets = static_cast<int32_t>((end < 0 ? targets : end) - begin);
    p.rows = row_of.data() + begin;
    p.tokens = tokens.data() + begin;
    p.inverse_temperature = inverse_temperature.data() + begin;
    p.grad_logprob = grad_logprob.data() + begin;
    return p;
  }
};

double tolerance_of(DType dtype) { return dtype == DType::bf16 ? 6e-3 : 5e-6; }

}  // namespace

TEST("head_logprob: forward and gradients match the double reference") {
  for (PathCase path : TestDevice::paths()) {
    PathContext context(2, path);
    uint64_t seed = 50;
    for (DType dtype : kDTypes) {
      for (auto [vocabulary, hidden, targets] :
           {std::array<int64_t, 3>{1, 3, 2}, {255, 33, 5}, {770, 65, 40}, {1310, 48, 131}}) {
        const Problem problem(targets + 5, vocabulary, hidden, targets, dtype, seed += 10);
        const Outputs got(targets, vocabulary), want(targets, vocabulary);
        HeadLogprob p = problem.parameters();
        got.attach(p);
        TestDevice::head_logprob_forward(context, p);
        want.attach(p);
        reference::head_logprob_forward(context, p);
        CHECK_MAX_ABS(got.logprob.doubles(), want.logprob.doubles(), 2e-5);
        CHECK_MAX_ABS(got.log_normalizer.doubles(), want.log_normalizer.doubles(), 1e-5);
        CHECK_MAX_ABS(got.entropy.doubles(), want.entropy.doubles(), 2e-5);
        CHECK_MAX_ABS(got.logits.doubles(), want.logits.doubles(), 2e-5);
        CHECK_RELATIVE_L2(got.tile_sums.doubles(), want.tile_sums.doubles(), 2e-6);

        for (bool with_entropy : {false, true}) {
          p.grad_entropy = with_entropy ? problem.grad_entropy.data() : nullptr;
          std::vector<double> results[2][2];
          for (int side = 0; side < 2; ++side) {
            const GuardedTensor grad_hidden = poisoned_tensor({problem.rows, hidden}, dtype);
            GuardedTensor grad_weight = panel_gradient(vocabulary, hidden, dtype);
            grad_weight.assign(random_values(vocabulary * hidden, seed + 5, 0.01));
            p.grad_hidden = grad_hidden;
            p.grad_weight = grad_weight;
            side == 0 ? TestDevice::head_logprob_backward(context, p) : reference::head_logprob_backward(context, p);
            CHECK(grad_weight.padding_is_zero());
            CHECK_EQ(grad_hidden.load(0), 0.0);  // row 0 carries no target
            results[side][0] = grad_hidden.doubles();
            results[side][1] = grad_weight.doubles();
          }
          CHECK_RELATIVE_L2(results[0][0], results[1][0], vocabulary == 1 ? 1.0 : tolerance_of(dtype));
          CHECK_RELATIVE_L2(results[0][1], results[1][1], tolerance_of(dtype));
        }
      }
    }
  }
}

TEST("head_logprob: reference gradients are finite differences of the reference") {
  TestContext context;
  Problem problem(3, 7, 4, 4, DType::f32, 3);
  const Outputs outputs(problem.targets, problem.vocabulary);
  const GuardedTensor grad_hidden = poisoned_tensor({3, 4}, DType::f32);
  const GuardedTensor grad_weight = panel_gradient(7, 4, DType::f32);
  HeadLogprob p = problem.parameters();
  outputs.attach(p);
  p.grad_entropy = problem.grad_entropy.data();
  p.grad_hidden = grad_hidden;
  p.grad_weight = grad_weight;
  reference::head_logprob_forward(context, p);
  reference::head_logprob_backward(context, p);
  const std::vector<double> hidden = problem.hidden.doubles(), weight = problem.weight.doubles();
  const auto loss = [&](const std::vector<double>& h, const std::vector<double>& w) {
    problem.hidden.assign(h);
    problem.weight.assign(w);
    reference::head_logprob_forward(context, p);
    double total = 0;
    for (int64_t i = 0; i < problem.targets; ++i) {
      const auto at = static_cast<size_t>(i);
      total +=
          double{outputs.logprob[i]} * problem.grad_logprob[at] + double{outputs.entropy[i]} * problem.grad_entropy[at];
    }
    return total;
  };
  CHECK_LE(gradient_error([&](const auto& v) { return loss(v, weight); }, hidden, grad_hidden.doubles()), 1e-4);
  CHECK_LE(gradient_error([&](const auto& v) { return loss(hidden, v); }, weight, grad_weight.doubles()), 1e-4);
}

TEST("head_logprob: a target's bits do not depend on neighbours, outputs asked for, threads or instruction set") {
  for (DType dtype : kDTypes) {
    const int64_t vocabulary = 1003, targets = 90;
    const Problem problem(80, vocabulary, 67, targets, dtype, 9);
    for (PathCase path : TestDevice::paths()) {
      const Outputs gold(targets, vocabulary);
      PathContext alone(1, gold_path(path));
      for (int64_t i = 0; i < targets; ++i) {
        HeadLogprob p = problem.parameters(i, i + 1);
        p.logprob = gold.logprob + i;
        p.log_normalizer = gold.log_normalizer + i;
        p.entropy = gold.entropy + i;
        p.logits = gold.logits + i * vocabulary;
        p.tile_sums = gold.tile_sums + i * 8;
        TestDevice::head_logprob_forward(alone, p);
      }
      for (int threads : TestDevice::threads()) {
        PathContext context(threads, path);
        for (int64_t count : {1, 2, 3, 4, 5, 7, 13, 14, 15, 29, 90}) {
          const int64_t first = random_bits({static_cast<uint64_t>(count), 3, 0, 0})[0] % (targets - count + 1);
          const Outputs all(count, vocabulary), few(count, vocabulary), draw(count, vocabulary);
          HeadLogprob p = problem.parameters(first, first + count);
          all.attach(p);
          TestDevice::head_logprob_forward(context, p);
          p.logits = p.tile_sums = p.entropy = nullptr;
          p.logprob = few.logprob;
          p.log_normalizer = few.log_normalizer;
          TestDevice::head_logprob_forward(context, p);
          draw.attach(p);
          p.tokens = nullptr;
          TestDevice::head_logprob_forward(context, p);
          const auto same = [&](const float* left, const GuardedArray<float>& right, int64_t per_target) {
            return std::memcmp(left, right + first * per_target, static_cast<size_t>(count * per_target) * 4) == 0;
          };
          CHECK(same(all.logprob, gold.logprob, 1));
          CHECK(same(all.log_normalizer, gold.log_normalizer, 1));
          CHECK(same(all.entropy, gold.entropy, 1));
          CHECK(same(all.logits, gold.logits, vocabulary));
          CHECK(same(all.tile_sums, gold.tile_sums, 8));
          CHECK(same(few.logprob, gold.logprob, 1));
          CHECK(same(few.log_normalizer, gold.log_normalizer, 1));
          CHECK(same(draw.log_normalizer, gold.log_normalizer, 1));
          CHECK(same(draw.logits, gold.logits, vocabulary));
          CHECK(same(draw.tile_sums, gold.tile_sums, 8));
          CHECK(draw.logprob[0] != draw.logprob[0]);  // no tokens: still the poison
        }
      }
    }
  }
}

TEST("head_logprob: logits are linear's bits, scaled") {
  const FlushDenormals flush;
  for (DType dtype : kDTypes) {
    // fp32 output of a bf16 product exists only here, so linear is asked in the dtype it stores.
    const int64_t vocabulary = 300, targets = 20;
    const Problem problem(25, vocabulary, 64, targets, dtype, 17);
    const Outputs outputs(targets, vocabulary);
    for (PathCase path : TestDevice::paths()) {
      PathContext context(2, path);
      HeadLogprob p = problem.parameters();
      outputs.attach(p);
      TestDevice::head_logprob_forward(context, p);
      const GuardedTensor out = poisoned_tensor({problem.rows, vocabulary}, dtype);
      Linear linear;
      linear.x = problem.hidden;
      linear.weight = problem.weight;
      linear.out = out;
      TestDevice::linear_forward(context, linear);
      int64_t different = 0;
      for (int64_t i = 0; i < targets; i += 4) {  // temperature 1
        for (int64_t v = 0; v < vocabulary; ++v) {
          const GuardedTensor rounded({1}, dtype);
          rounded.store(0, outputs.logits[i * vocabulary + v]);
          different += rounded.load(0) != out.load(problem.row_of[static_cast<size_t>(i)] * vocabulary + v);
        }
      }
      CHECK_EQ(different, 0);
    }
  }
}

TEST(
    "head_logprob: gradient bits do not depend on threads or instruction set; a frozen head gives the same "
    "grad_hidden") {
  for (DType dtype : kDTypes) {
    // 1300 targets of which the first 1100 share a row: more than one block of rows, and a row carried across blocks.
    const int64_t vocabulary = 300, hidden = 34, targets = 1300;
    Problem problem(targets, vocabulary, hidden, targets, dtype, 23);
    for (int64_t i = 0; i < 1100; ++i) problem.row_of[static_cast<size_t>(i)] = 0;
    for (float& value : problem.grad_entropy) value *= 0.1f;
    const Outputs outputs(targets, vocabulary);
    const GuardedTensor want_hidden = poisoned_tensor({problem.rows, hidden}, dtype);
    const GuardedTensor want_weight = panel_gradient(vocabulary, hidden, dtype);
    HeadLogprob p = problem.parameters();
    outputs.attach(p);
    p.grad_entropy = problem.grad_entropy.data();
    p.grad_hidden = want_hidden;
    p.grad_weight = want_weight;
    TestContext plain(1);
    reference::head_logprob_backward(plain, p);
    for (PathCase path : TestDevice::paths()) {
      const GuardedTensor gold_hidden = poisoned_tensor({problem.rows, hidden}, dtype);
      const GuardedTensor gold_weight = panel_gradient(vocabulary, hidden, dtype);
      p.grad_hidden = gold_hidden;
      p.grad_weight = gold_weight;
      PathContext gold(1, gold_path(path));
      TestDevice::head_logprob_forward(gold, p);
      TestDevice::head_logprob_backward(gold, p);
      CHECK_RELATIVE_L2(gold_hidden.doubles(), want_hidden.doubles(), tolerance_of(dtype));
      CHECK_RELATIVE_L2(gold_weight.doubles(), want_weight.doubles(), tolerance_of(dtype));
      // A chunk of the vocabulary grows with the threads, and a block of rows shrinks: neither may show.
      for (int threads : TestDevice::threads()) {
        PathContext context(threads, path);
        const GuardedTensor grad_hidden = poisoned_tensor({problem.rows, hidden}, dtype);
        const GuardedTensor frozen = poisoned_tensor({problem.rows, hidden}, dtype);
        const GuardedTensor grad_weight = panel_gradient(vocabulary, hidden, dtype);
        p.grad_hidden = grad_hidden;
        p.grad_weight = grad_weight;
        TestDevice::head_logprob_backward(context, p);
        CHECK(same_bits(grad_hidden, gold_hidden));
        CHECK(same_bits(grad_weight, gold_weight));
        p.grad_hidden = frozen;
        p.grad_weight = {};
        TestDevice::head_logprob_backward(context, p);
        CHECK(same_bits(frozen, gold_hidden));
      }
    }
  }
}

TEST("head_logprob: extreme logits, no targets, bounded memory") {
  TestContext context(2);
  // One logit far above all others: probability 1, entropy 0, no NaN.
  const int64_t vocabulary = 600, hidden = 2;
  std::vector<double> values(static_cast<size_t>(vocabulary * hidden), 0.0);
  values[2 * 300] = 500.0;
  values[2 * 301] = -3e38;
  const GuardedTensor weight = panel_tensor(vocabulary, hidden, DType::f32, values);
  const GuardedTensor row = tensor_of({1, hidden}, DType::f32, {1.0, 0.0});
  const Outputs outputs(1, vocabulary);
  const int32_t rows[1] = {0}, tokens[1] = {300};
  const float one[1] = {1.0f}, grad[1] = {1.0f};
  HeadLogprob p;
  p.hidden = row;
  p.weight = weight;
  p.num_targets = 1;
  p.rows = rows;
  p.tokens = tokens;
  p.inverse_temperature = one;
  outputs.attach(p);
  TestDevice::head_logprob_forward(context, p);
  CHECK_EQ(outputs.logprob[0], 0.0f);
  CHECK_EQ(outputs.entropy[0], 0.0f);
  const GuardedTensor grad_hidden = poisoned_tensor({1, hidden}, DType::f32);
  p.grad_hidden = grad_hidden;
  p.grad_logprob = grad;
  p.grad_entropy = grad;
  TestDevice::head_logprob_backward(context, p);
  CHECK_EQ(grad_hidden.load(0), 0.0);
  CHECK_EQ(grad_hidden.load(1), 0.0);

  grad_hidden.memory();
  p.num_targets = 0;
  TestDevice::head_logprob_forward(context, p);
  TestDevice::head_logprob_backward(context, p);
  CHECK_EQ(grad_hidden.load(0), 0.0);

  const Problem large(700, 5000, 64, 700, DType::f32, 31);
  const Outputs results(large.targets, 1);
  const GuardedTensor large_grad = panel_gradient(large.vocabulary, large.hidden_size, DType::f32);
  const GuardedTensor large_hidden = poisoned_tensor({large.rows, large.hidden_size}, DType::f32);
  HeadLogprob q = large.parameters();
  q.logprob = results.logprob;
  q.log_normalizer = results.log_normalizer;
  q.grad_weight = large_grad;
  q.grad_hidden = large_hidden;
  TestContext fresh(2);
  TestDevice::head_logprob_forward(fresh, q);
  TestDevice::head_logprob_backward(fresh, q);
  CHECK_LE(static_cast<double>(fresh.scratch.size_bytes()), 16e6);
}

}  // namespace gavel::test
