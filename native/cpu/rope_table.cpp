// Angles are the fp32 product the checkpoints were trained with; its cosine and sine are taken in double and rounded
// once, so the table does not depend on a vector library.
#include <cmath>

#include "cpu/kernels.h"

namespace gavel::cpu {

void rope_table_forward(Context& context, const RopeTable& p) {
  const int64_t rows = p.cosine.rows(), half = p.cosine.cols();
  context.pool->parallel_for(rows, [&](int64_t row, int) {
    float* cosine = p.cosine.f32() + row * half;
    float* sine = p.sine.f32() + row * half;
    for (int64_t j = 0; j < half; ++j) {
      const float angle = static_cast<float>(p.positions[p.axis[j] * rows + row]) * p.inverse_frequency[j];
      cosine[j] = static_cast<float>(std::cos(static_cast<double>(angle))) * p.scale;
      sine[j] = static_cast<float>(std::sin(static_cast<double>(angle))) * p.scale;
    }
  });
}

}  // namespace gavel::cpu
