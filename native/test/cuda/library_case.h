// One product of many rows, and the same rows in two calls of fewer, which our own kernels compute.
#pragma once
#include "test/cuda/staged.h"
#include "test/linear_case.h"

namespace gavel::test {

inline constexpr LinearKernels kDeviceLinear = {device::linear_forward, device::linear_backward};

enum class Epilogue { none, bias, residual, both };

struct LibraryCase {
  LibraryCase(DType dtype_, std::array<int64_t, 3> shape, Epilogue epilogue)
      : dtype(dtype_),
        rows(shape[0]),
        n(shape[1]),
        k(shape[2]),
        x(tensor_of({rows, k}, dtype, hard_values(rows * k, 1))),
        weight(panel_tensor(n, k, dtype, random_values(n * k, 2))),
        bias(random_tensor({n}, dtype, 3)),
        residual(random_tensor({rows, n}, dtype, 4)),
        grad_out(random_tensor({rows, n}, dtype, 5)) {
    p.x = x;
    p.weight = weight;
    p.grad_out = grad_out;
    if (epilogue == Epilogue::bias || epilogue == Epilogue::both) p.bias = bias;
    if (epilogue == Epilogue::residual || epilogue == Epilogue::both) p.residual = residual;
    accumulates = p.residual.data != nullptr;
  }

  // Forward and the gradient of x, by rows [begin, end).
  std::vector<uint8_t> compute(int64_t begin, int64_t end) const {
    TestContext context;
    const GuardedTensor out = poisoned_tensor({end - begin, n}, dtype);
    const GuardedTensor grad_x = poisoned_tensor({end - begin, k}, dtype);
    if (accumulates) {
      const std::vector<double> before = random_values(rows * k, 6);
      const_cast<GuardedTensor&>(grad_x).assign({before.begin() + begin * k, before.begin() + end * k});
    }
    Linear part = p;
    part.out = out;
    part.grad_x = grad_x;
    part.accumulate_x = accumulates;
    for (auto [tensor, width] : {std::pair{&part.x, k}, {&part.grad_out, n}, {&part.residual, n}}) {
      if (tensor->data == nullptr) continue;
      tensor->data = static_cast<uint8_t*>(tensor->data) + begin * width * static_cast<int64_t>(dtype_size(dtype));
      tensor->shape = {end - begin, width};
    }
    device::linear_forward(context, part);
    device::linear_backward(context, part);
    std::vector<uint8_t> bytes(out.memory().data(), out.memory().data() + out.memory().size());
    bytes.insert(bytes.end(), grad_x.memory().data(), grad_x.memory().data() + grad_x.memory().size());
    return bytes;
  }

  bool many_equal_few() const {
    const std::vector<uint8_t> many = compute(0, rows), first = compute(0, rows / 2), second = compute(rows / 2, rows);
    const auto size = static_cast<int64_t>(dtype_size(dtype));
    const int64_t half = rows / 2 * n * size, rest = (rows - rows / 2) * n * size;
    const auto same = [&](const std::vector<uint8_t>& part, int64_t out_size, int64_t out_at, int64_t grad_at) {
      return std::equal(part.begin(), part.begin() + out_size, many.begin() + out_at) &&
             std::equal(part.begin() + out_size, part.end(), many.begin() + half + rest + grad_at);
    };
    return same(first, half, 0, 0) && same(second, rest, half, rows / 2 * k * size);
  }

  DType dtype;
  int64_t rows, n, k;
  GuardedTensor x, weight, bias, residual, grad_out;
  bool accumulates = false;
  Linear p;
};

}  // namespace gavel::test
