// The CPU kernels as the device that native/test/cases are run on. The CUDA tests have another TestDevice of the same
// shape.
#pragma once
#include "cpu/kernels.h"
#include "test/gemm_path.h"

namespace gavel::test {

struct TestDevice {
#define GAVEL_OP(name, Struct, backward)                                                             \
  static void name##_forward(Context& context, const Struct& p) { cpu::name##_forward(context, p); } \
  GAVEL_DEVICE_##backward(name, Struct)
#define GAVEL_DEVICE_true(name, Struct) \
  static void name##_backward(Context& context, const Struct& p) { cpu::name##_backward(context, p); }
#define GAVEL_DEVICE_false(name, Struct)
  GAVEL_OPS(GAVEL_OP)
#undef GAVEL_OP
#undef GAVEL_DEVICE_true
#undef GAVEL_DEVICE_false
  // Instruction sets and numbers of threads that must not show in a result.
  static std::vector<Isa> isas() { return test::isas(); }
  static std::vector<int> threads() { return {1, 2, 3}; }
  static std::vector<PathCase> paths() { return gemm_paths(); }
  static constexpr int32_t kMostHeadDim = 256;
  static Device* device() { return nullptr; }
  static constexpr int kRounds = 36;          // of random cases
  static constexpr size_t kGradients = 1000;  // parameters whose gradient is compared with differences of the loss
};

}  // namespace gavel::test
