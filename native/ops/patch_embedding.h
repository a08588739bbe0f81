// out[p] = weight . pixels[order[p]]: the vision tower's convolution over non-overlapping patches, as one matrix
// product. Pixels are fp32 as the image processor made them; they are rounded to the weight's dtype once, then the
// chain is linear's.
#pragma once
#include "core/tensor.h"
#include "ops/linear.h"

namespace gavel {

struct PatchEmbedding {
  Tensor out;                      // [T, H]
  Tensor weight;                   // [H, channels * temporal * patch * patch], panels
  Tensor bias;                     // [H] or absent
  const float* pixels = nullptr;   // [T, columns]
  const int32_t* order = nullptr;  // [T]: row of `pixels` that stands at p, or null for the identity
  Tensor gathered;                 // [T, columns], weight's dtype: kept for the backward
  // backward
  Tensor grad_out;
  Tensor grad_weight;  // fp32, accumulated; or absent
  Tensor grad_bias;    // fp32, accumulated; or absent

  template <class Binder>
  static void bind(PatchEmbedding& p, Binder& b) {
    p.grad_out = b.output(p.out);
    p.grad_weight = b.parameter(p.weight);
    p.grad_bias = b.parameter(p.bias);
  }
};

// The product over the gathered pixels.
inline Linear linear_of(const PatchEmbedding& p) {
  Linear linear;
  linear.out = p.out;
  linear.x = p.gathered;
  linear.weight = p.weight;
  linear.bias = p.bias;
  linear.grad_out = p.grad_out;
  linear.grad_weight = p.grad_weight;
  linear.grad_bias = p.grad_bias;
  return linear;
}

}  // namespace gavel
