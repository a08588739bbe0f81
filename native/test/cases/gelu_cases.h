// gelu: against the double reference, bits of a row, gradients; on the TestDevice that the includer names.
#pragma once
#include "reference/kernels.h"
#include "test/golden_file.h"
#include "test/op_test.h"

namespace gavel::test {
namespace {

struct Run {
  GuardedTensor out, grad_x;
};

using Kernel = void (*)(Context&, const Gelu&);

Run run(Kernel forward, Kernel backward, Context& context, const GuardedTensor& x, const GuardedTensor& grad_out,
        bool tanh) {
  Run result{poisoned_tensor(x.tensor().shape, x.tensor().dtype), poisoned_tensor(x.tensor().shape, x.tensor().dtype)};
  Gelu p;
  p.out = result.out;
  p.x = x;
  p.tanh_approximation = tanh;
  p.grad_out = grad_out;
  p.grad_x = result.grad_x;
  forward(context, p);
  backward(context, p);
  return result;
}

}  // namespace

TEST("gelu matches the reference for odd shapes, dtypes, paths and threads, bit for bit between them") {
  for (const auto& [rows, columns] :
       {std::pair<int64_t, int64_t>{1, 1}, {3, 7}, {2, 64}, {33, 65}, {5, 1025}, {19, 2100}}) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      for (bool tanh : {false, true}) {
        const GuardedTensor x = random_tensor({rows, columns}, dtype, 1, 5.0),
                            grad_out = random_tensor({rows, columns}, dtype, 3);
        TestContext plain(1, Isa::generic);
        const Run expected = run(reference::gelu_forward, reference::gelu_backward, plain, x, grad_out, tanh);
        const Run first = run(TestDevice::gelu_forward, TestDevice::gelu_backward, plain, x, grad_out, tanh);
        const double tolerance = dtype == DType::f32 ? 5e-7 : 3e-3;
        CHECK_RELATIVE_L2(first.out.doubles(), expected.out.doubles(), tolerance);
        CHECK_RELATIVE_L2(first.grad_x.doubles(), expected.grad_x.doubles(), tolerance);
        for (Isa isa : TestDevice::isas()) {
          for (int threads : TestDevice::threads()) {
            TestContext context(threads, isa);
            const Run other = run(TestDevice::gelu_forward, TestDevice::gelu_backward, context, x, grad_out, tanh);
            CHECK(same_bits(first.out, other.out));
            CHECK(same_bits(first.grad_x, other.grad_x));
          }
        }
      }
    }
  }
}

// The accuracy that cpu/gelu.cpp states for Phi, on a dense grid.
TEST("gelu keeps its stated accuracy over the whole range") {
  std::vector<double> values;
  for (int i = -9000; i <= 9000; ++i) values.push_back(static_cast<float>(i * 1e-3 + 1e-7));
  const Shape shape{1, static_cast<int64_t>(values.size())};
  const GuardedTensor x = tensor_of(shape, DType::f32, values);
  const GuardedTensor ones = tensor_of(shape, DType::f32, std::vector<double>(values.size(), 1.0));
  for (Isa isa : TestDevice::isas()) {
    TestContext context(1, isa);
    const std::vector<double> out =
        run(TestDevice::gelu_forward, TestDevice::gelu_backward, context, x, ones, false).out.doubles();
    double centre = 0, whole = 0, tail = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      const double exact = 0.5 * std::erfc(-values[i] / std::sqrt(2.0)), phi = out[i] / values[i];
      const double relative = std::fabs(phi - exact) / exact;
      whole = std::max(whole, relative);
      if (std::fabs(values[i]) <= 1) centre = std::max(centre, relative);
      if (values[i] < -1) tail = std::max(tail, std::fabs(phi - exact));
    }
    CHECK_LE(whole, 2.4e-6);
    CHECK_LE(centre, 4e-7);
    CHECK_LE(tail, 1e-7);
  }
}

TEST("gelu gives a row the same bits alone and in any batch") {
  const int64_t rows = 40, columns = 77;
  TestContext context(2);
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (bool tanh : {false, true}) {
      const GuardedTensor x = random_tensor({rows, columns}, dtype, 1, 5.0),
                          grad_out = random_tensor({rows, columns}, dtype, 3);
      const Run all = run(TestDevice::gelu_forward, TestDevice::gelu_backward, context, x, grad_out, tanh);
      for (int64_t row : {0, 1, 20, 39}) {
        const auto slice = [&](const GuardedTensor& tensor) {
          const std::vector<double> whole = tensor.doubles();
          return std::vector<double>(whole.begin() + row * columns, whole.begin() + (row + 1) * columns);
        };
        const Run alone =
            run(TestDevice::gelu_forward, TestDevice::gelu_backward, context, tensor_of({1, columns}, dtype, slice(x)),
                tensor_of({1, columns}, dtype, slice(grad_out)), tanh);
        CHECK(alone.out.doubles() == slice(all.out));
        CHECK(alone.grad_x.doubles() == slice(all.grad_x));
      }
    }
  }
}

TEST("gelu stays finite for extreme inputs") {
  const std::vector<double> values{-1e30, -50, 50, 1e30};
  for (bool tanh : {false, true}) {
    TestContext context(1);
    const GuardedTensor x = tensor_of({1, 4}, DType::f32, values);
    const Run result = run(TestDevice::gelu_forward, TestDevice::gelu_backward, context, x,
                           tensor_of({1, 4}, DType::f32, {1, 1, 1, 1}), tanh);
    CHECK_MAX_ABS(result.out.doubles(), (std::vector<double>{0, 0, 50, x.doubles()[3]}), 0);
    CHECK_MAX_ABS(result.grad_x.doubles(), (std::vector<double>{0, 0, 1, 1}), 1e-25);
  }
}

TEST("gelu gradients agree with finite differences") {
  TestContext context(1);
  for (bool tanh : {false, true}) {
    const std::vector<double> x = random_values(33, 1, 4.0), upstream = random_values(33, 3);
    const GuardedTensor grad_out = tensor_of({3, 11}, DType::f32, upstream);
    const auto at = [&](const std::vector<double>& values) {
      return run(TestDevice::gelu_forward, TestDevice::gelu_backward, context, tensor_of({3, 11}, DType::f32, values),
                 grad_out, tanh);
    };
    CHECK_LE(gradient_error([&](const std::vector<double>& values) { return dot(at(values).out.doubles(), upstream); },
                            x, at(x).grad_x.doubles()),
             3e-5);
  }
}

TEST("gelu matches the goldens") {
  const GoldenFile golden("ops");
  TestContext context(1);
  for (bool tanh : {false, true}) {
    const std::string name = tanh ? "gelu_tanh" : "gelu";
    const Run result = run(TestDevice::gelu_forward, TestDevice::gelu_backward, context,
                           tensor_of({4, 33}, DType::f32, golden.values(name + ".x")),
                           tensor_of({4, 33}, DType::f32, golden.values(name + ".upstream")), tanh);
    CHECK_RELATIVE_L2(result.out.doubles(), golden.values(name + ".out"), 4e-7);
    CHECK_RELATIVE_L2(result.grad_x.doubles(), golden.values(name + ".grad_x"), 5e-7);
  }
}

}  // namespace gavel::test
