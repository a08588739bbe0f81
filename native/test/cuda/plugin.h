// The plugin's kernels as the device that native/test/cases are run on.
#pragma once
#include "test/cuda/staged.h"
#include "test/gemm_path.h"

namespace gavel::test {

struct TestDevice {
#define GAVEL_OP(name, Struct, backward)                                                                \
  static void name##_forward(Context& context, const Struct& p) { device::name##_forward(context, p); } \
  static void name##_backward(Context& context, const Struct& p) { device::name##_backward(context, p); }
  GAVEL_OPS(GAVEL_OP)
#undef GAVEL_OP
  static std::vector<Isa> isas() { return {detect_isa()}; }
  static std::vector<int> threads() { return {1}; }
  static std::vector<PathCase> paths() { return {cpu_paths().back()}; }
  static constexpr int32_t kMostHeadDim = 128;
  // Where an engine lives; null: on the processor.
  static Device* device();
  static constexpr int kRounds = 4;  // of random cases, some hundred launches each
  static constexpr size_t kGradients = 2;
};

}  // namespace gavel::test
