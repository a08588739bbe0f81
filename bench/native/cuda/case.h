// One benchmark case: a call of an op at one shape, the least work and traffic it stands for, and what its speed is
// measured against.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bench/native/cuda/operands.h"
#include "ops/registry.h"

namespace gavel::bench {

/// What to measure: the maker's name (see cases.h), a dtype, its sizes, and which pass.
struct Spec {
  std::string workload;
  DType dtype = DType::bf16;
  std::vector<int64_t> sizes;
  bool backward = false;
};

/// What a share is of: the card's measured copy or read bandwidth, its best matrix product, or the vendor's product of
/// the very same shape.
enum class Ceiling : uint8_t { copy, read, product, same_product };

struct Case {
  Spec spec;
  std::string shape;                       // in words, pass included
  int64_t P = -1, C = -1, G = -1, V = -1;  // -1: does not apply
  double flop = 0;                         // useful floating-point operations: what is computed twice counts once
  double bytes = 0;                        // least traffic: inputs once, outputs once, what is added to twice
  Ceiling ceiling = Ceiling::copy;
  double goal = 0;  // least share of the ceiling; 0: none
  Op op = Op::count;
  const void* parameters = nullptr;
  std::vector<std::shared_ptr<void>> held;  // host memory that the parameters name
  std::vector<Tensor> outputs;              // what must be finite after a call
  // Parts that the fastest mode cuts its sums into on a card of so many multiprocessors; absent where it changes
  // nothing.
  std::function<int64_t(int64_t processors)> parts;

  /// Workspace that a call takes; `status` says why the kernel refuses it.
  uint64_t workspace(const PluginBackend& backend, const PluginLaunch& launch, PluginStatus* status) const;
  /// Enqueues one call.
  void run(const PluginBackend& backend, const PluginLaunch& launch, PluginStatus* status) const;
};

}  // namespace gavel::bench
