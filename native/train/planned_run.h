// One pass over a model's arena: a dry run that learns the peak, then the real one. Job thread only.
#pragma once
#include <utility>

#include "core/arena.h"
#include "core/status.h"

namespace gavel {

inline Status aborted_status() { return Status::error(Code::aborted, "The run was aborted."); }

// Runs `body` dry to learn the arena's peak, then for real.
template <class Body>
Status plan_and_run(Arena& arena, const Body& body) {
  arena.reset();
  arena.reset_peak();
  arena.set_measuring(true);
  Status planned = body();
  const size_t peak = arena.peak();
  arena.set_measuring(false);
  arena.reset();
  GAVEL_RETURN_IF_ERROR(std::move(planned));
  GAVEL_RETURN_IF_ERROR(arena.reserve(peak));
  Status ran = body();
  arena.reset();
  if (ran.ok() && arena.overflowed())
    ran = Status::error(Code::internal, "Expected the plan to cover the step's memory but it did not.");
  arena.clear_overflow();
  return ran;
}

}  // namespace gavel
