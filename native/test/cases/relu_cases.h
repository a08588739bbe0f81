// relu: bits of the reference, gradient by finite differences away from the kink.
#pragma once
#include "reference/kernels.h"
#include "test/op_test.h"

namespace gavel::test {

TEST("relu equals the reference and its gradient the finite difference") {
  for (const auto& [rows, columns] : {std::array<int64_t, 2>{1, 1}, {7, 33}, {0, 5}, {130, 200}}) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      GuardedTensor x = random_tensor({rows, columns}, dtype, 1);
      const GuardedTensor grad_out = random_tensor({rows, columns}, dtype, 2);
      if (x.count() > 2) x.store(1, 0.0);
      for (Isa isa : TestDevice::isas()) {
        TestContext context(2, isa);
        const GuardedTensor out = poisoned_tensor({rows, columns}, dtype),
                            want = poisoned_tensor({rows, columns}, dtype),
                            grad = poisoned_tensor({rows, columns}, dtype),
                            want_grad = poisoned_tensor({rows, columns}, dtype);
        Relu p;
        p.x = x;
        p.grad_out = grad_out;
        p.out = out;
        p.grad_x = grad;
        TestDevice::relu_forward(context, p);
        TestDevice::relu_backward(context, p);
        p.out = want;
        p.grad_x = want_grad;
        reference::relu_forward(context, p);
        reference::relu_backward(context, p);
        CHECK(same_bits(out, want));
        CHECK(same_bits(grad, want_grad));
      }
    }
  }
  // Values at least 1/4 away from 0, so that every step of the difference stays on one side.
  std::vector<double> at = random_values(40, 3);
  for (double& value : at) value += value < 0 ? -0.25 : 0.25;
  const std::vector<double> upstream = random_values(40, 4);
  TestContext context;
  const auto run = [&](const std::vector<double>& values, GuardedTensor* grad) {
    const GuardedTensor x = tensor_of({8, 5}, DType::f32, values), out = poisoned_tensor({8, 5}, DType::f32),
                        grad_out = tensor_of({8, 5}, DType::f32, upstream);
    Relu p;
    p.x = x;
    p.out = out;
    TestDevice::relu_forward(context, p);
    if (grad != nullptr) {
      p.grad_out = grad_out;
      p.grad_x = *grad;
      TestDevice::relu_backward(context, p);
    }
    return dot(out.doubles(), upstream);
  };
  GuardedTensor grad = poisoned_tensor({8, 5}, DType::f32);
  run(at, &grad);
  CHECK_LE(gradient_error([&](const std::vector<double>& values) { return run(values, nullptr); }, at, grad.doubles()),
           1e-5);
}

TEST("relu keeps NaN and has no gradient at zero") {
  TestContext context;
  const GuardedTensor x = tensor_of({1, 3}, DType::f32, {std::numeric_limits<double>::quiet_NaN(), 0.0, -0.0}),
                      out = poisoned_tensor({1, 3}, DType::f32), grad = poisoned_tensor({1, 3}, DType::f32),
                      grad_out = tensor_of({1, 3}, DType::f32, {1, 1, 1});
  Relu p;
  p.x = x;
  p.out = out;
  p.grad_out = grad_out;
  p.grad_x = grad;
  TestDevice::relu_forward(context, p);
  TestDevice::relu_backward(context, p);
  CHECK(std::isnan(out.load(0)));
  CHECK(out.load(1) == 0.0 && out.load(2) == 0.0);
  CHECK(grad.load(1) == 0.0 && grad.load(2) == 0.0);
}

}  // namespace gavel::test
