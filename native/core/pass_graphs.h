// The calls of a recorded pass, one after another as bytes, and the graphs of passes that came before: a list of calls
// that was seen already becomes a graph, and from then on is one launch. Equal bytes are equal work, for all that they
// name lies on the device; where they are not found the calls are enqueued one by one, with the same results.
#pragma once
#include <vector>

#include "core/plugin.h"

namespace gavel {

struct PassCounts {
  int64_t passes = 0;    // recorded and submitted
  int64_t replayed = 0;  // by launching a graph that was kept
  int64_t captured = 0;  // graphs made
  int64_t waits = 0;     // of the host, for everything that was enqueued
};

class PassGraphs {
 public:
  PassGraphs(const PluginBackend& backend, const PluginLaunch& launch, PluginStatus& status)
      : backend_(backend), launch_(launch), status_(status) {}

  void begin() { calls_.clear(); }
  // `parameters` are kept as bytes; `attach`, or null, puts pointers into their copy that point into itself.
  void kernel(void (*function)(const PluginLaunch*, const void*, PluginStatus*), const void* parameters,
              uint64_t size_bytes, void (*attach)(void*));
  void copy(void* to, const void* from, uint64_t size_bytes);
  void clear(void* to, uint64_t size_bytes);
  void submit();
  // Before memory that a graph may name goes away. Nothing may be running.
  void drop();
  const PassCounts& counts() const { return counts_; }

 private:
  enum class Kind : uint64_t { kernel, copy, clear };
  // Of words alone: it has no gaps whose bytes could differ.
  struct Call {
    Kind kind;
    void (*function)(const PluginLaunch*, const void*, PluginStatus*);
    void (*attach)(void*);
    void* to;
    const void* from;
    uint64_t size;  // of parameters, which follow, or bytes to move
  };
  struct Kept {
    std::vector<uint8_t> calls;
    void* graph = nullptr;
    int64_t last = 0;
  };
  void add(const Call& call, const void* parameters, uint64_t size_bytes);
  void enqueue(const PluginLaunch& launch, PluginStatus& status);
  void capture(Kept& kept);
  Kept* find();
  void remember();

  const PluginBackend& backend_;
  const PluginLaunch& launch_;
  PluginStatus& status_;
  std::vector<uint8_t> calls_;
  std::vector<Kept> kept_;
  PassCounts counts_;
  bool refused_ = false;  // by the device: calls are enqueued one by one
};

}  // namespace gavel
