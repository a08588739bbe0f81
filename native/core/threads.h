// The worker pool: one per process, counted, on purpose never destroyed (threads of a library must not be joined from
// static destructors). parallel_for deals indices from one atomic counter, so a slow core never holds a fixed share.
// Engines take the pool first come, first served. Every worker runs with flush-to-zero and denormals-are-zero set.
#pragma once
#include <cstdint>
#include <type_traits>

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

class ThreadPool {
 public:
  static constexpr int kMaxThreads = 256;

  // `threads` counts the caller: 1 runs inline. Workers are started on first use and shared between engines.
  explicit ThreadPool(int threads);
  // A pool that runs nothing: kernels then ask for memory and touch none. For plans of a step (addon/memory_plan.h).
  static ThreadPool idle(int threads);
  int threads() const { return threads_; }
  void set_threads(int threads);

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
};

}  // namespace gavel
