// layer_norm: against the double reference, bits of a row, gradients; on the TestDevice that the includer names.
#pragma once
#include "reference/kernels.h"
#include "test/golden_file.h"
#include "test/op_test.h"

namespace gavel::test {
namespace {

struct Run {
  GuardedTensor out, statistics, grad_x, grad_weight, grad_bias;
};

struct Inputs {
  GuardedTensor x, weight, bias, grad_out;
};

using Kernel = void (*)(Context&, const LayerNorm&);

Run run(Kernel forward, Kernel backward, Context& context, const Inputs& inputs, bool accumulate) {
  const Shape shape = inputs.x.tensor().shape;
  const DType dtype = inputs.x.tensor().dtype;
  Run result{poisoned_tensor(shape, dtype), poisoned_tensor({shape[0], 2}, DType::f32),
             accumulate ? random_tensor(shape, dtype, 90) : poisoned_tensor(shape, dtype),
             zero_tensor({shape[1]}, DType::f32), zero_tensor({shape[1]}, DType::f32)};
  LayerNorm p;
  p.out = result.out;
  p.statistics = result.statistics;
  p.x = inputs.x;
  p.weight = inputs.weight;
  p.bias = inputs.bias;
  p.eps = 1e-6f;
  p.grad_out = inputs.grad_out;
  p.grad_x = result.grad_x;
  p.accumulate_x = accumulate;
  p.grad_weight = result.grad_weight;
  p.grad_bias = result.grad_bias;
  forward(context, p);
  backward(context, p);
  return result;
}

Inputs random_inputs(int64_t rows, int64_t columns, DType dtype, DType weight_dtype) {
  return {random_tensor({rows, columns}, dtype, 1, 3.0, 0.7), random_tensor({columns}, weight_dtype, 2, 0.5, 1.0),
          random_tensor({columns}, weight_dtype, 4), random_tensor({rows, columns}, dtype, 3)};
}

}  // namespace

TEST("layer_norm matches the reference for odd shapes, dtypes, paths and threads, bit for bit between them") {
  for (const auto& [rows, columns] :
       {std::pair<int64_t, int64_t>{1, 2}, {3, 7}, {2, 64}, {33, 65}, {70, 200}, {129, 127}}) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      for (DType weight_dtype : {DType::f32, dtype}) {
        for (bool accumulate : {false, true}) {
          const Inputs inputs = random_inputs(rows, columns, dtype, weight_dtype);
          TestContext plain(1, Isa::generic);
          const Run expected =
              run(reference::layer_norm_forward, reference::layer_norm_backward, plain, inputs, accumulate);
          const Run first =
              run(TestDevice::layer_norm_forward, TestDevice::layer_norm_backward, plain, inputs, accumulate);
          const double tolerance = dtype == DType::f32 ? 1e-6 : 3e-3;
          CHECK_RELATIVE_L2(first.out.doubles(), expected.out.doubles(), tolerance);
          CHECK_RELATIVE_L2(first.statistics.doubles(), expected.statistics.doubles(), 1e-6);
          // With two columns the normalised row is +-1 and the gradient is zero but for rounding.
          CHECK_MAX_ABS(first.grad_x.doubles(), expected.grad_x.doubles(), dtype == DType::f32 ? 4e-6 : 3e-2);
          CHECK_RELATIVE_L2(first.grad_weight.doubles(), expected.grad_weight.doubles(), 2e-6);
          CHECK_RELATIVE_L2(first.grad_bias.doubles(), expected.grad_bias.doubles(), 2e-6);
          for (Isa isa : TestDevice::isas()) {
            for (int threads : TestDevice::threads()) {
              TestContext context(threads, isa);
              const Run other =
                  run(TestDevice::layer_norm_forward, TestDevice::layer_norm_backward, context, inputs, accumulate);
              CHECK(same_bits(first.out, other.out));
              CHECK(same_bits(first.statistics, other.statistics));
              CHECK(same_bits(first.grad_x, other.grad_x));
              CHECK(same_bits(first.grad_weight, other.grad_weight));
              CHECK(same_bits(first.grad_bias, other.grad_bias));
            }
          }
        }
      }
    }
  }
}

