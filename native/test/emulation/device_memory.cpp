#include "test/emulation/device_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <iterator>
#include <map>
#include <set>
#include <utility>
#include <vector>

namespace emulation {
namespace {

constexpr size_t kAddresses = size_t{64} << 30;
constexpr size_t kDefaultBytes = size_t{2} << 30;
constexpr size_t kAlignment = 256;
constexpr size_t kGuardBytes = 256;
constexpr size_t kPageBytes = 4096;
constexpr uint8_t kGuard = 0x5a;
// A stream that nobody waits for is not kept for ever.
constexpr size_t kMostWaiting = 4096;

struct Graph {
  std::vector<std::function<void()>> work;
  int waiting = 0;  // launches that have not run
};

struct State {
  std::recursive_mutex mutex;
  uint8_t* base = nullptr;
  size_t high = 0;                // past the last byte that was ever allocated, in pages
  std::map<size_t, size_t> used;  // size by offset, guards included
  size_t used_bytes = 0, limit = 0;
  int processors = 0;
  std::deque<std::function<void()>> stream;
  uint64_t enqueued = 0, done = 0;
  bool running = false;
  std::map<const uint8_t*, size_t> pinned;  // size by address
  std::set<void*> captured;                 // graphs whose work is still being told
  bool captures_refused = false, eager = false;
};

[[noreturn]] void stop(const char* what) {
  std::fprintf(stderr, "emulation: %s\n", what);
  std::abort();
}

// Never destroyed: models may outlive every static.
State& state() {
  static State& made = *[] {
    auto* result = new State;
    void* const range = mmap(nullptr, kAddresses, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED) stop("no addresses for the device");
    result->base = static_cast<uint8_t*>(range);
    return result;
  }();
  return made;
}

// The wall is open while one of these lives.
class Open {
 public:
  Open() : outer_(std::exchange(state().running, true)) {
    if (!outer_) protect(PROT_READ | PROT_WRITE);
  }
  ~Open() {
    if (outer_) return;
    protect(PROT_NONE);
    state().running = false;
  }

