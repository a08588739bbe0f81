#include "core/pass_graphs.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

namespace gavel {
namespace {
constexpr size_t kMostKept = 16;
constexpr uint64_t kAlignment = alignof(std::max_align_t);
uint64_t aligned(uint64_t size) { return (size + kAlignment - 1) / kAlignment * kAlignment; }
}  // namespace

void PassGraphs::add(const Call& call, const void* parameters, uint64_t size_bytes) {
  const size_t at = calls_.size();
  calls_.resize(at + aligned(sizeof(Call)) + aligned(size_bytes));
  std::memcpy(calls_.data() + at, &call, sizeof(Call));
  if (size_bytes > 0) std::memcpy(calls_.data() + at + aligned(sizeof(Call)), parameters, size_bytes);
}

void PassGraphs::kernel(void (*function)(const PluginLaunch*, const void*, PluginStatus*), const void* parameters,
                        uint64_t size_bytes, void (*attach)(void*)) {
  add({Kind::kernel, function, attach, nullptr, nullptr, size_bytes}, parameters, size_bytes);
}

void PassGraphs::copy(void* to, const void* from, uint64_t size_bytes) {
  add({Kind::copy, nullptr, nullptr, to, from, size_bytes}, nullptr, 0);
}

void PassGraphs::clear(void* to, uint64_t size_bytes) {
  add({Kind::clear, nullptr, nullptr, to, nullptr, size_bytes}, nullptr, 0);
}

void PassGraphs::enqueue(const PluginLaunch& launch, PluginStatus& status) {
  std::vector<std::max_align_t> attached;
  for (size_t at = 0; at < calls_.size() && status.ok();) {
    Call call;
    std::memcpy(&call, calls_.data() + at, sizeof(Call));
    at += aligned(sizeof(Call));
    if (call.kind == Kind::copy) {
      backend_.copy(&launch, call.to, call.from, call.size, &status);
    } else if (call.kind == Kind::clear) {
      backend_.clear(&launch, call.to, call.size, &status);
    } else {
      const void* parameters = calls_.data() + at;
      if (call.attach != nullptr) {
        attached.resize(aligned(call.size) / sizeof(std::max_align_t));
        std::memcpy(attached.data(), parameters, call.size);
        call.attach(attached.data());
        parameters = attached.data();
      }
      call.function(&launch, parameters, &status);
      at += aligned(call.size);
    }
  }
}

// Whatever goes wrong here is no failure of the pass, which is enqueued in the plain way then.
void PassGraphs::capture(Kept& kept) {
  if (refused_) return;
  PluginStatus own;
  PluginLaunch launch = launch_;
  backend_.begin_capture(&launch, &own);
  if (own.ok()) {
    enqueue(launch, own);
    kept.graph = backend_.end_capture(&launch, &own);
  }
  refused_ = kept.graph == nullptr;
  if (!refused_) ++counts_.captured;
}

PassGraphs::Kept* PassGraphs::find() {
  const auto found = std::find_if(kept_.begin(), kept_.end(), [&](const Kept& one) { return one.calls == calls_; });
  if (found == kept_.end()) return nullptr;
  found->last = counts_.passes;
  return &*found;
}

void PassGraphs::remember() {
  if (kept_.size() == kMostKept) {
    const auto oldest =
        std::min_element(kept_.begin(), kept_.end(), [](const Kept& a, const Kept& b) { return a.last < b.last; });
    if (oldest->graph != nullptr) {
      PluginStatus ignored;
      backend_.synchronize(&launch_, &status_);
      backend_.release_graph(launch_.device, oldest->graph, &ignored);
    }
    kept_.erase(oldest);
  }
  kept_.push_back({calls_, nullptr, counts_.passes});
}

void PassGraphs::submit() {
  ++counts_.passes;
  if (calls_.empty() || !status_.ok()) return;
  Kept* const kept = find();
  if (kept == nullptr) {
    remember();
  } else if (kept->graph == nullptr) {
    capture(*kept);
  } else {
    ++counts_.replayed;
  }
  if (kept == nullptr || kept->graph == nullptr) return enqueue(launch_, status_);
  backend_.launch_graph(&launch_, kept->graph, &status_);
}

void PassGraphs::drop() {
  PluginStatus ignored;
  for (const Kept& kept : kept_) {
    if (kept.graph != nullptr) backend_.release_graph(launch_.device, kept.graph, &ignored);
  }
  kept_.clear();
}

}  // namespace gavel
