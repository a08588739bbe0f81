// gather_rows: bits of the reference in both directions, each row free of its neighbours, and the transpose of itself.
#pragma once
#include "reference/kernels.h"
#include "test/op_test.h"

namespace gavel::test {

TEST("gather_rows equals the reference, forwards and backwards, written or added") {
  struct Case {
    int64_t rows, columns;
    std::vector<int32_t> wanted;
  };
  const Case cases[] = {{1, 1, {0}}, {9, 33, {8, 0, 3}}, {5, 300, {}}, {40, 64, {7, 7, 39, 7}}, {64, 1027, {1, 63}}};
  for (const auto& [rows, columns, wanted] : cases) {
    const int64_t count = static_cast<int64_t>(wanted.size());
    constexpr std::pair<DType, DType> kTypes[] = {
        {DType::f32, DType::f32}, {DType::bf16, DType::f32}, {DType::bf16, DType::bf16}};
    for (const auto& [dtype, out_dtype] : kTypes) {
      const GuardedTensor x = random_tensor({rows, columns}, dtype, 1),
                          grad_out = random_tensor({count, columns}, out_dtype, 2);
      const GuardedArray<int32_t> places(wanted);
      for (Isa isa : TestDevice::isas()) {
        for (bool accumulate : {false, true}) {
          TestContext context(2, isa);
          const GuardedTensor out = poisoned_tensor({count, columns}, out_dtype),
                              want = poisoned_tensor({count, columns}, out_dtype);
          GuardedTensor grad = accumulate ? random_tensor({rows, columns}, dtype, 3)
                                          : poisoned_tensor({rows, columns}, dtype),
                        want_grad = accumulate ? random_tensor({rows, columns}, dtype, 3)
                                               : poisoned_tensor({rows, columns}, dtype);
          GatherRows p;
          p.x = x;
          p.rows = places;
          p.grad_out = grad_out;
          p.accumulate_x = accumulate;
          p.out = out;
          p.grad_x = grad;
          TestDevice::gather_rows_forward(context, p);
          TestDevice::gather_rows_backward(context, p);
          p.out = want;
          p.grad_x = want_grad;
          reference::gather_rows_forward(context, p);
          reference::gather_rows_backward(context, p);
          CHECK(same_bits(out, want));
          CHECK(same_bits(grad, want_grad));
          if (dtype != DType::f32 || accumulate) continue;
          // <gather(x), g> = <x, backward(g)>.
          CHECK_LE(std::fabs(dot(out.doubles(), grad_out.doubles()) - dot(x.doubles(), grad.doubles())), 1e-4);
        }
      }
    }
  }
}

TEST("gather_rows: the gradient is the finite difference, and a row does not see its neighbours") {
  TestContext context;
  const std::vector<int32_t> wanted{2, 0};
  const std::vector<double> at = random_values(4 * 6, 5), upstream = random_values(2 * 6, 6);
  const auto forward = [&](const std::vector<double>& values) {
    const GuardedTensor x = tensor_of({4, 6}, DType::f32, values), out = poisoned_tensor({2, 6}, DType::f32);
    GatherRows p;
    p.x = x;
    p.out = out;
    p.rows = wanted.data();
    TestDevice::gather_rows_forward(context, p);
    return out.doubles();
  };
  const GuardedTensor grad = poisoned_tensor({4, 6}, DType::f32), x = tensor_of({4, 6}, DType::f32, at),
                      grad_out = tensor_of({2, 6}, DType::f32, upstream), out = poisoned_tensor({2, 6}, DType::f32);
  GatherRows p;
  p.x = x;
  p.out = out;
  p.rows = wanted.data();
  p.grad_out = grad_out;
  p.grad_x = grad;
  TestDevice::gather_rows_backward(context, p);
  CHECK_LE(gradient_error([&](const std::vector<double>& values) { return dot(forward(values), upstream); }, at,
                          grad.doubles()),
           1e-5);
  std::vector<double> other = at;
  for (size_t i = 0; i < 6; ++i) other[6 + i] = std::numeric_limits<double>::quiet_NaN();
  CHECK_MAX_ABS(forward(other), forward(at), 0.0);
}

}  // namespace gavel::test
