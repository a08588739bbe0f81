#include "cpu/column_sums.h"

namespace gavel::cpu {

void merge_column_sums(Context& context, float* target, const float* partials, int64_t chunks, int64_t columns,
                       int64_t stride) {
  constexpr int64_t kColumns = 256;
  if (chunks == 0) return;
  context.pool->parallel_for(num_pieces(columns, kColumns), [&](int64_t item, int) {
    const int64_t begin = item * kColumns, count = std::min(kColumns, columns - begin);
    run_for_isa(
        context.isa, GAVEL_BODY {
          alignas(64) float sums[kColumns];
          for (int64_t c = 0; c < count; ++c) sums[c] = partials[begin + c];
          for (int64_t chunk = 1; chunk < chunks; ++chunk) {
            const float* partial = partials + chunk * stride + begin;
            for (int64_t c = 0; c < count; ++c) sums[c] += partial[c];
          }
          for (int64_t c = 0; c < count; ++c) target[begin + c] += sums[c];
        });
  });
}

}  // namespace gavel::cpu
