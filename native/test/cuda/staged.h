// Kernels of the device under the signature of those of the CPU, so that one case list serves both: every operand is
// copied into device memory between guard bytes, the kernel runs, outputs come back. Guards must be whole afterwards,
// and inputs as they were.
#pragma once
#include <string>

#include "core/context.h"
#include "ops/all.h"

namespace gavel::device {

#define GAVEL_OP(name, Struct, backward)                  \
  void name##_forward(Context& context, const Struct& p); \
  void name##_backward(Context& context, const Struct& p);
GAVEL_OPS(GAVEL_OP)
#undef GAVEL_OP

}  // namespace gavel::device

namespace gavel::test {

// From now on operands lie so many bytes behind addresses that are multiples of 256.
void shift_operands(size_t size_bytes);

// What the device refused in the calls since the last ask, or nothing.
std::string device_refusal();

// While it lives, kernels of gavel::device are launched in the fastest mode; the emulation says it has so many
// multiprocessors.
struct FastestMode {
  explicit FastestMode(int processors);
  ~FastestMode();
  FastestMode(const FastestMode&) = delete;
  FastestMode& operator=(const FastestMode&) = delete;
};
// Bytes of workspace that the last call said it takes.
uint64_t device_workspace();

}  // namespace gavel::test
