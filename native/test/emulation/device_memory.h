// The emulated device's memory and its one stream. The wall: memory of the device may be touched only while what stands
// in the stream runs, so host code that reads or writes a tensor faults; and a kernel is refused addresses of the host.
// What is enqueued runs when somebody waits, as late as a device may, so host code that forgot to wait sees old values.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>

namespace emulation {

// Held by every call below, and by whoever calls several.
std::recursive_mutex& device_mutex();

// Filled with NaNs, between guards that release() checks. Null when it does not fit.
void* allocate(size_t size_bytes);
void release(void* memory);
size_t free_bytes();
size_t total_bytes();
// As though the device had so much; 0: what GAVEL_EMULATED_BYTES says, or 2 GiB.
void set_total_bytes(size_t size_bytes);
// Multiprocessors that it says it has: kernels choose tiles and parts by them. 0: what GAVEL_EMULATED_PROCESSORS says,
// or 1.
int processors();
void set_processors(int count);

// Work runs as late as it may; eager, as early: at once.
void set_eager(bool eager);
// Streams are the default one (null) and the one that is captured: its work is kept, not run.
void enqueue(std::function<void()> work, void* stream = nullptr);
void synchronize();
// What was enqueued before mark() has run when wait_for() returns; what came later has not.
uint64_t mark();
// Pieces of work that have not run.
size_t waiting();
void wait_for(uint64_t mark);

// Memory of the host that work of a stream may read and write by itself.
void* allocate_host(size_t size_bytes);
void release_host(void* memory);
bool is_pinned(const void* memory);
// Ends the program when work of a captured stream names other memory of the host.
void check_captured(const void* host, void* stream);

// A stream to capture; null while captures are refused. end_capture gives what it was told as a graph.
void* begin_capture();
void* end_capture(void* stream);
void launch_graph(void* graph);
void release_graph(void* graph);
void refuse_captures(bool refuse);

// Ends the program when a word is an address of the host's memory; null and what is no address pass.
void check_word(uint64_t word);
// The same for what is an address: of the device, or null.
void check_address(const void* address);

}  // namespace emulation
