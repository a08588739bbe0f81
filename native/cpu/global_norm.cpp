// Sum of squares in double: a chunk of 4096 elements has eight lanes and one tree; chunks are added in order.
#include <cmath>

#include "cpu/dispatch.h"
#include "cpu/kernels.h"

namespace gavel::cpu {
namespace {
constexpr int64_t kChunk = 4096;
constexpr int kDoubles = 8;
}  // namespace

void global_norm_forward(Context& context, const GlobalNorm& p) {
  int64_t chunks = 0;
  for (int32_t tensor = 0; tensor < p.num_grads; ++tensor) chunks += num_pieces(p.counts[tensor], kChunk);
  double* partials = reinterpret_cast<double*>(
      context.scratch->shared(0, static_cast<size_t>(std::max<int64_t>(chunks, 1)) * sizeof(double)));
  int64_t first = 0;
  for (int32_t tensor = 0; tensor < p.num_grads; ++tensor) {
    const int64_t total = p.counts[tensor];
    context.pool->parallel_for(num_pieces(total, kChunk), [&](int64_t item, int) {
      const float* grad = p.grads[tensor] + item * kChunk;
      const int64_t count = std::min(kChunk, total - item * kChunk);
      run_for_isa(
          context.isa, GAVEL_BODY {
            double lanes[kDoubles] = {};
            int64_t i = 0;
            for (; i + kDoubles <= count; i += kDoubles) {
              for (int lane = 0; lane < kDoubles; ++lane) {
                const double value = grad[i + lane];
                lanes[lane] += value * value;
              }
            }
            for (int lane = 0; i < count; ++i, ++lane) {
              const double value = grad[i];
              lanes[lane] += value * value;
            }
            partials[first + item] =
                ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
          });
    });
    first += num_pieces(total, kChunk);
  }
  double sum = 0;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += partials[chunk];
  *p.norm = std::sqrt(sum);
  // The square of a finite float is a finite double, so a sum that is not finite means an element that is not.
  *p.finite = std::isfinite(sum);
}

}  // namespace gavel::cpu
