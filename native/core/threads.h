// The worker pool: one per process, counted, on purpose never destroyed (threads of a library must not be joined from
// static destructors). parallel_for deals indices from one atomic counter, so a slow core never holds a fixed share.
// Engines take the pool first come, first served. Every worker runs with flush-to-zero and denormals-are-zero set.
#pragma once
#include <cstdint>
#include <type_traits>
#include <vector>

#include "core/status.h"

namespace gavel {

// Sets FTZ and DAZ for the calling thread while alive: every thread that computes must have it (see docs/design.md).
class FlushDenormals {
 public:
  FlushDenormals();
  ~FlushDenormals();
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  uint64_t saved_;
};

// Makes the calling thread a little nicer than the process's main thread, so that on a full machine the event loop is
// served first. Linux only, where a priority belongs to one thread; elsewhere nothing is changed.
void yield_to_main_thread();

// The cores this process may run on, ascending; empty where the system does not tell (all but Linux).
std::vector<int> usable_cores();
// The cores to pin `threads` threads to: the first ones usable, or of `wanted` when it is not empty. Errors:
// unsupported where threads cannot be pinned, invalid_argument for too few cores, a repeated one, or one that is not
// usable.
Status choose_cores(const std::vector<int>& wanted, int threads, std::vector<int>* cores);

// The threads of all live engines of this process. Regions of different engines take turns, but what an engine does
// between them, and all that an engine of one thread does, runs beside the others.
class EngineThreads {
 public:
  explicit EngineThreads(int threads);
  ~EngineThreads();
  EngineThreads(const EngineThreads&) = delete;
  EngineThreads& operator=(const EngineThreads&) = delete;
  static int live();
  // True for the first caller in the process that finds more of them than `cores`.
  static bool first_above(int cores);

 private:
  int threads_;
};

class ThreadPool {
 public:
  static constexpr int kMaxThreads = 256;

  // `threads` counts the caller: 1 runs inline. Workers are started on first use and shared between engines.
  explicit ThreadPool(int threads);
  // A pool that runs nothing: kernels then ask for memory and touch none. For plans of a step (addon/memory_plan.h).
  static ThreadPool idle(int threads);
  int threads() const { return threads_; }
  void set_threads(int threads);
  // Worker w computes on cores[w], the caller on cores[0]; as many as threads. Shared workers move to the cores of the
  // pool whose work they take; unpinned work is back on every core.
  void pin(std::vector<int> cores);

  // Calls body(index, worker) for every index in [0, count), worker in [0, threads()); returns when all are done.
  // The body must not throw and must not call parallel_for.
  template <class Body>
  void parallel_for(int64_t count, const Body& body) const {
    if (count <= 0) return;
    run(count, &body,
        [](const void* context, int64_t index, int worker) { (*static_cast<const Body*>(context))(index, worker); });
  }

 private:
  using Call = void (*)(const void* context, int64_t index, int worker);
  void run(int64_t count, const void* context, Call call) const;
  int threads_;
  bool idle_ = false;
  std::vector<int> cores_;
  uint64_t pinning_ = 0;  // names cores_; 0: unpinned
};

}  // namespace gavel
