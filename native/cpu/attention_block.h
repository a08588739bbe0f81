// The inner step of block-grid attention: up to six query vectors visit one block of 64 keys. Two instruction sets, one
// arithmetic: every operation and its order is fixed per query, so company, trimming and instruction set change no bit.
#pragma once
#include <limits>

#include "core/context.h"
#include "core/dtype.h"
#include "ops/attention.h"

namespace gavel::cpu {

inline constexpr int kVisitQueries = 6;  // 6 queries x 64 lanes are 24 accumulators of 16 floats
inline constexpr int kStateHeader = 16;  // floats before out: running max, running sum, padding to a cache line

// Running softmax of one query and head: [max, sum, pad.., out (D floats, not yet divided by sum)].
constexpr int64_t state_floats(int32_t head_dim) { return kStateHeader + head_dim; }

struct BlockVisit {
  int32_t count = 0;     // queries, 1..kVisitQueries
  bool widened = false;  // bf16 only: query and tiles are the outputs of widen_query and widen_block
  int32_t head_dim = 0;
  float scale = 1.0f;
  const void* keys = nullptr;    // K tile
  const void* values = nullptr;  // V tile
  const void* query[kVisitQueries];
  float* state[kVisitQueries];
  int32_t visible[kVisitQueries];  // keys of this block the query sees, 1..64
};

struct AttentionKernels {
  void (*visit)(const BlockVisit&);
  // out[d] = state.out / sum, rounded once; returns log-sum-exp. A row without keys gives zeros and -inf.
  float (*finish)(const float* state, int32_t head_dim, void* out);
  // Null, or set where vdpbf16ps runs at half the rate of two fp32 FMAs that give the same bits: bf16 operands as
  // floats, the odd element of each pair first, for blocks that many queries visit.
  void (*widen_query)(const bf16_t* query, int32_t head_dim, float* out) = nullptr;
  void (*widen_block)(const bf16_t* tiles, int32_t head_dim, float* out) = nullptr;  // K tile, then V tile
};

AttentionKernels attention_kernels(Isa isa, DType dtype);
AttentionKernels attention_kernels_avx512(DType dtype);  // x86-64 only

inline void reset_state(float* state, int32_t head_dim) {
  state[0] = -std::numeric_limits<float>::infinity();
  for (int64_t i = 1; i < state_floats(head_dim); ++i) state[i] = 0.0f;
}

}  // namespace gavel::cpu
