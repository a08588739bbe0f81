// resize_heads: copies and zeros exactly as the reference, and its backward is the op with the sizes exchanged.
#pragma once
#include "reference/kernels.h"
#include "test/op_test.h"

namespace gavel::test {

TEST("resize_heads equals the reference in both directions") {
  for (const auto& [rows, heads, from, to] :
       {std::array<int32_t, 4>{1, 1, 3, 5}, {40, 6, 72, 80}, {40, 2, 80, 72}, {7, 3, 16, 16}, {0, 2, 3, 4}}) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      const GuardedTensor x = random_tensor({rows, int64_t{heads} * from}, dtype, 1),
                          grad_out = random_tensor({rows, int64_t{heads} * to}, dtype, 2);
      for (int threads : TestDevice::threads()) {
        TestContext context(threads);
        const GuardedTensor out = poisoned_tensor({rows, int64_t{heads} * to}, dtype),
                            grad_x = poisoned_tensor({rows, int64_t{heads} * from}, dtype),
                            want = poisoned_tensor({rows, int64_t{heads} * to}, dtype),
                            want_grad = poisoned_tensor({rows, int64_t{heads} * from}, dtype);
        ResizeHeads p;
        p.x = x;
        p.heads = heads;
        p.from = from;
        p.to = to;
        p.grad_out = grad_out;
        p.out = out;
        p.grad_x = grad_x;
        TestDevice::resize_heads_forward(context, p);
        TestDevice::resize_heads_backward(context, p);
        p.out = want;
        p.grad_x = want_grad;
        reference::resize_heads_forward(context, p);
        reference::resize_heads_backward(context, p);
        CHECK(same_bits(out, want));
        CHECK(same_bits(grad_x, want_grad));
        // <resize(x), g> = <x, backward(g)>: the two maps are transposes of each other.
        CHECK_LE(std::fabs(dot(out.doubles(), grad_out.doubles()) - dot(x.doubles(), grad_x.doubles())), 1e-9);
      }
    }
  }
}

}  // namespace gavel::test