 private:
  static void protect(int rights) {
    State& all = state();
    if (all.high > 0 && mprotect(all.base, all.high, rights) != 0) stop("the wall does not move");
  }
  bool outer_;
};

size_t rounded(size_t size, size_t step) { return (size + step - 1) / step * step; }

}  // namespace

std::recursive_mutex& device_mutex() { return state().mutex; }

size_t total_bytes() {
  const std::lock_guard lock(device_mutex());
  State& all = state();
  if (all.limit == 0) {
    const char* const given = std::getenv("GAVEL_EMULATED_BYTES");
    all.limit = given == nullptr ? kDefaultBytes : std::strtoull(given, nullptr, 10);
  }
  return all.limit;
}

void set_total_bytes(size_t size_bytes) {
  const std::lock_guard lock(device_mutex());
  state().limit = size_bytes;
}

int processors() {
  const std::lock_guard lock(device_mutex());
  State& all = state();
  if (all.processors == 0) {
    const char* const given = std::getenv("GAVEL_EMULATED_PROCESSORS");
    all.processors = given == nullptr ? 1 : std::atoi(given);
  }
  return all.processors;
}

void set_processors(int count) {
  const std::lock_guard lock(device_mutex());
  state().processors = count;
}

size_t free_bytes() {
  const std::lock_guard lock(device_mutex());
  const size_t total = total_bytes(), used = state().used_bytes;
  return total - std::min(total, used);
}

void* allocate(size_t size_bytes) {
  const std::lock_guard lock(device_mutex());
  State& all = state();
  const size_t size = rounded(size_bytes, kAlignment) + 2 * kGuardBytes;
  if (size_bytes > free_bytes()) return nullptr;
  size_t at = 0;
  for (const auto& [offset, taken] : all.used) {
    if (offset - at >= size) break;
    at = offset + taken;
  }
  if (at + size > kAddresses) return nullptr;
  all.used.emplace(at, size);
  all.used_bytes += size;
  const size_t end = rounded(at + size, kPageBytes);
  if (end > all.high) all.high = end;
  const Open open;
  uint8_t* const memory = all.base + at;
  std::memset(memory, kGuard, kGuardBytes);
  std::memset(memory + kGuardBytes, 0xff, size - 2 * kGuardBytes);
  std::memset(memory + size - kGuardBytes, kGuard, kGuardBytes);
  return memory + kGuardBytes;
}

void release(void* memory) {
  const std::lock_guard lock(device_mutex());
  synchronize();
  State& all = state();
  const size_t at = static_cast<size_t>(static_cast<uint8_t*>(memory) - all.base) - kGuardBytes;
  const auto found = all.used.find(at);
  if (found == all.used.end()) stop("memory was released that was not allocated");
  const size_t size = found->second;
  {
    const Open open;
    const uint8_t* const begin = all.base + at;
    for (size_t i = 0; i < kGuardBytes; ++i) {
      if (begin[i] != kGuard || begin[size - 1 - i] != kGuard) stop("something wrote past its memory");
    }
  }
  const size_t first = rounded(at, kPageBytes), last = (at + size) / kPageBytes * kPageBytes;
  if (last > first) madvise(all.base + first, last - first, MADV_DONTNEED);
  all.used_bytes -= size;
  all.used.erase(found);
}

void enqueue(std::function<void()> work, void* stream) {
  const std::lock_guard lock(device_mutex());
  State& all = state();
  if (stream != nullptr) {
    if (!all.captured.contains(stream)) stop("work was given to a stream that is not there");
    static_cast<Graph*>(stream)->work.push_back(std::move(work));
    return;
  }
  all.stream.push_back(std::move(work));
  ++all.enqueued;
  if (all.eager || all.stream.size() >= kMostWaiting) synchronize();
}

void set_eager(bool eager) { state().eager = eager; }

void synchronize() { wait_for(mark()); }

uint64_t mark() {
  const std::lock_guard lock(device_mutex());
  return state().enqueued;
}

size_t waiting() {
  const std::lock_guard lock(device_mutex());
  return state().stream.size();
}

void wait_for(uint64_t mark) {
  const std::lock_guard lock(device_mutex());
  State& all = state();
  if (all.done >= mark) return;
  const Open open;
  for (; all.done < mark; ++all.done) {
    const std::function<void()> work = std::move(all.stream.front());
    all.stream.pop_front();
    work();
  }
}

void* allocate_host(size_t size_bytes) {
  const std::lock_guard lock(device_mutex());
  auto* const memory = new uint8_t[size_bytes];
  std::memset(memory, 0xff, size_bytes);
  state().pinned.emplace(memory, size_bytes);
  return memory;
}

void release_host(void* memory) {
  const std::lock_guard lock(device_mutex());
  if (state().pinned.erase(static_cast<uint8_t*>(memory)) == 0) stop("no such memory of the host");
  delete[] static_cast<uint8_t*>(memory);
}

bool is_pinned(const void* memory) {
  const std::lock_guard lock(device_mutex());
  const auto* const at = static_cast<const uint8_t*>(memory);
  const auto next = state().pinned.upper_bound(at);
  if (next == state().pinned.begin()) return false;
  const auto& [begin, size] = *std::prev(next);
  return at < begin + size;
}

void check_captured(const void* host, void* stream) {
  if (stream != nullptr && !is_pinned(host)) stop("captured work names memory of the host that is not pinned");
}

void* begin_capture() {
  const std::lock_guard lock(device_mutex());
  State& all = state();
  return all.captures_refused ? nullptr : *all.captured.insert(new Graph).first;
}

void* end_capture(void* stream) {
  const std::lock_guard lock(device_mutex());
  if (state().captured.erase(stream) == 0) stop("a capture ended that had not begun");
  return stream;
}

void launch_graph(void* graph) {
  auto* const one = static_cast<Graph*>(graph);
  ++one->waiting;
  enqueue([one] {
    --one->waiting;
    for (const auto& work : one->work) work();
  });
}

void release_graph(void* graph) {
  auto* const one = static_cast<Graph*>(graph);
  if (one->waiting > 0) stop("a graph was released that has yet to run");
  delete one;
}

void refuse_captures(bool refuse) { state().captures_refused = refuse; }

void check_address(const void* address) {
  const auto* const at = static_cast<const uint8_t*>(address);
  const State& all = state();
  if (at == nullptr || (at >= all.base && at < all.base + kAddresses)) return;
  stop("a kernel was given an address that is not of the device");
}

void check_word(uint64_t word) {
  constexpr uint64_t kFirst = uint64_t{1} << 32, kLast = uint64_t{1} << 47;
  const State& all = state();
  const auto* const at = reinterpret_cast<const uint8_t*>(word);
  if (word < kFirst || word >= kLast || (at >= all.base && at < all.base + kAddresses)) return;
  unsigned char resident = 0;
  if (mincore(reinterpret_cast<void*>(word / kPageBytes * kPageBytes), 1, &resident) == 0)
    stop("a kernel was given a struct with an address of the host");
}

}  // namespace emulation
