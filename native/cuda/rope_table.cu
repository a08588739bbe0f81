// Angles are the fp32 product the checkpoints were trained with; cosine and sine are taken in double and rounded once.
#include "cuda/elements.cuh"
#include "cuda/kernels.h"

namespace gavel::cuda {
namespace {

struct Fill {
  float *cosine, *sine;
  const int32_t *positions, *axis;
  const float* inverse_frequency;
  int64_t rows, half;
  float scale;
  __device__ void operator()(int64_t i) const {
    const int64_t row = i / half, j = i % half;
    const float angle = __fmul_rn(static_cast<float>(positions[axis[j] * rows + row]), inverse_frequency[j]);
    cosine[i] = __fmul_rn(static_cast<float>(cos(static_cast<double>(angle))), scale);
    sine[i] = __fmul_rn(static_cast<float>(sin(static_cast<double>(angle))), scale);
  }
};

}  // namespace

void rope_table_forward(Launch& launch, const RopeTable& p) {
  const Fill body{p.cosine.f32(),      p.sine.f32(),    p.positions,     p.axis,
                  p.inverse_frequency, p.cosine.rows(), p.cosine.cols(), p.scale};
  for_elements<1>(launch, body, p.cosine.shape.count());
}

}  // namespace gavel::cuda
