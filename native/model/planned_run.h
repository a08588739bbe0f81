// One pass over a model's arena: a dry run that learns the peak, then the real one. Job thread only.
#pragma once
#include <utility>

#include "core/arena.h"
#include "core/status.h"

namespace gavel {

inline Status aborted_status() { return Status::error(Code::aborted, "The run was aborted."); }

// Runs `body` dry to learn the arena's peak, then for real; `before` is told the peak between the two.
template <class Body, class Before>
Status plan_and_run(Arena& arena, const Body& body, const Before& before) {
  arena.reset();
  arena.reset_peak();
  arena.set_measuring(true);
  Status planned = body();
  const size_t peak = arena.peak();
  arena.set_measuring(false);
  arena.reset();
  // What a device refuses while it measures is known before anything is computed.
  if (planned.ok()) planned = arena.memory().finish();
  GAVEL_RETURN_IF_ERROR(std::move(planned));
  before(peak);
  GAVEL_RETURN_IF_ERROR(arena.reserve(peak));
  Status ran = body();
  Status arrived = arena.memory().finish();
  if (ran.ok()) ran = std::move(arrived);
  arena.reset();
  if (ran.ok() && arena.overflowed())
    ran = Status::error(Code::internal, "Expected the plan to cover the step's memory but it did not.");
  arena.clear_overflow();
  return ran;
}

// As plan_and_run, on a device and without waiting: what the body does is recorded and enqueued as one, and the body
// asks for no results. A failure of the device is known from its finish().
template <class Body, class Before>
Status plan_and_enqueue(Device& device, Arena& arena, const Body& body, const Before& before) {
  device.record();
  arena.reset();
  arena.reset_peak();
  arena.set_measuring(true);
  Status status = body();
  const size_t peak = arena.peak();
  arena.set_measuring(false);
  arena.reset();
  if (status.ok() && !device.ok()) status = device.finish();
  if (status.ok()) {
    before(peak);
    status = arena.reserve(peak);
  }
  if (status.ok()) status = body();
  if (status.ok()) {
    device.submit();
  } else {
    device.abandon();
  }
  arena.reset();
  if (status.ok() && arena.overflowed())
    status = Status::error(Code::internal, "Expected the plan to cover the step's memory but it did not.");
  arena.clear_overflow();
  return status.ok() && !device.ok() ? device.finish() : status;
}

template <class Body>
Status plan_and_run(Arena& arena, const Body& body) {
  return plan_and_run(arena, body, [](size_t) {});
}

}  // namespace gavel
