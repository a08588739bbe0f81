// Every op of the engine in ONE list. A row gives: name, parameter struct, and whether it has a backward. A device is a
// table of functions in this order; native/cpu and native/reference define <device>::<name>_forward(Context&, const
// <Struct>&) and, where the row says so, <name>_backward. Parameter structs live in ops/<name>.h and are trivially
// copyable.
#pragma once
#include <cstdint>

#include "core/context.h"

//        name             parameters        backward
#define GAVEL_OPS(X)                       \
  X(embedding, Embedding, true)            \
  X(patch_embedding, PatchEmbedding, true) \
  X(rms_norm, RmsNorm, true)               \
  X(layer_norm, LayerNorm, true)           \
  X(head_norm, HeadNorm, true)             \
  X(row_mix, RowMix, true)                 \
  X(resize_heads, ResizeHeads, true)       \
  X(linear, Linear, true)                  \
  X(rope_table, RopeTable, false)          \
  X(rope, Rope, true)                      \
  X(attention, Attention, true)            \
  X(swiglu, Swiglu, true)                  \
  X(gelu, Gelu, true)                      \
  X(relu, Relu, true)                      \
  X(gather_rows, GatherRows, true)         \
  X(dropout, Dropout, true)                \
  X(head_logprob, HeadLogprob, true)       \
  X(sample_token, SampleToken, false)      \
  X(adamw, AdamW, false)                   \
  X(global_norm, GlobalNorm, false)

namespace gavel {

enum class Op : uint8_t {
#define GAVEL_OP(name, Struct, backward) name,
  GAVEL_OPS(GAVEL_OP)
#undef GAVEL_OP
      count
};

inline constexpr int kNumOps = static_cast<int>(Op::count);

struct OpRow {
  const char* name = nullptr;
  void (*forward)(Context&, const void* parameters) = nullptr;
  void (*backward)(Context&, const void* parameters) = nullptr;  // null: the op has no gradient
};

struct OpTable {
  const char* device = nullptr;
  OpRow rows[kNumOps];
  const OpRow& operator[](Op op) const { return rows[static_cast<int>(op)]; }
};

const OpTable& cpu_ops();        // native/cpu/ops_table.cpp
const OpTable& reference_ops();  // native/reference/ops_table.cpp: plain loops in double, the oracle
const OpTable& device_ops();     // native/ops/device_ops.cpp: the kernels of context.device

// The table of the context's device.
inline const OpTable& ops_of(const Context& context) { return context.device != nullptr ? device_ops() : cpu_ops(); }

}  // namespace gavel
