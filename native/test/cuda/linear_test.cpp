#include "test/linear_case.h"

#include "test/cuda/device.h"
#include "test/cuda/staged.h"

namespace gavel::test {
namespace {

constexpr DType kDTypes[] = {DType::f32, DType::bf16};
constexpr LinearKernels kDevice = {device::linear_forward, device::linear_backward};

}  // namespace

TEST("cuda linear: forward and gradients match the double reference") {
  TestContext context;
  uint64_t seed = 100;
  for (DType dtype : kDTypes) {
    for (const auto& shape : kLinearShapes) check_linear(context, kDevice, dtype, shape, seed += 10);
    // Whole chunks of 16 bytes, every tile shape.
    for (const auto& shape : {std::array<int64_t, 3>{16, 96, 64}, {64, 128, 96}, {130, 136, 160}, {129, 72, 32}})
      check_linear(context, kDevice, dtype, shape, seed += 10);
  }
}

// The same row among one, few and many, so in tiles of every shape and at every place of them.
TEST("cuda linear: the bits of a row do not depend on the rows beside it") {
  TestContext context;
  for (DType dtype : kDTypes) {
    for (auto [n, k] : {std::array<int64_t, 2>{96, 72}, {33, 45}}) {
      const int64_t rows = 200, size = static_cast<int64_t>(dtype_size(dtype));
      const GuardedTensor x = tensor_of({rows, k}, dtype, hard_values(rows * k, 1));
      const GuardedTensor weight = panel_tensor(n, k, dtype, hard_values(n * k, 2));
      const GuardedTensor bias = random_tensor({n}, dtype, 3), gold = poisoned_tensor({rows, n}, dtype);
      Linear p;
      p.weight = weight;
      p.bias = bias;
      p.x = x;
      p.out = gold;
      device::linear_forward(context, p);
      for (auto [first, count] : {std::array<int64_t, 2>{0, 1}, {17, 1}, {60, 16}, {99, 17}, {131, 64}, {3, 150}}) {
        const GuardedTensor out = poisoned_tensor({count, n}, dtype);
        p.x.data = x.memory().data() + first * k * size;
        p.x.shape = {count, k};
        p.out = out;
        device::linear_forward(context, p);
        CHECK(std::memcmp(out.memory().data(), gold.memory().data() + first * n * size,
                          static_cast<size_t>(count * n * size)) == 0);
      }
    }
  }
}

TEST("cuda linear: a gradient cut into micro-batches of whole steps has the same bits") {
  TestContext context;
  const int64_t m = 96, n = 70, k = 40;
  for (DType dtype : kDTypes) {
    const int64_t size = static_cast<int64_t>(dtype_size(dtype));
    const GuardedTensor x = random_tensor({m, k}, dtype, 1), grad_out = random_tensor({m, n}, dtype, 2);
    const GuardedTensor weight = panel_tensor(n, k, dtype, random_values(n * k, 3));
    const GuardedTensor gold = panel_gradient(n, k, dtype), parts = panel_gradient(n, k, dtype);
    Linear p;
    p.weight = weight;
    p.x = x;
    p.grad_out = grad_out;
    p.grad_weight = gold;
    device::linear_backward(context, p);
    p.grad_weight = parts;
    for (auto [begin, end] : {std::array<int64_t, 2>{0, 32}, {32, 96}}) {
      p.x = x;
      p.grad_out = grad_out;
      p.x.data = x.memory().data() + begin * k * size;
      p.x.shape = {end - begin, k};
      p.grad_out.data = grad_out.memory().data() + begin * n * size;
      p.grad_out.shape = {end - begin, n};
      device::linear_backward(context, p);
    }
    CHECK(same_bits(gold, parts));
  }
}

TEST("cuda linear: in-place residual, no rows, and what it refuses") {
  TestContext context;
  const GuardedTensor x = random_tensor({20, 24}, DType::bf16, 1), residual = random_tensor({20, 40}, DType::bf16, 2);
  const GuardedTensor weight = panel_tensor(40, 24, DType::bf16, random_values(40 * 24, 3));
  const GuardedTensor out = poisoned_tensor({20, 40}, DType::bf16);
  Linear p;
  p.x = x;
  p.weight = weight;
  p.residual = residual;
  p.out = out;
  device::linear_forward(context, p);
  p.out = residual;
  device::linear_forward(context, p);
  CHECK(same_bits(residual, out));

  Linear none = p;
  none.x.shape = {0, 24};
  none.out.shape = none.residual.shape = {0, 40};
  none.grad_out = none.out;
  const GuardedTensor grad_weight = panel_gradient(40, 24, DType::bf16);
  none.grad_weight = grad_weight;
  device::linear_forward(context, none);
  device::linear_backward(context, none);
  CHECK_EQ(max_abs_error(grad_weight.doubles(), std::vector<double>(40 * 24, 0.0)), 0.0);
  CHECK_EQ(device_refusal(), std::string());

  p.weight.layout = Layout::rows;
  device::linear_forward(context, p);
  CHECK(!device_refusal().empty());
}

}  // namespace gavel::test
