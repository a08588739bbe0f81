// The command line of gavel_cuda_bench.
#pragma once
#include <string>
#include <vector>

#include "bench/native/cuda/case.h"

namespace gavel::bench {

struct Arguments {
  std::vector<std::string> only;  // workloads; empty: all
  std::vector<DType> dtypes{DType::bf16, DType::f32};
  double seconds = 0.3;  // of measuring a case
  int32_t device = 0;
  bool tiny = false, list = false, help = false;
  std::string commit = "unknown", out, cublaslt;
};

/// False with `message` for what it does not know. `names`: the workloads there are.
bool parse_arguments(const std::vector<std::string>& words, const std::vector<std::string>& names, Arguments* arguments,
                     std::string* message);
std::string usage(const std::vector<std::string>& names);
bool selected(const Arguments& arguments, const std::string& workload, DType dtype);

}  // namespace gavel::bench
