#include <cmath>

#include "reference/kernels.h"

namespace gavel::reference {

void rope_table_forward(Context&, const RopeTable& p) {
  const int64_t rows = p.cosine.rows(), half = p.cosine.cols();
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t j = 0; j < half; ++j) {
      const float angle = static_cast<float>(p.positions[p.axis[j] * rows + row]) * p.inverse_frequency[j];
      p.cosine.f32()[row * half + j] = static_cast<float>(std::cos(static_cast<double>(angle))) * p.scale;
      p.sine.f32()[row * half + j] = static_cast<float>(std::sin(static_cast<double>(angle))) * p.scale;
    }
  }
}

}  // namespace gavel::reference
