// AdamW with bf16 and 8-bit moments and with bf16 values without masters, against the reference and against fp32.
#pragma once
#include "core/philox.h"
#include "reference/kernels.h"
#include "test/op_test.h"

namespace gavel::test {
namespace {

// How one parameter is kept.
struct Kept {
  DType moments;
  bool bf16_value, master;
};

constexpr Kept kPlain{DType::f32, false, false};
const std::vector<Kept>& all_kept() {
  static const std::vector<Kept> list = [] {
    std::vector<Kept> made;
    for (DType moments : {DType::f32, DType::bf16, DType::u8}) {
      for (bool bf16_value : {false, true}) {
        made.push_back({moments, bf16_value, false});
        if (bf16_value) made.push_back({moments, true, true});
      }
    }
    return made;
  }();
  return list;
}

struct State {
  Kept kept;
  int64_t count;
  GuardedTensor value, master;
  GuardedArray<uint8_t> moment1, moment2;
  GuardedArray<float> scales1, scales2;

  State(Kept how, const std::vector<double>& values)
      : kept(how),
        count(static_cast<int64_t>(values.size())),
        value(tensor_of({count}, how.bf16_value ? DType::bf16 : DType::f32, values)),
        master(tensor_of({count}, DType::f32, value.doubles())),
        moment1(std::vector<uint8_t>(values.size() * dtype_size(how.moments), 0)),
        moment2(std::vector<uint8_t>(values.size() * dtype_size(how.moments), 0)),
        scales1(std::vector<float>(static_cast<size_t>(state_blocks(count)), 0.0f)),
        scales2(std::vector<float>(static_cast<size_t>(state_blocks(count)), 0.0f)) {}

