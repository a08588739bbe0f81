// What a kernel may use while it runs: the pool, scratch memory and the instruction set chosen for its engine.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/status.h"
#include "core/threads.h"

namespace gavel {

// In ascending order: a machine that has one has those before it.
enum class Isa : uint8_t { generic, avx2, avx512, avx512_bf16 };
constexpr bool has_avx512(Isa isa) { return isa >= Isa::avx512; }

// A way to compute that can be asked for by name. Only the AMX tiles of bf16 products add in another order than the
// others: their bits are their own, for every row alike.
struct CpuPath {
  Isa isa = Isa::generic;
  bool amx = false;
};
const char* path_name(const CpuPath& path);

// The paths this machine can run, best first: of amx, avx512-bf16, avx512, avx2, generic. AMX needs a CPU that has it
// and a kernel that lends it to the process, which is asked once.
const std::vector<CpuPath>& cpu_paths();
// `name`, or where it is empty the environment variable GAVEL_ISA, or the best. Errors: invalid_argument for a name
// nothing has, unsupported for a path this machine lacks.
Status choose_path(const std::string& name, CpuPath* path);

// What choose_path says without a name; the best path where GAVEL_ISA is wrong, which whoever makes an engine reports.
Isa detect_isa();
bool detect_amx();
const char* isa_name(Isa isa);

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

class Device;

struct Context {
  ThreadPool* pool = nullptr;
  Scratch* scratch = nullptr;
  Isa isa = Isa::generic;
  bool amx = false;          // bf16 products run on AMX tiles
  bool planning = false;     // nothing is computed, the pool is idle: memory is reserved and stays untouched
  Device* device = nullptr;  // a plugin's device; null: the processor
};

}  // namespace gavel
