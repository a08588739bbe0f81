// Gradients of weights that are sums over rows (norm weights, biases): fixed chunks of rows give fp32 partials, merged
// in ascending order, so the bits do not depend on the number of threads.
#pragma once
#include "cpu/dispatch.h"

namespace gavel::cpu {

inline constexpr int64_t kSumRows = 32;  // rows of a chunk

// target[c] += partials[0][c] + partials[1][c] + ... for c < columns; partials is [chunks, stride].
void merge_column_sums(Context& context, float* target, const float* partials, int64_t chunks, int64_t columns,
                       int64_t stride);

}  // namespace gavel::cpu
