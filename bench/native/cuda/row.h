// One line of bench/results/cuda.jsonl.
#pragma once
#include <string>

#include "bench/native/cuda/case.h"
#include "bench/native/cuda/engine_workloads.h"

namespace gavel::bench {

/// Seconds of a call on the device's own clock: median, and the tenth and ninetieth percentile.
struct Timing {
  double seconds = 0, low = 0, high = 0;
  int runs = 0;
};

/// Two modes that took turns. `ratio` holds ratios of first to second, not seconds: the median over pairs, and where a
/// tenth and nine tenths of them lie.
struct Paired {
  Timing first, second, ratio;
};

/// Where and when: the same in every line.
struct Machine {
  std::string hardware, driver, commit;
};

struct Measured {
  Timing timing;
  double limit = 0;         // seconds that the ceiling allows, 0: unknown
  std::string limit_name;   // what it is of
  bool by_library = false;  // cuBLASLt computed products of it
};

/// GFLOP/s where the ceiling is arithmetic or a product, else GB/s.
bool counts_flop(const Case& one);
std::string json_row(const Case& one, const Measured& measured, const Machine& machine);
/// A ceiling itself: `value` in `unit`.
std::string json_peak(const std::string& workload, const std::string& shape, DType dtype, double value,
                      const std::string& unit, const Timing& timing, const Machine& machine);
/// Rows of a whole workload: its rate with the share of `limit` seconds (0: unknown), the rate with the prompts of a
/// decoding counted in, and the memory it took.
std::vector<std::string> json_rows(const EngineSpec& spec, const EngineResult& result, double limit,
                                   const std::string& limit_name, const Machine& machine);
/// What exactness costs: seconds of the exact mode by those of the fastest, with the parts that the fastest took.
std::string json_cost(const Case& one, const Paired& paired, int64_t parts, const Machine& machine);
std::string json_cost(const EngineSpec& spec, const EngineResult& result, const Machine& machine);
std::string text_cost(const Paired& paired, int64_t parts);
/// The line that a person reads.
std::string text_row(const Case& one, const Measured& measured);
std::string text_row(const EngineSpec& spec, const EngineResult& result, double limit);

}  // namespace gavel::bench
