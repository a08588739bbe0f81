#include "core/memory.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "core/arena.h"
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
  size_t available() const { return available_memory(root.string()); }
};

constexpr const char* kMeminfo = "MemTotal: 8000 kB\nMemAvailable:   5000 kB\nSwapFree:  1000 kB\n";

}  // namespace

TEST("available memory is what the system has, with its swap") {
  const System system;
  CHECK_EQ(system.available(), kUnknownMemory);
  system.write("proc/meminfo", kMeminfo);
  CHECK_EQ(system.available(), size_t{6000 * 1024});
}

TEST("available memory is bounded by the control group and its parents, page cache aside") {
  const System system;
  system.write("proc/meminfo", kMeminfo);
  system.write("proc/self/cgroup", "0::/a/b\n");
  system.write("sys/fs/cgroup/a/b/memory.max", "max\n");
  system.write("sys/fs/cgroup/a/b/memory.current", "700\n");
  CHECK_EQ(system.available(), size_t{6000 * 1024});
  system.write("sys/fs/cgroup/a/memory.max", "2000\n");
  system.write("sys/fs/cgroup/a/memory.current", "1500\n");
  CHECK_EQ(system.available(), size_t{500});
  system.write("sys/fs/cgroup/a/memory.stat", "anon 1100\nfile 400\ninactive_file 300\nactive_file 100\n");
  CHECK_EQ(system.available(), size_t{900});
  system.write("sys/fs/cgroup/a/b/memory.max", "600\n");
  CHECK_EQ(system.available(), size_t{0});
}

TEST("available memory knows the old control groups") {
  const System system;
  system.write("proc/meminfo", kMeminfo);
  system.write("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:hugetlb,memory:/job\n");
  system.write("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "4096\n");
  system.write("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "96\n");
  CHECK_EQ(system.available(), size_t{4000});
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

}  // namespace gavel::test
