// The list of what is measured, at the shapes of Qwen2.5 0.5B, 1.5B and 3B, and how each becomes a call.
#pragma once
#include "bench/native/cuda/case.h"

namespace gavel::bench {

/// Every case, in the order of the table.
std::vector<Spec> all_specs();
/// The same case with every size cut to what the emulation computes in a moment.
Spec tiny(const Spec& spec);
/// Names that Spec::workload may have.
std::vector<std::string> workload_names();
/// Builds operands and parameters. operands.status() says why it failed; `spec` must be one of a known workload with
/// its number of sizes.
Case make_case(const Spec& spec, Operands& operands);

}  // namespace gavel::bench
