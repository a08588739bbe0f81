#include "core/context.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <new>

#include "core/arena.h"
#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace gavel {

namespace {

constexpr CpuPath kPaths[] = {{Isa::avx512_bf16, true},
                              {Isa::avx512_bf16, false},
                              {Isa::avx512, false},
                              {Isa::avx2, false},
                              {Isa::generic, false}};

Isa best_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return Isa::generic;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq")) {
    return Isa::avx2;
  }
  return __builtin_cpu_supports("avx512bf16") ? Isa::avx512_bf16 : Isa::avx512;
#else
  return Isa::generic;
#endif
}

bool has_amx() {
#if defined(__x86_64__) && defined(__linux__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kBf16) == 0 || (d & kTile) == 0) return false;
  // Linux gives tile state (feature 18) only to processes that ask: arch_prctl(ARCH_REQ_XCOMP_PERM).
  return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
#else
  return false;
#endif
}

template <class Paths>
std::string names_of(const Paths& paths) {
  std::string names;
  for (const CpuPath& path : paths) names += (names.empty() ? "" : ", ") + std::string(path_name(path));
  return names;
}

CpuPath path_taken() {
  CpuPath path;
  return choose_path("", &path).ok() ? path : cpu_paths().front();
}

}  // namespace

const char* path_name(const CpuPath& path) { return path.amx ? "amx" : isa_name(path.isa); }

const std::vector<CpuPath>& cpu_paths() {
  static const std::vector<CpuPath>& paths = *[] {
    auto* made = new std::vector<CpuPath>;
    const Isa best = best_isa();
    for (const CpuPath& path : kPaths) {
      if (path.isa <= best && (!path.amx || has_amx())) made->push_back(path);
    }
    return made;
  }();
  return paths;
}

Status choose_path(const std::string& name, CpuPath* path) {
  const char* forced = std::getenv("GAVEL_ISA");
  const bool given = !name.empty(), asked = given || (forced != nullptr && *forced != '\0');
  if (!asked) {
    *path = cpu_paths().front();
    return Status::success();
  }
  const std::string wanted = given ? name : forced;
  for (const CpuPath& one : cpu_paths()) {
    if (wanted != path_name(one)) continue;
    *path = one;
    return Status::success();
  }
  const bool known =
      std::any_of(std::begin(kPaths), std::end(kPaths), [&](const CpuPath& one) { return wanted == path_name(one); });
  const std::string source = given ? "`isa`" : "the environment variable GAVEL_ISA";
  const std::string here = names_of(cpu_paths());
  return Status::error(known ? Code::unsupported : Code::invalid_argument,
                       "Expected an instruction set of this machine for " + source + " but received \"" + wanted +
                           "\". This machine has " + here + ".")
      .with("isa", wanted)
      .with("available", here);
}

Isa detect_isa() { return path_taken().isa; }
bool detect_amx() { return path_taken().amx; }

const char* isa_name(Isa isa) {
  constexpr const char* kNames[] = {"generic", "avx2", "avx512", "avx512-bf16"};
  return kNames[static_cast<size_t>(isa)];
}

Scratch::~Scratch() {
  for (Buffer& buffer : shared_) free_pages(buffer.data, buffer.size);
  free_pages(workers_.data, workers_.size);
}

uint8_t* Scratch::grow(Buffer& buffer, size_t size_bytes) {
  if (size_bytes > buffer.size || buffer.data == nullptr) {
    free_pages(buffer.data, buffer.size);
    buffer = {};
    buffer.data = static_cast<uint8_t*>(allocate_pages(size_bytes));
    if (buffer.data == nullptr) throw std::bad_alloc();
    buffer.size = size_bytes;
  }
  return buffer.data;
}

uint8_t* Scratch::workers(int count, size_t size_bytes, size_t* stride) {
  *stride = (size_bytes + 127) / 128 * 128;
  return grow(workers_, *stride * static_cast<size_t>(count));
}

uint8_t* Scratch::shared(int slot, size_t size_bytes) { return grow(shared_[slot], size_bytes); }

size_t Scratch::size_bytes() const {
  size_t total = workers_.size;
  for (const Buffer& buffer : shared_) total += buffer.size;
  return total;
}

}  // namespace gavel
