#include "core/threads.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <set>
#include <thread>

#include "test/check.h"
#if defined(__linux__)
#include <sched.h>
#endif

namespace gavel::test {
namespace {

void work_a_while() {
  std::atomic<int> spins{0};
  while (spins.fetch_add(1) < 2000) {
  }
}

}  // namespace

TEST("threads: regions of two pools take turns, whatever their threads") {
  constexpr int kThreads = 3;
  std::atomic<int> inside{0}, most{0};
  std::atomic<int64_t> done{0};
  const auto compute = [&] {
    const ThreadPool pool(kThreads);
    for (int region = 0; region < 200; ++region) {
      pool.parallel_for(12, [&](int64_t, int) {
        const int now = inside.fetch_add(1) + 1;
        int before = most.load();
        while (before < now && !most.compare_exchange_weak(before, now)) {
        }
        work_a_while();
        inside.fetch_sub(1);
        done.fetch_add(1);
      });
    }
  };
  std::thread first(compute), second(compute);
  first.join();
  second.join();
  CHECK_EQ(done.load(), int64_t{2 * 200 * 12});
  CHECK(most.load() <= kThreads);
}

TEST("threads: the live threads of engines are counted, and too many are told once") {
  const int before = EngineThreads::live();
  {
    const EngineThreads one(3), other(2);
    CHECK_EQ(EngineThreads::live(), before + 5);
    CHECK(!EngineThreads::first_above(before + 5));
    CHECK(EngineThreads::first_above(before + 4));
    CHECK(!EngineThreads::first_above(before + 4));
  }
  CHECK_EQ(EngineThreads::live(), before);
}

#if defined(__linux__)
TEST("threads: pinned work runs on its cores, other work anywhere again") {
  const std::vector<int> usable = usable_cores();
  std::vector<int> cores;
  CHECK(choose_cores({}, static_cast<int>(usable.size()) + 1, &cores).code == Code::invalid_argument);
  CHECK(choose_cores({usable[0], usable[0]}, 2, &cores).code == Code::invalid_argument);
  CHECK(choose_cores({1 << 20}, 1, &cores).code == Code::invalid_argument);
  const int threads = std::min<int>(3, static_cast<int>(usable.size()));
  const std::vector<int> wanted(usable.rbegin(), usable.rbegin() + threads);
  CHECK(choose_cores(wanted, threads, &cores).ok());
  CHECK(cores == wanted);
  std::mutex mutex;
  std::set<std::pair<int, int>> seen;
  bool free = true;
  std::thread([&] {
    ThreadPool pool(threads);
    pool.pin(cores);
    const auto look = [&](int64_t, int worker) {
      work_a_while();
      cpu_set_t set;
      CPU_ZERO(&set);
      sched_getaffinity(0, sizeof(set), &set);
      std::lock_guard lock(mutex);
      for (int core : usable) {
        if (CPU_ISSET(static_cast<size_t>(core), &set)) seen.insert({worker, core});
      }
      free = free && CPU_COUNT(&set) == static_cast<int>(usable.size());
    };
    for (int i = 0; i < 20; ++i) pool.parallel_for(64, look);
    for (const auto& [worker, core] : seen) CHECK_EQ(core, wanted[static_cast<size_t>(worker)]);
    CHECK(seen.count({0, wanted[0]}) == 1);
    free = true;
    const ThreadPool unpinned(threads);
    for (int i = 0; i < 20; ++i) unpinned.parallel_for(64, look);
    CHECK(free);
  }).join();
}
#endif

}  // namespace gavel::test
