// dropout: against the double reference, bits of a row, gradients; on the TestDevice that the includer names.
#pragma once
#include "reference/kernels.h"
#include "test/op_test.h"

namespace gavel::test {
namespace {

struct Run {
  GuardedTensor out, grad_x;
};

using Kernel = void (*)(Context&, const Dropout&);

Run run(Kernel forward, Kernel backward, Context& context, const GuardedTensor& x, const GuardedTensor& grad_out,
        float probability, uint32_t first_row = 0, bool accumulate = false, bool by_column = false) {
  const Shape shape = x.tensor().shape;
  const DType dtype = x.tensor().dtype;
  Run result{poisoned_tensor(shape, dtype),
             accumulate ? random_tensor(shape, dtype, 9) : poisoned_tensor(shape, dtype)};
  Dropout p;
  p.out = result.out;
  p.x = x;
  p.scale = 0.75f;
  std::vector<float> scales;
  for (double value : random_values(shape[1], 11)) scales.push_back(static_cast<float>(value));
  if (by_column) p.column_scale = scales.data();
  p.probability = probability;
  p.seed = 5;
  p.site = (uint64_t{3} << 32) | 7;
  p.first_row = first_row;
  p.grad_out = grad_out;
  p.grad_x = result.grad_x;
  p.accumulate_x = accumulate;
  forward(context, p);
  backward(context, p);
  return result;
}

}  // namespace

TEST("dropout matches the reference for odd shapes, dtypes, paths and threads, bit for bit between them") {
  for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{1, 1}, {3, 7}, {33, 65}, {5, 1026}, {6, 1280}}) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      for (float probability : {0.0f, 0.3f}) {
        for (const auto& [accumulate, by_column] : {std::pair<bool, bool>{false, false}, {true, false}, {true, true}}) {
          const GuardedTensor x = random_tensor({rows, columns}, dtype, 1),
                              grad = random_tensor({rows, columns}, dtype, 3);
          TestContext plain(1, Isa::generic);
          const Run expected = run(reference::dropout_forward, reference::dropout_backward, plain, x, grad, probability,
                                   2, accumulate, by_column);
          const double tolerance = dtype == DType::f32 ? 2e-7 : 5e-3;
          Run first = run(TestDevice::dropout_forward, TestDevice::dropout_backward, plain, x, grad, probability, 2,
                          accumulate, by_column);
          CHECK_RELATIVE_L2(first.out.doubles(), expected.out.doubles(), tolerance);
          CHECK_RELATIVE_L2(first.grad_x.doubles(), expected.grad_x.doubles(), tolerance);
          for (Isa isa : TestDevice::isas()) {
            for (int threads : TestDevice::threads()) {
              TestContext context(threads, isa);
              const Run other = run(TestDevice::dropout_forward, TestDevice::dropout_backward, context, x, grad,
                                    probability, 2, accumulate, by_column);
              CHECK(same_bits(first.out, other.out));
              CHECK(same_bits(first.grad_x, other.grad_x));
            }
          }
        }
      }
    }
  }
}

TEST("dropout zeroes the stated share, keeps the mean, and a row's mask does not depend on its batch") {
  const int64_t rows = 64, columns = 512;
  TestContext context(2);
  const GuardedTensor ones = tensor_of({rows, columns}, DType::f32, std::vector<double>(rows * columns, 1.0));
  const std::vector<double> all =
      run(TestDevice::dropout_forward, TestDevice::dropout_backward, context, ones, ones, 0.25f).out.doubles();
  double zeros = 0, sum = 0;
  for (double value : all) {
    zeros += value == 0;
    sum += value;
  }
  CHECK_LE(std::fabs(zeros / static_cast<double>(all.size()) - 0.25), 0.01);
  CHECK_LE(std::fabs(sum / static_cast<double>(all.size()) - 0.75), 0.01);
  const GuardedTensor one = tensor_of({1, columns}, DType::f32, std::vector<double>(columns, 1.0));
  const std::vector<double> alone =
      run(TestDevice::dropout_forward, TestDevice::dropout_backward, context, one, one, 0.25f, 17).out.doubles();
  CHECK(alone == std::vector<double>(all.begin() + 17 * columns, all.begin() + 18 * columns));
}

TEST("dropout gradients agree with finite differences") {
  TestContext context(1);
  for (float probability : {0.0f, 0.4f}) {
    const std::vector<double> x = random_values(33, 1), upstream = random_values(33, 3);
    const GuardedTensor grad_out = tensor_of({3, 11}, DType::f32, upstream);
    const auto at = [&](const std::vector<double>& values) {
      return run(TestDevice::dropout_forward, TestDevice::dropout_backward, context,
                 tensor_of({3, 11}, DType::f32, values), grad_out, probability);
    };
    CHECK_LE(gradient_error([&](const std::vector<double>& values) { return dot(at(values).out.doubles(), upstream); },
                            x, at(x).grad_x.doubles()),
             3e-5);
  }
}

}  // namespace gavel::test
