// swiglu: against the double reference, bits of a row, gradients; on the TestDevice that the includer names.
#pragma once
#include "reference/kernels.h"
#include "test/golden_file.h"
#include "test/op_test.h"

namespace gavel::test {
namespace {

struct Run {
  GuardedTensor out, grad_x;
};

using Kernel = void (*)(Context&, const Swiglu&);

Run run(Kernel forward, Kernel backward, Context& context, const GuardedTensor& x, const GuardedTensor& grad_out) {
  Run result{poisoned_tensor(grad_out.tensor().shape, x.tensor().dtype),
             poisoned_tensor(x.tensor().shape, x.tensor().dtype)};
  Swiglu p;
  p.out = result.out;
  p.x = x;
  p.grad_out = grad_out;
  p.grad_x = result.grad_x;
  forward(context, p);
  backward(context, p);
  return result;
}

// [rows, F] and [rows, F] side by side.
std::vector<double> beside(const std::vector<double>& left, const std::vector<double>& right, size_t columns) {
  std::vector<double> result;
  for (size_t begin = 0; begin < left.size(); begin += columns) {
    result.insert(result.end(), left.begin() + static_cast<int64_t>(begin),
                  left.begin() + static_cast<int64_t>(begin + columns));
    result.insert(result.end(), right.begin() + static_cast<int64_t>(begin),
                  right.begin() + static_cast<int64_t>(begin + columns));
  }
  return result;
}

}  // namespace

TEST("swiglu matches the reference for odd shapes, dtypes, paths and threads, bit for bit between them") {
  for (const auto& [rows, columns] :
       {std::pair<int64_t, int64_t>{1, 1}, {3, 7}, {2, 64}, {33, 65}, {5, 1025}, {19, 2100}}) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      const GuardedTensor x = random_tensor({rows, 2 * columns}, dtype, 1, 6.0);
      const GuardedTensor grad_out = random_tensor({rows, columns}, dtype, 3);
      TestContext plain(1, Isa::generic);
      const Run expected = run(reference::swiglu_forward, reference::swiglu_backward, plain, x, grad_out);
      const Run first = run(TestDevice::swiglu_forward, TestDevice::swiglu_backward, plain, x, grad_out);
      const double tolerance = dtype == DType::f32 ? 3e-7 : 3e-3;
      CHECK_RELATIVE_L2(first.out.doubles(), expected.out.doubles(), tolerance);
      CHECK_RELATIVE_L2(first.grad_x.doubles(), expected.grad_x.doubles(), tolerance);
      for (Isa isa : TestDevice::isas()) {
        for (int threads : TestDevice::threads()) {
          TestContext context(threads, isa);
          const Run other = run(TestDevice::swiglu_forward, TestDevice::swiglu_backward, context, x, grad_out);
          CHECK(same_bits(first.out, other.out));
          CHECK(same_bits(first.grad_x, other.grad_x));
        }
      }
    }
  }
}

TEST("swiglu gives a row the same bits alone and in any batch") {
  const int64_t rows = 40, columns = 77;
  TestContext context(2);
  for (DType dtype : {DType::f32, DType::bf16}) {
    const GuardedTensor x = random_tensor({rows, 2 * columns}, dtype, 1, 6.0),
                        grad_out = random_tensor({rows, columns}, dtype, 3);
    const Run all = run(TestDevice::swiglu_forward, TestDevice::swiglu_backward, context, x, grad_out);
    for (int64_t row : {0, 1, 20, 39}) {
      const auto slice = [&](const GuardedTensor& tensor, int64_t width) {
        const std::vector<double> whole = tensor.doubles();
        return std::vector<double>(whole.begin() + row * width, whole.begin() + (row + 1) * width);
      };
      const Run alone = run(TestDevice::swiglu_forward, TestDevice::swiglu_backward, context,
                            tensor_of({1, 2 * columns}, dtype, slice(x, 2 * columns)),
                            tensor_of({1, columns}, dtype, slice(grad_out, columns)));
      CHECK(alone.out.doubles() == slice(all.out, columns));
      CHECK(alone.grad_x.doubles() == slice(all.grad_x, 2 * columns));
    }
  }
}

TEST("swiglu stays finite for extreme gates") {
  TestContext context(1);
  const GuardedTensor x = tensor_of({1, 8}, DType::f32, {-1e30, -100, 100, 1e30, 1, 1, 1, 1});
  const Run result = run(TestDevice::swiglu_forward, TestDevice::swiglu_backward, context, x,
                         tensor_of({1, 4}, DType::f32, {1, 1, 1, 1}));
  CHECK_MAX_ABS(result.out.doubles(), (std::vector<double>{0, 0, 100, x.doubles()[3]}), 1e-30);
  CHECK_MAX_ABS(result.grad_x.doubles(), (std::vector<double>{0, 0, 1, 1, 0, 0, 100, x.doubles()[3]}), 1e-30);
}

TEST("swiglu gradients agree with finite differences") {
  const int64_t rows = 3, columns = 9;
  TestContext context(1);
  const std::vector<double> x = random_values(rows * 2 * columns, 1, 4.0), upstream = random_values(rows * columns, 3);
  const GuardedTensor grad_out = tensor_of({rows, columns}, DType::f32, upstream);
  const auto at = [&](const std::vector<double>& values) {
    return run(TestDevice::swiglu_forward, TestDevice::swiglu_backward, context,
               tensor_of({rows, 2 * columns}, DType::f32, values), grad_out);
  };
  CHECK_LE(gradient_error([&](const std::vector<double>& values) { return dot(at(values).out.doubles(), upstream); }, x,
                          at(x).grad_x.doubles()),
           2e-5);
}

TEST("swiglu matches the goldens") {
  const GoldenFile golden("ops");
  TestContext context(1);
  const Run result =
      run(TestDevice::swiglu_forward, TestDevice::swiglu_backward, context,
          tensor_of({4, 66}, DType::f32, beside(golden.values("swiglu.g"), golden.values("swiglu.u"), 33)),
          tensor_of({4, 33}, DType::f32, golden.values("swiglu.upstream")));
  CHECK_RELATIVE_L2(result.out.doubles(), golden.values("swiglu.out"), 3e-7);
  CHECK_RELATIVE_L2(result.grad_x.doubles(), beside(golden.values("swiglu.grad_g"), golden.values("swiglu.grad_u"), 33),
                    3e-7);
}

}  // namespace gavel::test