TEST("layer_norm gives a row the same bits alone and in any batch") {
  const int64_t columns = 193, rows = 37;
  TestContext context(2);
  for (DType dtype : {DType::f32, DType::bf16}) {
    const Inputs inputs = random_inputs(rows, columns, dtype, dtype);
    const Run all = run(TestDevice::layer_norm_forward, TestDevice::layer_norm_backward, context, inputs, false);
    for (int64_t row : {0, 1, 20, 36}) {
      const auto slice = [&](const GuardedTensor& tensor) {
        const std::vector<double> whole = tensor.doubles();
        return std::vector<double>(whole.begin() + row * columns, whole.begin() + (row + 1) * columns);
      };
      const Inputs one{
          tensor_of({1, columns}, dtype, slice(inputs.x)), tensor_of({columns}, dtype, inputs.weight.doubles()),
          tensor_of({columns}, dtype, inputs.bias.doubles()), tensor_of({1, columns}, dtype, slice(inputs.grad_out))};
      const Run alone = run(TestDevice::layer_norm_forward, TestDevice::layer_norm_backward, context, one, false);
      CHECK(alone.out.doubles() == slice(all.out));
      CHECK(alone.grad_x.doubles() == slice(all.grad_x));
    }
  }
}

TEST("layer_norm gradients agree with finite differences") {
  const int64_t rows = 3, columns = 11;
  TestContext context(1);
  const Inputs inputs = random_inputs(rows, columns, DType::f32, DType::f32);
  const std::vector<double> x = inputs.x.doubles(), weight = inputs.weight.doubles(), bias = inputs.bias.doubles();
  const std::vector<double> upstream = inputs.grad_out.doubles();
  const auto loss = [&](const std::vector<double>& at_x, const std::vector<double>& at_weight,
                        const std::vector<double>& at_bias) {
    const Inputs moved{tensor_of({rows, columns}, DType::f32, at_x), tensor_of({columns}, DType::f32, at_weight),
                       tensor_of({columns}, DType::f32, at_bias), tensor_of({rows, columns}, DType::f32, upstream)};
    return dot(
        run(TestDevice::layer_norm_forward, TestDevice::layer_norm_backward, context, moved, false).out.doubles(),
        upstream);
  };
  const Run result = run(TestDevice::layer_norm_forward, TestDevice::layer_norm_backward, context, inputs, false);
  using Values = std::vector<double>;
  CHECK_LE(gradient_error([&](const Values& at) { return loss(at, weight, bias); }, x, result.grad_x.doubles()), 5e-5);
  CHECK_LE(gradient_error([&](const Values& at) { return loss(x, at, bias); }, weight, result.grad_weight.doubles()),
           5e-5);
  CHECK_LE(gradient_error([&](const Values& at) { return loss(x, weight, at); }, bias, result.grad_bias.doubles()),
           5e-5);
}

TEST("layer_norm matches the goldens") {
  const GoldenFile golden("ops");
  TestContext context(1);
  const Inputs inputs{tensor_of({5, 24}, DType::f32, golden.values("layernorm.x")),
                      tensor_of({24}, DType::f32, golden.values("layernorm.w")),
                      tensor_of({24}, DType::f32, golden.values("layernorm.b")),
                      tensor_of({5, 24}, DType::f32, golden.values("layernorm.upstream"))};
  const Run result = run(TestDevice::layer_norm_forward, TestDevice::layer_norm_backward, context, inputs, false);
  CHECK_RELATIVE_L2(result.out.doubles(), golden.values("layernorm.out"), 3e-7);
  CHECK_RELATIVE_L2(result.grad_x.doubles(), golden.values("layernorm.grad_x"), 1e-6);
  CHECK_RELATIVE_L2(result.grad_weight.doubles(), golden.values("layernorm.grad_w"), 1e-6);
  CHECK_RELATIVE_L2(result.grad_bias.doubles(), golden.values("layernorm.grad_b"), 1e-6);
}

}  // namespace gavel::test
