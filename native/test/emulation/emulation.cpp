// Coroutines for the threads of a block: entered by ucontext, switched by setjmp and longjmp, which make no system
// call. A thread runs until it waits; every other block takes its threads in descending order, so that a missing
// barrier shows as a wrong result.
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include <ucontext.h>

#include "core/threads.h"
#include "test/emulation/emulated_cuda.h"
#include "test/emulation/emulated_ptx.h"

namespace emulation {
namespace {

constexpr size_t kStackBytes = 128 * 1024;
constexpr size_t kGuardBytes = 256;
constexpr uint8_t kPattern = 0xA5;

struct Warp {
  alignas(64) uint8_t values[2][32][64];
  int live = 0, arrived = 0;
  uint64_t generation = 0;
};

struct Thread {
  ucontext_t entry;
  jmp_buf place;
  std::unique_ptr<uint8_t[]> stack{new uint8_t[kStackBytes]};
  dim3 index;
  int lane = 0, warp = 0;
  bool started = false, finished = false, at_block = false, at_warp = false;
  uint64_t generation = 0;
  unsigned exchanges = 0;
  CopyQueue copies;
};

struct Block {
  std::vector<std::unique_ptr<Thread>> threads;
  size_t count = 0;  // of them in this block
  std::vector<Warp> warps;
  std::vector<uint8_t> shared;
  const std::function<void()>* body = nullptr;
  Thread* current = nullptr;
  jmp_buf scheduler;
  int live = 0, arrived = 0;
  uint64_t generation = 0;
};

Block block;

void yield() {
  if (_setjmp(block.current->place) == 0) _longjmp(block.scheduler, 1);
}

void release_block() {
  block.arrived = 0;
  ++block.generation;
}
void release_warp(Warp& warp) {
  warp.arrived = 0;
  ++warp.generation;
}

// A coroutine serves one thread after another, so that a stack is entered once.
void enter() {
  for (;;) {
    (*block.body)();
    Thread& self = *block.current;
    self.finished = true;
    Warp& warp = block.warps[static_cast<size_t>(self.warp)];
    if (--block.live == block.arrived && block.live > 0) release_block();
    if (--warp.live == warp.arrived && warp.live > 0) release_warp(warp);
    yield();
  }
}

bool can_run(const Thread& thread) {
  if (thread.finished) return false;
  if (thread.at_block) return thread.generation != block.generation;
  if (thread.at_warp) return thread.generation != block.warps[static_cast<size_t>(thread.warp)].generation;
  return true;
}

void resume(Thread& thread) {
  block.current = &thread;
  threadIdx = thread.index;
  thread.at_block = thread.at_warp = false;
  if (_setjmp(block.scheduler) != 0) return;
  if (thread.started) _longjmp(thread.place, 1);
  thread.started = true;
  setcontext(&thread.entry);
}

void run_block(bool descending) {
  const size_t count = block.count;
  while (block.live > 0) {
    bool moved = false;
    for (size_t i = 0; i < count; ++i) {
      Thread& thread = *block.threads[descending ? count - 1 - i : i];
      if (!can_run(thread)) continue;
      resume(thread);
      moved = true;
    }
    if (moved) continue;
    std::fprintf(stderr, "emulation: block %u,%u,%u is stuck at a barrier\n", blockIdx.x, blockIdx.y, blockIdx.z);
    std::abort();
  }
}

void prepare(size_t count, size_t shared_bytes, bool eager_copies, const std::function<void()>& body) {
  block.body = &body;
  while (block.threads.size() < count) block.threads.push_back(std::make_unique<Thread>());
  block.count = count;
  block.warps.assign((count + 31) / 32, Warp());
  block.shared.assign(shared_bytes + kGuardBytes + 128, kPattern);
  block.live = static_cast<int>(count);
  block.arrived = 0;
  for (size_t i = 0; i < count; ++i) {
    Thread& thread = *block.threads[i];
    thread.index = dim3(static_cast<unsigned>(i), 0, 0);
    thread.lane = static_cast<int>(i % 32);
    thread.warp = static_cast<int>(i / 32);
    thread.finished = thread.at_block = thread.at_warp = false;
    thread.exchanges = 0;
    thread.copies = {};
    thread.copies.eager = eager_copies;
    ++block.warps[i / 32].live;
    if (thread.started) continue;
    getcontext(&thread.entry);
    thread.entry.uc_stack.ss_sp = thread.stack.get();
    thread.entry.uc_stack.ss_size = kStackBytes;
    thread.entry.uc_link = nullptr;
    makecontext(&thread.entry, enter, 0);
  }
}

void check_guard(size_t shared_bytes) {
  const uint8_t* end = dynamic_shared() + shared_bytes;
  for (const uint8_t* at = end; at < end + kGuardBytes; ++at) {
    if (*at == kPattern) continue;
    std::fprintf(stderr, "emulation: a kernel wrote past its %zu bytes of shared memory\n", shared_bytes);
    std::abort();
  }
}

}  // namespace

uint8_t* dynamic_shared() {
  return reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(block.shared.data()) + 127) / 128 * 128);
}

CopyQueue& copies() { return block.current->copies; }

int lane() { return block.current->lane; }

void block_barrier() {
  Thread& self = *block.current;
  if (++block.arrived == block.live) return release_block();
  self.at_block = true;
  self.generation = block.generation;
  yield();
}

const uint8_t* exchange(const void* value, size_t size) {
  Thread& self = *block.current;
  Warp& warp = block.warps[static_cast<size_t>(self.warp)];
  auto& values = warp.values[self.exchanges++ % 2];
  std::memcpy(values[self.lane], value, size);
  if (++warp.arrived == warp.live) {
    release_warp(warp);
  } else {
    self.at_warp = true;
    self.generation = warp.generation;
    yield();
  }
  return values[0];
}

void run_grid(dim3 grid, dim3 threads, size_t shared_bytes, const std::function<void()>& body) {
  static unsigned launches = 0;
  const gavel::FlushDenormals flush;
  gridDim = grid;
  blockDim = threads;
  ++launches;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = dim3(x, y, z);
        prepare(threads.x, shared_bytes, (launches + x + y + z) / 2 % 2 == 1, body);
        run_block((launches + x + y + z) % 2 == 1);
        check_guard(shared_bytes);
      }
    }
  }
}

}  // namespace emulation
