// rms_norm: against the double reference, bits of a row, gradients; on the TestDevice that the includer names.
#pragma once
#include "reference/kernels.h"
#include "test/golden_file.h"
#include "test/op_test.h"

namespace gavel::test {
namespace {

struct Run {
  GuardedTensor out, inverse_rms, grad_x, grad_weight;
};

using Kernel = void (*)(Context&, const RmsNorm&);

Run run(Kernel forward, Kernel backward, Context& context, const GuardedTensor& x, const GuardedTensor& weight,
        const GuardedTensor& grad_out, bool accumulate) {
  const Shape shape = x.tensor().shape;
  const DType dtype = x.tensor().dtype;
  Run result{poisoned_tensor(shape, dtype), poisoned_tensor({shape[0]}, DType::f32),
             accumulate ? random_tensor(shape, dtype, 90) : poisoned_tensor(shape, dtype),
             random_tensor({shape[1]}, DType::f32, 91)};
  RmsNorm p;
  p.out = result.out;
  p.inverse_rms = result.inverse_rms;
  p.x = x;
  p.weight = weight;
  p.eps = 1e-6f;
  p.grad_out = grad_out;
  p.grad_x = result.grad_x;
  p.accumulate_x = accumulate;
  p.grad_weight = result.grad_weight;
  forward(context, p);
  backward(context, p);
  return result;
}

}  // namespace

TEST("rms_norm matches the reference for odd shapes, dtypes, paths and threads, bit for bit between them") {
  for (const auto& [rows, columns] :
       {std::pair<int64_t, int64_t>{1, 1}, {3, 7}, {2, 64}, {33, 65}, {70, 200}, {5, 576}, {129, 127}}) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      for (DType weight_dtype : {DType::f32, dtype}) {
        for (bool accumulate : {false, true}) {
          const GuardedTensor x = random_tensor({rows, columns}, dtype, 1, 3.0);
          const GuardedTensor weight = random_tensor({columns}, weight_dtype, 2, 0.5, 1.0);
          const GuardedTensor grad_out = random_tensor({rows, columns}, dtype, 3);
          TestContext plain(1, Isa::generic);
          const Run expected =
              run(reference::rms_norm_forward, reference::rms_norm_backward, plain, x, weight, grad_out, accumulate);
          const Run first =
              run(TestDevice::rms_norm_forward, TestDevice::rms_norm_backward, plain, x, weight, grad_out, accumulate);
          const double tolerance = dtype == DType::f32 ? 5e-7 : 3e-3;
          CHECK_RELATIVE_L2(first.out.doubles(), expected.out.doubles(), tolerance);
          CHECK_RELATIVE_L2(first.inverse_rms.doubles(), expected.inverse_rms.doubles(), 5e-7);
          // One column leaves no direction to move in: the gradient is zero but for rounding.
          if (columns == 1) {
            CHECK_MAX_ABS(first.grad_x.doubles(), expected.grad_x.doubles(), 2e-7);
          } else {
            CHECK_RELATIVE_L2(first.grad_x.doubles(), expected.grad_x.doubles(), tolerance);
          }
          CHECK_RELATIVE_L2(first.grad_weight.doubles(), expected.grad_weight.doubles(), 1e-6);
          for (Isa isa : TestDevice::isas()) {
            for (int threads : TestDevice::threads()) {
              TestContext context(threads, isa);
              const Run other = run(TestDevice::rms_norm_forward, TestDevice::rms_norm_backward, context, x, weight,
                                    grad_out, accumulate);
              CHECK(same_bits(first.out, other.out));
              CHECK(same_bits(first.inverse_rms, other.inverse_rms));
              CHECK(same_bits(first.grad_x, other.grad_x));
              CHECK(same_bits(first.grad_weight, other.grad_weight));
            }
          }
        }
      }
    }
  }
}

