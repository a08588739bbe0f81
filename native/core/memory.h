// How much memory this process can still take: what the system has available, and what is left to every control group
// it is in. Reservations are mapped without a promise, so too large a one would end in the kernel killing the process:
// whoever is about to fill memory asks first.
#pragma once
#include <cstddef>
#include <string>

#include "core/status.h"

namespace gavel {

inline constexpr size_t kUnknownMemory = ~size_t{0};

// `root` stands before /proc and /sys: empty but in tests. kUnknownMemory where the system does not say.
size_t available_memory(const std::string& root = "");

// out_of_memory, with both numbers, when `requested` bytes for `what` are more than there are, after this thread's
// spare memory (spare_memory.h) was given back; `advice` is the advice.
Status check_memory(size_t requested, const std::string& what, const std::string& advice);

}  // namespace gavel
