// Products of so many rows that cuBLASLt may serve: in the exact mode the bits stay those of our own kernels, which
// fewer rows take; in the fastest mode results stay near the double reference. The emulation has no library until a
// test offers one (test/emulation/library_choice_test.cpp).
#include "test/cuda/library_case.h"

namespace gavel::test {

TEST("cuda library: many rows have the bits of few, while algorithms are on trial and after") {
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (const Epilogue epilogue : {Epilogue::none, Epilogue::bias, Epilogue::residual, Epilogue::both}) {
      LibraryCase one(dtype, {1100, 72, 64}, epilogue);
      for (int call = 0; call < 5; ++call) CHECK(one.many_equal_few());
    }
  }
}

TEST("cuda library: the fastest mode matches the double reference") {
  const FastestMode fastest(1);
  TestContext context;
  for (DType dtype : {DType::f32, DType::bf16}) check_linear(context, kDeviceLinear, dtype, {1100, 80, 72}, 40);
}

}  // namespace gavel::test
