#include "core/threads.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__linux__)
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#endif

namespace gavel {
namespace {

uint64_t read_float_control() {
#if defined(__x86_64__)
  return _mm_getcsr();
#elif defined(__aarch64__)
  uint64_t value;
  asm volatile("mrs %0, fpcr" : "=r"(value));
  return value;
#else
  return 0;
#endif
}

void write_float_control([[maybe_unused]] uint64_t value) {
#if defined(__x86_64__)
  _mm_setcsr(static_cast<uint32_t>(value));
#elif defined(__aarch64__)
  asm volatile("msr fpcr, %0" : : "r"(value));
#endif
}

void pause_briefly() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// One job at a time; the mutex around it is what makes engines take turns.
struct Workers {
  std::mutex turn;
  std::mutex mutex;
  std::condition_variable wake;
  int started = 0;

  std::atomic<uint64_t> generation{0};
  std::atomic<int64_t> next{0};
  std::atomic<int> active{0};
  std::atomic<int> sleeping{0};
  int64_t count = 0;
  int participants = 0;
  const void* context = nullptr;
  void (*call)(const void*, int64_t, int) = nullptr;

  void drain(int worker) {
    for (int64_t index; (index = next.fetch_add(1, std::memory_order_relaxed)) < count;) call(context, index, worker);
  }

  void loop(int worker, uint64_t seen) {
    yield_to_main_thread();
    FlushDenormals flush;
    for (;;) {
      // Steps follow one another within microseconds while a job runs: spin that long before sleeping.
      uint64_t now = generation.load(std::memory_order_acquire);
      for (int spin = 0; now == seen && spin < 4000; ++spin) {
        pause_briefly();
        now = generation.load(std::memory_order_acquire);
      }
      if (now == seen) {
        std::unique_lock lock(mutex);
        sleeping.fetch_add(1);
        wake.wait(lock, [&] { return generation.load(std::memory_order_acquire) != seen; });
        sleeping.fetch_sub(1);
        now = generation.load(std::memory_order_acquire);
      }
      seen = now;
      if (worker < participants) {
        drain(worker);
      }
      active.fetch_sub(1, std::memory_order_acq_rel);
    }
  }

  void ensure(int threads) {
    while (started < threads - 1) {
      ++started;
      std::thread([this, worker = started, seen = generation.load()] { loop(worker, seen); }).detach();
    }
  }
};

Workers& workers() {
  static Workers& instance = *new Workers;
  return instance;
}

}  // namespace

FlushDenormals::FlushDenormals() : saved_(read_float_control()) {
#if defined(__x86_64__)
  write_float_control(saved_ | 0x8040u);
#elif defined(__aarch64__)
  write_float_control(saved_ | (uint64_t{1} << 24));
#endif
}
FlushDenormals::~FlushDenormals() { write_float_control(saved_); }

void yield_to_main_thread() {
#if defined(__linux__)
  constexpr int kStepsBelow = 5;
  errno = 0;
  const int main_priority = getpriority(PRIO_PROCESS, static_cast<id_t>(getpid()));
  if (main_priority == -1 && errno != 0) return;
  // The kernel clamps at the nicest priority. A sandbox may refuse; the thread then works at the priority it has.
  static_cast<void>(setpriority(PRIO_PROCESS, 0, main_priority + kStepsBelow));
#endif
}

ThreadPool::ThreadPool(int threads) : threads_(1) { set_threads(threads); }

ThreadPool ThreadPool::idle(int threads) {
  ThreadPool pool(threads);
  pool.idle_ = true;
  return pool;
}

void ThreadPool::set_threads(int threads) { threads_ = std::clamp(threads, 1, kMaxThreads); }

void ThreadPool::run(int64_t count, const void* context, Call call) const {
  if (idle_) return;
  FlushDenormals flush;
  if (threads_ == 1 || count == 1) {
    for (int64_t index = 0; index < count; ++index) call(context, index, 0);
    return;
  }
  Workers& pool = workers();
  std::lock_guard turn(pool.turn);
  pool.ensure(threads_);
  pool.count = count;
  pool.participants = threads_;
  pool.context = context;
  pool.call = call;
  pool.next.store(0, std::memory_order_relaxed);
  // Every started worker acknowledges every generation, so none can still read this job's fields when the next begins.
  pool.active.store(pool.started, std::memory_order_relaxed);
  {
    std::lock_guard lock(pool.mutex);
    pool.generation.fetch_add(1, std::memory_order_release);
  }
  if (pool.sleeping.load() > 0) pool.wake.notify_all();
  pool.drain(0);
  for (int spin = 0; pool.active.load(std::memory_order_acquire) > 0; ++spin) {
    if (spin < 20000) {
      pause_briefly();
    } else {
      std::this_thread::yield();
    }
  }
}

}  // namespace gavel
