// adamw: against the double reference, bits of a row, gradients; on the TestDevice that the includer names.
#pragma once
#include "reference/kernels.h"
#include "test/golden_file.h"
#include "test/op_test.h"

namespace gavel::test {
namespace {

struct State {
  GuardedTensor value, master, moment1, moment2;
};

struct Options {
  double learning_rate = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.01;
};

State state_of(const std::vector<double>& values, DType dtype) {
  const Shape shape{static_cast<int64_t>(values.size())};
  return {tensor_of(shape, dtype, values), tensor_of(shape, DType::f32, values), zero_tensor(shape, DType::f32),
          zero_tensor(shape, DType::f32)};
}

void step(void (*forward)(Context&, const AdamW&), Context& context, State& state, const std::vector<double>& grad,
          int64_t number, const Options& options, float grad_scale, bool with_master) {
  const GuardedArray<float> grads(std::vector<float>(grad.begin(), grad.end()));
  AdamW p;
  p.value = state.value;
  if (with_master) p.master = state.master;
  p.grad = grads;
  p.moment1 = state.moment1;
  p.moment2 = state.moment2;
  p.count = grads.count();
  p.learning_rate = options.learning_rate;
  p.beta1 = options.beta1;
  p.beta2 = options.beta2;
  p.eps = options.eps;
  p.weight_decay = options.weight_decay;
  p.step = number;
  p.grad_scale = grad_scale;
  forward(context, p);
}

}  // namespace

TEST("adamw matches the reference over steps, with the same bits on every path and number of threads") {
  for (int64_t count : {1, 17, 8192, 20001}) {
    for (bool with_master : {false, true}) {
      const DType dtype = with_master ? DType::bf16 : DType::f32;
      const std::vector<double> values = random_values(count, 1);
      Options options;
      options.weight_decay = 0.1;
      TestContext plain(1, Isa::generic);
      State expected = state_of(values, dtype), first = state_of(values, dtype);
      for (int64_t number = 1; number <= 4; ++number) {
        const std::vector<double> grad = random_values(count, static_cast<uint64_t>(10 + number), 0.1);
        step(reference::adamw_forward, plain, expected, grad, number, options, 0.5f, with_master);
        step(TestDevice::adamw_forward, plain, first, grad, number, options, 0.5f, with_master);
      }
      CHECK_RELATIVE_L2(first.value.doubles(), expected.value.doubles(), with_master ? 1e-4 : 2e-7);
      CHECK_RELATIVE_L2(first.master.doubles(), expected.master.doubles(), 2e-7);
      CHECK_RELATIVE_L2(first.moment1.doubles(), expected.moment1.doubles(), 3e-7);
      CHECK_RELATIVE_L2(first.moment2.doubles(), expected.moment2.doubles(), 3e-7);
      for (Isa isa : TestDevice::isas()) {
        for (int threads : TestDevice::threads()) {
          TestContext context(threads, isa);
          State other = state_of(values, dtype);
          for (int64_t number = 1; number <= 4; ++number) {
            step(TestDevice::adamw_forward, context, other,
                 random_values(count, static_cast<uint64_t>(10 + number), 0.1), number, options, 0.5f, with_master);
          }
          CHECK(same_bits(first.value, other.value));
          CHECK(same_bits(first.master, other.master));
          CHECK(same_bits(first.moment1, other.moment1));
          CHECK(same_bits(first.moment2, other.moment2));
        }
      }
    }
  }
}

TEST("adamw with a master keeps updates that bf16 alone would lose") {
  TestContext context(1);
  State state = state_of({1.0}, DType::bf16);
  Options options;
  options.learning_rate = 1e-4;
  options.weight_decay = 0;
  for (int64_t number = 1; number <= 60; ++number)
    step(TestDevice::adamw_forward, context, state, {1.0}, number, options, 1.0f, true);
  CHECK_NEAR(state.master.doubles()[0], 1.0 - 60e-4, 1e-5);
  CHECK_EQ(state.value.doubles()[0],
           static_cast<double>(bf16_to_float(float_to_bf16(static_cast<float>(state.master.doubles()[0])))));
  CHECK(state.value.doubles()[0] < 1.0);
}

TEST("adamw leaves the padding of panels at zero") {
  TestContext context(2);
  const GuardedTensor value = panel_tensor(33, 5, DType::bf16, random_values(165, 1)),
                      grad = panel_gradient(33, 5, DType::bf16);
  for (int64_t i = 0; i < grad.count(); ++i) grad.store(grad.place(i), random_value(2, static_cast<uint64_t>(i)));
  const GuardedArray<float> master(std::vector<float>(static_cast<size_t>(value.storage()), 0.0f));
  const GuardedTensor moment1 = zero_tensor({value.storage()}, DType::f32),
                      moment2 = zero_tensor({value.storage()}, DType::f32);
  AdamW p;
  p.value = value;
  p.master.data = master.data();
  p.master.shape = {value.storage()};
  p.grad = grad.tensor().f32();
  p.moment1 = moment1;
  p.moment2 = moment2;
  p.count = value.storage();
  p.learning_rate = 0.1;
  p.weight_decay = 0.1;
  TestDevice::adamw_forward(context, p);
  CHECK(value.padding_is_zero());
  CHECK(relative_l2(value.doubles(), std::vector<double>(165, 0.0)) > 0.1);
}

TEST("adamw matches the goldens of torch, plain and clipped") {
  const GoldenFile golden("adamw");
  const Options rl{1e-2, 0.9, 0.95, 1e-8, 0.1}, no_decay{1e-3, 0.9, 0.999, 1e-6, 0.0};
  struct Setting {
    const char* name;
    Options options;
    double clip;
  };
  for (const Setting& setting : {Setting{"default", {}, 0}, {"rl", rl, 1.0}, {"no_decay", no_decay, 0.5}}) {
    for (Isa isa : TestDevice::isas()) {
      TestContext context(1, isa);
      std::vector<State> states;
      for (const char* name : {"w", "b", "big"})
        states.push_back(state_of(golden.values(std::string("param0.") + name), DType::f32));
      for (int64_t number = 1; number <= 3; ++number) {
        double squares = 0;
        std::vector<std::vector<double>> grads;
        for (const char* name : {"w", "b", "big"}) {
          grads.push_back(golden.values("grad" + std::to_string(number - 1) + "." + name));
          for (double value : grads.back()) squares += value * value;
        }
        const double scale = setting.clip > 0 ? std::min(1.0, setting.clip / (std::sqrt(squares) + 1e-6)) : 1.0;
        for (size_t i = 0; i < states.size(); ++i) {
          const char* names[] = {"w", "b", "big"};
          step(TestDevice::adamw_forward, context, states[i], grads[i], number, setting.options,
               static_cast<float>(scale), false);
          const std::string stem = std::string(setting.name) + ".step" + std::to_string(number) + "." + names[i];
          CHECK_MAX_ABS(states[i].value.doubles(), golden.values(stem), 3e-7);
        }
      }
      CHECK_RELATIVE_L2(states[0].moment1.doubles(), golden.values(std::string(setting.name) + ".exp_avg.w"), 3e-7);
      CHECK_RELATIVE_L2(states[0].moment2.doubles(), golden.values(std::string(setting.name) + ".exp_avg_sq.w"), 3e-7);
    }
  }
}

}  // namespace gavel::test
