// The paths a product can take on this machine. Vector paths share their bits with the portable one; AMX has its own.
#pragma once
#include "test/op_test.h"

namespace gavel::test {

using PathCase = CpuPath;

inline const std::vector<PathCase>& gemm_paths() { return cpu_paths(); }

struct PathContext : TestContext {
  PathContext(int threads, PathCase path) : TestContext(threads, path.isa) { context.amx = path.amx; }
};

// What a path's bits are compared with: one thread, the portable path where it has the same bits.
inline PathCase gold_path(PathCase path) { return path.amx ? path : PathCase{Isa::generic, false}; }

}  // namespace gavel::test
