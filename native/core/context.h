// What a kernel may use while it runs: the pool, scratch memory and the instruction set chosen for this process.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/threads.h"

namespace gavel {

enum class Isa : uint8_t { generic, avx512_bf16 };

// The best instruction set of this machine; the environment variable GAVEL_ISA=generic forces the portable path.
Isa detect_isa();
const char* isa_name(Isa isa);

// True when the CPU has AMX tiles for bf16 and the kernel lets this process use them (it is asked once).
// GAVEL_ISA=generic or avx512 forces false. Tiles add in another order than avx512_bf16: their bits are a machine's
// own, for every row alike.
bool detect_amx();

// Buffers that grow to what kernels asked for and stay. Ask on the job thread, before parallel_for: growing throws
// std::bad_alloc, which only the thread entry catches. Contents are undefined between calls.
class Scratch {
 public:
  static constexpr int kSharedSlots = 8;
  Scratch() = default;
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // One buffer per worker of at least `size_bytes`: worker w's begins at result + w * stride, which is returned.
  uint8_t* workers(int count, size_t size_bytes, size_t* stride);
  // One buffer shared by all workers; a kernel that needs several at once takes different slots.
  uint8_t* shared(int slot, size_t size_bytes);
  size_t size_bytes() const;

 private:
  struct Buffer {
    uint8_t* data = nullptr;
    size_t size = 0;
  };
  uint8_t* grow(Buffer& buffer, size_t size_bytes);
  Buffer shared_[kSharedSlots], workers_;
};

struct Context {
  ThreadPool* pool = nullptr;
  Scratch* scratch = nullptr;
  Isa isa = Isa::generic;
  bool amx = false;       // bf16 products run on AMX tiles
  bool planning = false;  // nothing is computed, the pool is idle: memory is reserved and stays untouched
};

}  // namespace gavel