  AdamW bind() const {
    AdamW p;
    p.value = value;
    if (kept.master) p.master = master;
    p.moment1 = {moment1.data(), {count}, kept.moments};
    p.moment2 = {moment2.data(), {count}, kept.moments};
    p.scales1 = scales1;
    p.scales2 = scales2;
    p.count = count;
    p.learning_rate = 1e-2;
    p.weight_decay = 0.1;
    p.grad_scale = 0.5f;
    p.seed = 7;
    p.parameter = 99;
    return p;
  }
  std::vector<double> moment(bool first) const {
    std::vector<double> values;
    const uint8_t* bytes = first ? moment1.data() : moment2.data();
    for (int64_t i = 0; i < count; ++i) {
      if (kept.moments == DType::u8) {
        const float scale = (first ? scales1 : scales2)[i / kStateBlock];
        values.push_back(double{(first ? kSignedMap : kUnsignedMap)[bytes[i]]} * scale);
      } else if (kept.moments == DType::bf16) {
        values.push_back(bf16_to_float(reinterpret_cast<const bf16_t*>(bytes)[i]));
      } else {
        values.push_back(reinterpret_cast<const float*>(bytes)[i]);
      }
    }
    return values;
  }
  void copy_from(const State& other) {
    std::memcpy(value.memory().data(), other.value.memory().data(), value.memory().size());
    std::memcpy(master.memory().data(), other.master.memory().data(), master.memory().size());
    std::memcpy(moment1.data(), other.moment1.data(), static_cast<size_t>(moment1.count()));
    std::memcpy(moment2.data(), other.moment2.data(), static_cast<size_t>(moment2.count()));
    std::memcpy(scales1.data(), other.scales1.data(), static_cast<size_t>(scales1.count()) * sizeof(float));
    std::memcpy(scales2.data(), other.scales2.data(), static_cast<size_t>(scales2.count()) * sizeof(float));
  }
  bool same(const State& other) const {
    return same_bits(value, other.value) && same_bits(master, other.master) && same_bits(moment1, other.moment1) &&
           same_bits(moment2, other.moment2) && same_bits(scales1, other.scales1) && same_bits(scales2, other.scales2);
  }
};

void step(void (*forward)(Context&, const AdamW&), Context& context, const State& state,
          const std::vector<double>& grad, int64_t number) {
  const GuardedArray<float> grads(std::vector<float>(grad.begin(), grad.end()));
  AdamW p = state.bind();
  p.grad = grads;
  p.step = number;
  forward(context, p);
}

std::vector<double> gradient(int64_t count, int64_t number) {
  std::vector<double> values = random_values(count, static_cast<uint64_t>(100 + number), 0.1);
  // Magnitudes over four decades, as gradients have them.
  for (size_t i = 0; i < values.size(); ++i) values[i] *= std::pow(10.0, -static_cast<double>(i % 5));
  return values;
}

double share_equal(const std::vector<double>& a, const std::vector<double>& b) {
  double equal = 0;
  for (size_t i = 0; i < a.size(); ++i) equal += a[i] == b[i];
  return equal / static_cast<double>(a.size());
}

}  // namespace

TEST("adamw with every kind of state takes the reference's step") {
  for (const Kept& kept : all_kept()) {
    for (int64_t count : {1, 130, 256, 20001}) {
      TestContext context(2);
      const std::vector<double> values = random_values(count, 1);
      State expected(kept, values), actual(kept, values);
      for (int64_t number = 1; number <= 4; ++number) {
        // From the same state, so that one rounding the other way does not grow.
        actual.copy_from(expected);
        step(reference::adamw_forward, context, expected, gradient(count, number), number);
        step(TestDevice::adamw_forward, context, actual, gradient(count, number), number);
        // A value within fp32 rounding of the middle of two bf16 numbers or codes may go to the other one.
        const bool narrow = kept.bf16_value && !kept.master, coarse = kept.moments != DType::f32;
        CHECK_RELATIVE_L2(actual.value.doubles(), expected.value.doubles(), narrow || kept.master ? 2e-4 : 3e-7);
        if (kept.master) CHECK_RELATIVE_L2(actual.master.doubles(), expected.master.doubles(), 3e-7);
        CHECK_RELATIVE_L2(actual.moment(true), expected.moment(true), coarse ? 1e-3 : 3e-7);
        CHECK_RELATIVE_L2(actual.moment(false), expected.moment(false), coarse ? 1e-3 : 3e-7);
        if (count < 20001) continue;
        if (narrow) CHECK(share_equal(actual.value.doubles(), expected.value.doubles()) > 0.999);
        if (coarse) CHECK(share_equal(actual.moment1.doubles(), expected.moment1.doubles()) > 0.999);
        if (coarse) CHECK(share_equal(actual.moment2.doubles(), expected.moment2.doubles()) > 0.999);
      }
    }
  }
}

TEST("adamw with every kind of state has the same bits on every path and number of threads") {
  constexpr int64_t kCount = 20001;
  const std::vector<double> values = random_values(kCount, 1);
  for (const Kept& kept : all_kept()) {
    TestContext plain(1, Isa::generic);
    State first(kept, values);
    for (int64_t number = 1; number <= 3; ++number)
      step(TestDevice::adamw_forward, plain, first, gradient(kCount, number), number);
    for (Isa isa : TestDevice::isas()) {
      for (int threads : TestDevice::threads()) {
        TestContext context(threads, isa);
        State other(kept, values);
        for (int64_t number = 1; number <= 3; ++number)
          step(TestDevice::adamw_forward, context, other, gradient(kCount, number), number);
        CHECK(first.same(other));
      }
    }
  }
}

TEST("a positive second moment of 8 bits never becomes zero, and zero stays zero") {
  TestContext context(1);
  State state({DType::u8, false, false}, std::vector<double>(256, 0.5));
  std::vector<double> grad(256, 1e-9);
  grad[0] = 1.0;
  grad[255] = 0.0;
  step(TestDevice::adamw_forward, context, state, grad, 1);
  const std::vector<double> second = state.moment(false);
  for (size_t i = 0; i < 255; ++i) CHECK(second[i] > 0);
  CHECK_EQ(second[255], 0.0);
  CHECK_EQ(state.moment(true)[255], 0.0);
}

TEST("stochastic rounding draws from philox by (seed, parameter, step, element) and has no bias") {
  constexpr int64_t kCount = 100000;
  TestContext context(2);
  // A value a quarter of the way between two bf16 numbers, reached by a step of no size from fp32 moments.
  State state({DType::bf16, true, false}, std::vector<double>(kCount, 1.0));
  // moment1 = 0.1 g: between the bf16 neighbours 1 and 1.0078125, at a quarter.
  const double grad = (1.0 + 0.0078125 / 4) / 0.1 / 0.5;
  step(TestDevice::adamw_forward, context, state, std::vector<double>(kCount, grad), 3);
  double high = 0;
  const std::vector<double> first = state.moment(true);
  for (int64_t i = 0; i < kCount; ++i) {
    const int64_t block = i / kStateBlock, lane = i % kStateBlock;
    const auto words = random_bits({7, 99, 3, static_cast<uint32_t>(block * kDrawsPerBlock + lane % kDrawsPerBlock)});
    const uint32_t bits = words[lane < kDrawsPerBlock ? 0 : 2] & 0xffffu;
    const bool up = first[static_cast<size_t>(i)] == 1.0078125;
    CHECK(up || first[static_cast<size_t>(i)] == 1.0);
    // Of 2^16 draws the upper quarter rounds up; the few at its edge depend on the last bit of fp32.
    if (bits < 49150u) CHECK(!up);
    if (bits > 49154u) CHECK(up);
    high += up;
  }
  // Five standard deviations of a binomial.
  CHECK_NEAR(high / kCount, 0.25, 5 * std::sqrt(0.25 * 0.75 / kCount));
}

TEST("trajectories of narrow states stay near that of fp32") {
  constexpr int64_t kCount = 4096, kSteps = 200;
  const std::vector<double> start = random_values(kCount, 1);
  struct Bound {
    Kept kept;
    double limit;  // of the distance to fp32's end, over the distance fp32 went
  };
  const std::vector<Bound> bounds{{{DType::bf16, false, false}, 0.01}, {{DType::u8, false, false}, 0.1},
                                  {{DType::f32, true, true}, 1e-3},    {{DType::f32, true, false}, 0.03},
                                  {{DType::u8, true, false}, 0.1},     {{DType::bf16, true, false}, 0.03}};
  // A quadratic with curvatures over three decades and noise: every coordinate has a scale of its own.
  const auto gradient_at = [&](const std::vector<double>& x, int64_t number) {
    std::vector<double> grad = random_values(kCount, static_cast<uint64_t>(1000 + number), 0.3);
    for (size_t i = 0; i < grad.size(); ++i)
      grad[i] = std::pow(10.0, -static_cast<double>(i % 4)) * (x[i] - 3.0 + grad[i]);
    return grad;
  };
  const auto run = [&](Kept kept) {
    TestContext context(2);
    State state(kept, start);
    for (int64_t number = 1; number <= kSteps; ++number) {
      const std::vector<double> at = kept.master ? state.master.doubles() : state.value.doubles();
      step(TestDevice::adamw_forward, context, state, gradient_at(at, number), number);
    }
    return kept.master ? state.master.doubles() : state.value.doubles();
  };
  const std::vector<double> expected = run(kPlain);
  std::vector<double> moved(start.size());
  for (size_t i = 0; i < moved.size(); ++i) moved[i] = expected[i] - start[i];
  for (const Bound& bound : bounds) {
    const std::vector<double> actual = run(bound.kept);
    std::vector<double> own(start.size());
    for (size_t i = 0; i < own.size(); ++i) own[i] = actual[i] - start[i];
    const double error = relative_l2(own, moved);
    CHECK_LE(error, bound.limit);
  }
}

TEST("bf16 moments follow a change that nearest rounding would lose") {
  TestContext context(1);
  constexpr int64_t kCount = 2048;
  State state({DType::bf16, false, false}, std::vector<double>(kCount, 0.0));
  for (int64_t number = 1; number <= 2000; ++number)
    step(TestDevice::adamw_forward, context, state, std::vector<double>(kCount, 2.0), number);
  for (int64_t number = 2001; number <= 4000; ++number)
    step(TestDevice::adamw_forward, context, state, std::vector<double>(kCount, 0.2), number);
  // E[v] decays from 1 towards 0.01 with beta2 0.999; every step of nearest rounding would leave it at 1.
  const double expected = 0.01 + (1.0 - std::pow(0.999, 2000) - 0.01) * std::pow(0.999, 2000);
  double mean = 0;
  for (double value : state.moment(false)) mean += value / kCount;
  CHECK_NEAR(mean, expected, 0.03 * expected);
}

TEST("bf16 values without masters keep small updates on average") {
  TestContext context(1);
  constexpr int64_t kCount = 4096;
  State state({DType::f32, true, false}, std::vector<double>(kCount, 1.0));
  const GuardedArray<float> grads(std::vector<float>(kCount, 1.0f));
  AdamW p = state.bind();
  p.grad = grads;
  p.learning_rate = 1e-4;
  p.weight_decay = 0;
  for (p.step = 1; p.step <= 60; ++p.step) TestDevice::adamw_forward(context, p);
  double mean = 0;
  for (double value : state.value.doubles()) mean += value / kCount;
  CHECK_NEAR(mean, 1.0 - 60e-4, 3e-4);
}

TEST("adamw with narrow states leaves the padding of panels at zero") {
  for (const Kept& kept : all_kept()) {
    if (!kept.bf16_value) continue;
    TestContext context(2);
    const GuardedTensor value = panel_tensor(33, 5, DType::bf16, random_values(165, 1)),
                        grad = panel_gradient(33, 5, DType::bf16);
    for (int64_t i = 0; i < grad.count(); ++i) grad.store(grad.place(i), random_value(2, static_cast<uint64_t>(i)));
    State state(kept, std::vector<double>(static_cast<size_t>(value.storage()), 0.0));
    AdamW p = state.bind();
    p.value = value;
    p.grad = grad.tensor().f32();
    TestDevice::adamw_forward(context, p);
    CHECK(value.padding_is_zero());
    CHECK(relative_l2(value.doubles(), std::vector<double>(165, 0.0)) > 0.01);
  }
}

}  // namespace gavel::test
