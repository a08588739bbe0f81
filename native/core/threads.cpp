#include "core/threads.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__linux__)
#include <sched.h>
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

#if defined(__linux__)
// What a thread that is pinned no more goes back to.
const cpu_set_t& process_cores() {
  static const cpu_set_t set = [] {
    cpu_set_t made;
    CPU_ZERO(&made);
    // Of the main thread, which is never pinned here.
    if (sched_getaffinity(getpid(), sizeof(made), &made) != 0) CPU_SET(0, &made);
    return made;
  }();
  return set;
}
#endif

thread_local uint64_t pinned_as = 0;

void pin_thread([[maybe_unused]] uint64_t pinning, [[maybe_unused]] const std::vector<int>& cores,
                [[maybe_unused]] int worker) {
#if defined(__linux__)
  if (pinning == pinned_as) return;
  pinned_as = pinning;
  cpu_set_t set = process_cores();
  if (pinning != 0) {
    CPU_ZERO(&set);
    CPU_SET(static_cast<size_t>(cores[static_cast<size_t>(worker)]), &set);
  }
  // A core may have been taken from the process since it was chosen: the thread then stays where it may run.
  static_cast<void>(sched_setaffinity(0, sizeof(set), &set));
#endif
}

// A wait that ends within this many pauses is shorter than a sleep and a wake-up.
constexpr int kSpins = 4000;
// With more threads than cores, whoever spins keeps the one it waits for from its core.
constexpr int kCrowdedSpins = 50;

int core_count() {
  static const int count = [] {
    const std::vector<int> cores = usable_cores();
    return cores.empty() ? static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))
                         : static_cast<int>(cores.size());
  }();
  return count;
}

std::atomic<int> engine_threads{0};
std::atomic<bool> told{false};

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
  std::atomic<int> spins{kSpins};
  int64_t count = 0;
  int participants = 0;
  uint64_t pinning = 0;
  const std::vector<int>* cores = nullptr;
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
      for (int spin = 0; now == seen && spin < spins.load(std::memory_order_relaxed); ++spin) {
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
        pin_thread(pinning, *cores, worker);
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

std::vector<int> usable_cores() {
  std::vector<int> cores;
#if defined(__linux__)
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(static_cast<size_t>(core), &process_cores())) cores.push_back(core);
  }
#endif
  return cores;
}

Status choose_cores(const std::vector<int>& wanted, int threads, std::vector<int>* cores) {
  const std::vector<int> usable = usable_cores();
  if (usable.empty()) {
    return Status::error(Code::unsupported,
                         "Expected Linux for `pinThreads`: this system pins no threads. Leave it out.");
  }
  std::string names;
  for (int core : usable) names += (names.empty() ? "" : ", ") + std::to_string(core);
  const std::vector<int>& list = wanted.empty() ? usable : wanted;
  for (size_t i = 0; i < list.size(); ++i) {
    const bool usable_one = std::find(usable.begin(), usable.end(), list[i]) != usable.end();
    const auto here = list.begin() + static_cast<std::ptrdiff_t>(i);
    if (usable_one && std::find(list.begin(), here, list[i]) == here) continue;
    return Status::error(Code::invalid_argument,
                         "Expected different cores of this process for `pinThreads` but received " +
                             std::to_string(list[i]) + (usable_one ? " twice" : "") + ". Those it may run on are " +
                             names + ".");
  }
  if (static_cast<size_t>(threads) > list.size()) {
    return Status::error(Code::invalid_argument, "Expected a core for each of " + std::to_string(threads) +
                                                     " threads for `pinThreads` but received " +
                                                     std::to_string(list.size()) + ". Lower `threads`.");
  }
  cores->assign(list.begin(), list.begin() + threads);
  return Status::success();
}

EngineThreads::EngineThreads(int threads) : threads_(threads) { engine_threads.fetch_add(threads); }
EngineThreads::~EngineThreads() { engine_threads.fetch_sub(threads_); }
int EngineThreads::live() { return engine_threads.load(); }
bool EngineThreads::first_above(int cores) { return live() > cores && !told.exchange(true); }

ThreadPool::ThreadPool(int threads) : threads_(1) { set_threads(threads); }

ThreadPool ThreadPool::idle(int threads) {
  ThreadPool pool(threads);
  pool.idle_ = true;
  return pool;
}

void ThreadPool::set_threads(int threads) { threads_ = std::clamp(threads, 1, kMaxThreads); }

void ThreadPool::pin(std::vector<int> cores) {
  static std::atomic<uint64_t> next{1};
  cores_ = std::move(cores);
  pinning_ = next.fetch_add(1);
}

void ThreadPool::run(int64_t count, const void* context, Call call) const {
  if (idle_) return;
  FlushDenormals flush;
  pin_thread(pinning_, cores_, 0);
  if (threads_ == 1 || count == 1) {
    for (int64_t index = 0; index < count; ++index) call(context, index, 0);
    return;
  }
  Workers& pool = workers();
  std::lock_guard turn(pool.turn);
  pool.ensure(threads_);
  pool.count = count;
  pool.participants = threads_;
  const bool crowded = std::max(threads_, EngineThreads::live()) > core_count();
  pool.spins.store(crowded ? kCrowdedSpins : kSpins, std::memory_order_relaxed);
  pool.pinning = pinning_;
  pool.cores = &cores_;
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
    if (spin < (crowded ? kCrowdedSpins : 5 * kSpins)) {
      pause_briefly();
    } else {
      std::this_thread::yield();
    }
  }
}

}  // namespace gavel
