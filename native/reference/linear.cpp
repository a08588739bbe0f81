// Linear by its definition, in double, one rounding to the tensor's dtype at the end.
#include "reference/kernels.h"

namespace gavel::reference {
namespace {

double load(const Tensor& tensor, int64_t index) {
  return tensor.dtype == DType::bf16 ? bf16_to_float(tensor.bf16()[index]) : tensor.f32()[index];
}

void store(const Tensor& tensor, int64_t index, double value) {
  if (tensor.dtype == DType::bf16) {
    tensor.bf16()[index] = float_to_bf16(static_cast<float>(value));
  } else {
    tensor.f32()[index] = static_cast<float>(value);
  }
}

double weight_at(const Tensor& weight, int64_t n, int64_t k) {
  return load(weight, panel_index(n, k, weight.cols(), weight.dtype));
}

}  // namespace

void linear_forward(Context&, const Linear& p) {
  const int64_t rows = p.x.rows(), n_total = p.weight.rows(), k_total = p.weight.cols();
  for (int64_t m = 0; m < rows; ++m) {
    for (int64_t n = 0; n < n_total; ++n) {
      double sum = 0;
      for (int64_t k = 0; k < k_total; ++k) sum += load(p.x, m * k_total + k) * weight_at(p.weight, n, k);
      if (p.bias) sum += load(p.bias, n);
      if (p.residual) sum += load(p.residual, m * n_total + n);
      store(p.out, m * n_total + n, sum);
    }
  }
}

void linear_backward(Context&, const Linear& p) {
  const int64_t rows = p.x.rows(), n_total = p.weight.rows(), k_total = p.weight.cols();
  for (int64_t m = 0; m < rows && p.grad_x; ++m) {
    for (int64_t k = 0; k < k_total; ++k) {
      double sum = p.accumulate_x ? load(p.grad_x, m * k_total + k) : 0;
      for (int64_t n = 0; n < n_total; ++n) sum += load(p.grad_out, m * n_total + n) * weight_at(p.weight, n, k);
      store(p.grad_x, m * k_total + k, sum);
    }
  }
  for (int64_t n = 0; n < n_total && p.grad_weight; ++n) {
    for (int64_t k = 0; k < k_total; ++k) {
      float& to = p.grad_weight.f32()[panel_index(n, k, k_total, p.x.dtype)];
      double sum = to;
      for (int64_t m = 0; m < rows; ++m) sum += load(p.grad_out, m * n_total + n) * load(p.x, m * k_total + k);
      to = static_cast<float>(sum);
    }
  }
  for (int64_t n = 0; n < n_total && p.grad_bias; ++n) {
    double sum = p.grad_bias.f32()[n];
    for (int64_t m = 0; m < rows; ++m) sum += load(p.grad_out, m * n_total + n);
    p.grad_bias.f32()[n] = static_cast<float>(sum);
  }
  for (int64_t i = 0; i < rows * n_total && p.grad_residual; ++i) {
    store(p.grad_residual, i, load(p.grad_residual, i) + load(p.grad_out, i));
  }
}

}  // namespace gavel::reference
