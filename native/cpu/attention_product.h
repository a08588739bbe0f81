// The inner loops of the attention backward, in fp32: a small matrix product, the gradient of the softmax, a transpose.
#pragma once
#include <cstdint>

#include "core/context.h"
#include "ops/attention.h"

namespace gavel::cpu {

// c[rows, columns] = (accumulate ? c : 0) + a[rows, depth] * b[depth, columns]; columns is a multiple of 16.
struct Product {
  const float* a = nullptr;
  int64_t a_row = 0, a_step = 0;  // a(row, k) = a[row * a_row + k * a_step]
  const float* b = nullptr;
  int64_t b_stride = 0;
  float* c = nullptr;
  int64_t c_stride = 0;
  int32_t rows = 0, columns = 0, depth = 0;
  bool accumulate = false;
};

// Rows of raw scores q . k become p = exp(score * scale - lse), rows of dP become dS = p * (dP - mean) * scale; both
// are 0 from the row's `visible` on. Rows are kKeyBlock apart.
struct ScoreGradient {
  float* scores = nullptr;
  float* gradients = nullptr;
  const float* lse = nullptr;
  const float* mean = nullptr;  // sum over d of grad_out * out, per row
  const int32_t* visible = nullptr;
  int32_t rows = 0, columns = 0;
  float scale = 1.0f;
};

struct ProductKernels {
  void (*multiply)(const Product&);
  void (*score_gradient)(const ScoreGradient&);
  // to[d * 64 + key] = from[key * head_dim + d] for 64 keys.
  void (*transpose)(const float* from, int32_t head_dim, float* to);
};

ProductKernels product_kernels(Isa isa);

}  // namespace gavel::cpu
