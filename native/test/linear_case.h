// What tests of linear share, whatever the device: shapes, tolerances, and a comparison with the double reference.
#pragma once
#include <array>

#include "core/philox.h"
#include "reference/kernels.h"
#include "test/op_test.h"

namespace gavel::test {

struct LinearKernels {
  void (*forward)(Context&, const Linear&);
  void (*backward)(Context&, const Linear&);
};

inline double linear_tolerance(DType dtype) { return dtype == DType::bf16 ? 4e-3 : 2e-6; }

// Values that stress the rounding: zeros of both signs, tiny, huge and ordinary.
inline std::vector<double> hard_values(int64_t count, uint64_t seed) {
  std::vector<double> values = random_values(count, seed);
  for (size_t i = 0; i < values.size(); ++i) {
    switch (random_bits({seed, i, 1, 0})[0] % 40) {
      case 0:
        values[i] = 0;
        break;
      case 1:
        values[i] = -0.0;
        break;
      case 2:
        values[i] *= 1e-38;
        break;
      case 3:
        values[i] *= 1e-20;
        break;
      case 4:
        values[i] *= 1e6;
        break;
      default:
        break;
    }
  }
  return values;
}

// Rows, outputs, inputs.
inline constexpr std::array<int64_t, 3> kLinearShapes[] = {{1, 1, 1},     {2, 33, 7},    {15, 64, 64},
                                                           {37, 95, 129}, {70, 31, 258}, {300, 67, 34}};

inline void check_linear(Context& context, const LinearKernels& kernels, DType dtype, std::array<int64_t, 3> shape,
                         uint64_t seed) {
  const auto [m, n, k] = shape;
  const GuardedTensor x = random_tensor({m, k}, dtype, seed), residual = random_tensor({m, n}, dtype, seed + 1);
  const GuardedTensor weight = panel_tensor(n, k, dtype, random_values(n * k, seed + 2));
  const GuardedTensor bias = random_tensor({n}, dtype, seed + 3), grad_out = random_tensor({m, n}, dtype, seed + 4);
  const GuardedTensor out = poisoned_tensor({m, n}, dtype), want_out = poisoned_tensor({m, n}, dtype);
  Linear p;
  p.out = out;
  p.x = x;
  p.weight = weight;
  p.bias = bias;
  p.residual = residual;
  kernels.forward(context, p);
  p.out = want_out;
  reference::linear_forward(context, p);
  CHECK_RELATIVE_L2(out.doubles(), want_out.doubles(), linear_tolerance(dtype));

  p.grad_out = grad_out;
  for (bool accumulate : {false, true}) {
    std::vector<std::vector<double>> results[2];
    for (int side = 0; side < 2; ++side) {
      const GuardedTensor grad_x = accumulate ? random_tensor({m, k}, dtype, seed + 5) : poisoned_tensor({m, k}, dtype);
      GuardedTensor grad_weight = panel_gradient(n, k, dtype);
      if (accumulate) grad_weight.assign(random_values(n * k, seed + 6));
      const GuardedTensor grad_bias = random_tensor({n}, DType::f32, seed + 7);
      const GuardedTensor grad_residual = random_tensor({m, n}, dtype, seed + 8);
      p.grad_x = grad_x;
      p.accumulate_x = accumulate;
      p.grad_weight = grad_weight;
      p.grad_bias = grad_bias;
      p.grad_residual = grad_residual;
      side == 0 ? kernels.backward(context, p) : reference::linear_backward(context, p);
      CHECK(grad_weight.padding_is_zero());
      results[side] = {grad_x.doubles(), grad_weight.doubles(), grad_bias.doubles(), grad_residual.doubles()};
    }
    CHECK_RELATIVE_L2(results[0][0], results[1][0], linear_tolerance(dtype));
    CHECK_RELATIVE_L2(results[0][1], results[1][1], 3e-6);
    CHECK_RELATIVE_L2(results[0][2], results[1][2], 3e-6);
    CHECK_RELATIVE_L2(results[0][3], results[1][3], linear_tolerance(dtype));
  }
}

}  // namespace gavel::test
