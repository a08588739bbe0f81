#include "core/context.h"

#include <cstdlib>
#include <cstring>
#include <new>

#include "core/arena.h"
#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace gavel {

Isa detect_isa() {
  const char* forced = std::getenv("GAVEL_ISA");
  if (forced != nullptr && std::strcmp(forced, "generic") == 0) return Isa::generic;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bf16")) {
    return Isa::avx512_bf16;
  }
#endif
  return Isa::generic;
}

bool detect_amx() {
#if defined(__x86_64__) && defined(__linux__)
  const char* forced = std::getenv("GAVEL_ISA");
  if (detect_isa() != Isa::avx512_bf16 || (forced != nullptr && std::strcmp(forced, "avx512") == 0)) return false;
  static const bool available = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kBf16) == 0 || (d & kTile) == 0) return false;
    // Linux gives tile state (feature 18) only to processes that ask: arch_prctl(ARCH_REQ_XCOMP_PERM).
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
  }();
  return available;
#else
  return false;
#endif
}

const char* isa_name(Isa isa) { return isa == Isa::avx512_bf16 ? "avx512-bf16" : "generic"; }

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
