// cuBLASLt as far as the plugin uses it, in plain code. A test says which algorithms it offers; before that there is no
// library.
#pragma once
#include <vector>

namespace emulation {

enum class LibraryAlgorithm {
  chain,      // sums as the plugin's own kernels do: equal bits
  backwards,  // sums the depth from its end
  odd_rows,   // as chain, but other bits where the number of rows is odd
  refused,    // proposed, and refused when it is to run
};

/// From here on the library proposes these, in this order; none: there is no library.
void offer_library(std::vector<LibraryAlgorithm> algorithms);
/// Products it has run since it was last asked.
int library_products();

}  // namespace emulation
