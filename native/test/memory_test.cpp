#include "core/memory.h"

#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

#include "core/arena.h"
#include "core/spare_memory.h"
#include "test/check.h"

namespace gavel::test {
namespace {

// A system of files, removed at the end.
struct System {
  std::filesystem::path root;
  System() {
    std::string name = (std::filesystem::temp_directory_path() / "gavel-memory-XXXXXX").string();
    root = mkdtemp(name.data());
  }
  ~System() { std::filesystem::remove_all(root); }
  void write(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories((root / path).parent_path());
    std::ofstream(root / path) << text;
  }
  // With 6000 kB left in all.
  void write_meminfo() const {
    write("proc/meminfo", "MemTotal: 8000 kB\nMemAvailable:   5000 kB\nSwapFree:  1000 kB\n");
  }
  void write_group(const std::string& path, const std::string& most, const std::string& used) const {
    write("sys/fs/cgroup/" + path + "/memory.max", most + "\n");
    write("sys/fs/cgroup/" + path + "/memory.current", used + "\n");
  }
  void check(size_t expected) const { CHECK_EQ(available_memory(root.string()), expected); }
};

class Spare final : public SpareMemory {
 public:
  int given_back = 0;
  using SpareMemory::offer;
  void give_back() override {
    ++given_back;
    withdraw();
  }
};

}  // namespace

TEST("memory that can be spared is asked for before anything is refused, on its own thread alone") {
  Spare own, other;
  own.offer();
  own.offer();
  std::thread([&] { other.offer(); }).join();
  CHECK(check_memory(1, "a test", "").ok());
  CHECK_EQ(own.given_back, 0);
  CHECK(check_memory(size_t{1} << 50, "a test", "").code == Code::out_of_memory);
  CHECK(check_memory(size_t{1} << 50, "a test", "").code == Code::out_of_memory);
  CHECK_EQ(own.given_back, 1);
  CHECK_EQ(other.given_back, 0);
}

TEST("available memory is what the system has, with its swap") {
  const System system;
  system.check(kUnknownMemory);
  system.write_meminfo();
  system.check(6000 * 1024);
}

TEST("available memory is bounded by the control group and its parents, page cache aside") {
  const System system;
  system.write_meminfo();
  system.write("proc/self/cgroup", "0::/a/b\n");
  system.write_group("a/b", "max", "700");
  system.check(6000 * 1024);
  system.write_group("a", "2000", "1500");
  system.check(500);
  system.write("sys/fs/cgroup/a/memory.stat", "anon 1100\nfile 400\ninactive_file 300\nactive_file 100\n");
  system.check(900);
  system.write_group("a/b", "600", "700");
  system.check(0);
}

TEST("available memory knows the old control groups") {
  const System system;
  system.write_meminfo();
  system.write("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:hugetlb,memory:/job\n");
  system.write("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "4096\n");
  system.write("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "96\n");
  system.check(4000);
}

TEST("an arena larger than the memory there is is refused, with both numbers") {
  Arena arena;
  const Status status = arena.reserve(size_t{1} << 50);
  CHECK(status.code == Code::out_of_memory);
  CHECK_EQ(status.fields.size(), size_t{2});
  CHECK(arena.reserve(1 << 20).ok());
  Arena planned;
  planned.set_planning(true);
  CHECK(planned.reserve(size_t{1} << 38).ok());
}

#if defined(__linux__)
size_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  size_t total = 0, resident = 0;
  file >> total >> resident;
  return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

TEST("an arena that shrinks gives memory back, keeps its place and grows again") {
  constexpr size_t kLarge = size_t{64} << 20, kSmall = size_t{8} << 20, kSlack = size_t{4} << 20;
  Arena arena;
  CHECK(arena.reserve(kLarge).ok());
  void* const first = arena.allocate(kLarge);
  std::memset(first, 1, kLarge);
  const size_t before = resident_bytes();
  arena.shrink(kSmall);
  CHECK_EQ(arena.capacity(), kLarge);  // not while something is allocated
  arena.reset();
  arena.shrink(kSmall);
  CHECK_EQ(arena.capacity(), kSmall);
  CHECK(before - resident_bytes() + kSlack > kLarge - kSmall);
  arena.shrink(kLarge);
  CHECK_EQ(arena.capacity(), kSmall);
  CHECK(arena.allocate(kLarge) == nullptr);
  CHECK(arena.overflowed());
  arena.reset();
  CHECK(arena.reserve(kLarge + kSmall).ok());
  CHECK(arena.allocate(kLarge) == first);
}

TEST("an arena at rest is spared for others, and what is in use is not") {
  constexpr size_t kHeld = size_t{32} << 20;
  Arena resting, working;
  CHECK(resting.reserve(kHeld).ok());
  CHECK(working.reserve(kHeld).ok());
  void* const used = working.allocate(kHeld);
  std::memset(resting.allocate(kHeld), 1, kHeld);
  std::memset(used, 2, kHeld);
  resting.reset();
  const size_t before = resident_bytes();
  CHECK(!check_memory(size_t{1} << 60, "a test", "").ok());
  CHECK_EQ(resting.capacity(), size_t{0});
  CHECK_EQ(working.capacity(), kHeld);
  CHECK(before - resident_bytes() + (size_t{4} << 20) > kHeld);
  CHECK_EQ(static_cast<uint8_t*>(used)[kHeld - 1], uint8_t{2});
  CHECK(resting.reserve(kHeld).ok());
  CHECK(resting.allocate(kHeld) != nullptr);
}

TEST("small allocations take small pages") {
  const size_t before = resident_bytes();
  std::vector<void*> made;
  for (int i = 0; i < 32; ++i) {
    made.push_back(allocate_pages(10000));
    std::memset(made.back(), 1, 10000);
  }
  CHECK(resident_bytes() - before < (size_t{2} << 20));
  for (void* data : made) free_pages(data, 10000);
}
#endif

}  // namespace gavel::test