TEST("rms_norm gives a row the same bits alone and in any batch") {
  const int64_t columns = 193, rows = 37;
  TestContext context(2);
  for (DType dtype : {DType::f32, DType::bf16}) {
    const std::vector<double> values = random_values(rows * columns, 5, 2.0);
    const GuardedTensor x = tensor_of({rows, columns}, dtype, values),
                        weight = random_tensor({columns}, dtype, 2, 0.5, 1.0);
    const GuardedTensor grad_out = random_tensor({rows, columns}, dtype, 3);
    const Run all =
        run(TestDevice::rms_norm_forward, TestDevice::rms_norm_backward, context, x, weight, grad_out, false);
    for (int64_t row : {0, 1, 20, 36}) {
      const auto slice = [&](const GuardedTensor& tensor) {
        const std::vector<double> whole = tensor.doubles();
        return std::vector<double>(whole.begin() + row * columns, whole.begin() + (row + 1) * columns);
      };
      const Run alone =
          run(TestDevice::rms_norm_forward, TestDevice::rms_norm_backward, context,
              tensor_of({1, columns}, dtype, slice(x)), weight, tensor_of({1, columns}, dtype, slice(grad_out)), false);
      CHECK(alone.out.doubles() == slice(all.out));
      CHECK(alone.grad_x.doubles() == slice(all.grad_x));
    }
  }
}

TEST("rms_norm gradients agree with finite differences") {
  const int64_t rows = 3, columns = 11;
  TestContext context(1);
  const std::vector<double> x = random_values(rows * columns, 1, 2.0), weight = random_values(columns, 2, 0.5, 1.0);
  const std::vector<double> upstream = random_values(rows * columns, 3);
  const GuardedTensor grad_out = tensor_of({rows, columns}, DType::f32, upstream);
  const auto loss = [&](const std::vector<double>& at_x, const std::vector<double>& at_weight) {
    const Run result =
        run(TestDevice::rms_norm_forward, TestDevice::rms_norm_backward, context,
            tensor_of({rows, columns}, DType::f32, at_x), tensor_of({columns}, DType::f32, at_weight), grad_out, false);
    return dot(result.out.doubles(), upstream);
  };
  const Run result =
      run(TestDevice::rms_norm_forward, TestDevice::rms_norm_backward, context,
          tensor_of({rows, columns}, DType::f32, x), tensor_of({columns}, DType::f32, weight), grad_out, false);
  std::vector<double> grad_weight = result.grad_weight.doubles();
  const std::vector<double> before = random_tensor({columns}, DType::f32, 91).doubles();
  for (size_t i = 0; i < grad_weight.size(); ++i) grad_weight[i] -= before[i];
  CHECK_LE(gradient_error([&](const std::vector<double>& at) { return loss(at, weight); }, x, result.grad_x.doubles()),
           2e-5);
  CHECK_LE(gradient_error([&](const std::vector<double>& at) { return loss(x, at); }, weight, grad_weight), 2e-5);
}

TEST("rms_norm matches the goldens") {
  const GoldenFile golden("ops");
  TestContext context(1);
  const Run result = run(TestDevice::rms_norm_forward, TestDevice::rms_norm_backward, context,
                         tensor_of({5, 24}, DType::f32, golden.values("rmsnorm.x")),
                         tensor_of({24}, DType::f32, golden.values("rmsnorm.w")),
                         tensor_of({5, 24}, DType::f32, golden.values("rmsnorm.upstream")), false);
  CHECK_RELATIVE_L2(result.out.doubles(), golden.values("rmsnorm.out"), 3e-7);
  CHECK_RELATIVE_L2(result.grad_x.doubles(), golden.values("rmsnorm.grad_x"), 5e-7);
  std::vector<double> expected = golden.values("rmsnorm.grad_w");
  const std::vector<double> before = random_tensor({24}, DType::f32, 91).doubles();
  for (size_t i = 0; i < expected.size(); ++i) expected[i] += before[i];
  CHECK_RELATIVE_L2(result.grad_weight.doubles(), expected, 5e-7);
}

}  // namespace gavel::test
