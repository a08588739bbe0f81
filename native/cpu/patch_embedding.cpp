// patch_embedding: gather and round the pixels once, then linear's products. Contract in ops/patch_embedding.h.
#include "cpu/gemm.h"
#include "cpu/kernels.h"

namespace gavel::cpu {
void patch_embedding_forward(Context& context, const PatchEmbedding& p) {
  const int64_t columns = p.weight.cols();
  context.pool->parallel_for(p.gathered.rows(), [&](int64_t row, int) {
    const float* const from = p.pixels + (p.order != nullptr ? p.order[row] : row) * columns;
    if (p.gathered.dtype == DType::bf16) {
      bf16_t* const to = p.gathered.bf16() + row * columns;
      for (int64_t i = 0; i < columns; ++i) to[i] = float_to_bf16(from[i]);
    } else {
      std::copy(from, from + columns, p.gathered.f32() + row * columns);
    }
  });
  linear_forward(context, linear_of(p));
}

void patch_embedding_backward(Context& context, const PatchEmbedding& p) { linear_backward(context, linear_of(p)); }

}  // namespace gavel::cpu
