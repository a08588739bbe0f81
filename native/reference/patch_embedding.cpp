// patch_embedding by its definition: gather, round, and the linear map in double.
#include "reference/kernels.h"

namespace gavel::reference {
void patch_embedding_forward(Context& context, const PatchEmbedding& p) {
  const int64_t columns = p.weight.cols();
  for (int64_t row = 0; row < p.gathered.rows(); ++row) {
    const int64_t from = p.order != nullptr ? p.order[row] : row;
    for (int64_t i = 0; i < columns; ++i) {
      const float value = p.pixels[from * columns + i];
      if (p.gathered.dtype == DType::bf16) {
        p.gathered.bf16()[row * columns + i] = float_to_bf16(value);
      } else {
        p.gathered.f32()[row * columns + i] = value;
      }
    }
  }
  linear_forward(context, linear_of(p));
}

void patch_embedding_backward(Context& context, const PatchEmbedding& p) { linear_backward(context, linear_of(p)); }

}  // namespace gavel::reference
