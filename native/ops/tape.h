// Records the ops of a forward and runs their backwards in reverse. The same graph code runs three ways: dry (nothing
// executed, the arena only counts: the plan of a step), recording (training) and plain (sampling, scoring: a block's
// inner activations are dropped at once). Per-block recompute: block() keeps only the block's input and output. A
// failure (an op without a gradient that needs one) is kept in status(); later calls do nothing. Job thread only.
#pragma once
#include <functional>
#include <vector>

#include "core/arena.h"
#include "core/status.h"
#include "core/tensor_memory.h"
#include "ops/registry.h"

namespace gavel {

class Tape {
 public:
  struct Options {
    bool recording = false;
    bool checkpointing = false;  // recompute each block in the backward
  };

  // `parameter_grads[i]` is the gradient of parameter i, without data when it is frozen.
  Tape(Context& context, const OpTable& ops, Arena& arena, const std::vector<Tensor>& parameter_grads, Options options);
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  bool dry() const { return arena_.measuring(); }
  bool recording() const { return options_.recording; }
  const Status& status() const { return status_; }
  Arena& arena() { return arena_; }
  // Where its tensors are while it is not dry.
  TensorMemory memory() const { return TensorMemory(context_); }

  // A new activation with an id of its own.
  Tensor activation(Shape shape, DType dtype);
  // A new activation in the memory of an older one, which it replaces.
  Tensor renamed(const Tensor& tensor);
  // Memory without gradient: saved statistics, tables, transient stores.
  Tensor buffer(Shape shape, DType dtype) { return arena_.tensor(shape, dtype); }
  bool requires_grad(int32_t id) const;

  // Runs an op now (unless dry) and records it when any input needs a gradient. `output` is the tensor it makes.
  template <class Parameters>
  void apply(Op op, Parameters parameters, std::initializer_list<int32_t> inputs, int32_t output) {
    if (!status_.ok()) return;
    bool needed = false, in_place = false;
    for (int32_t id : inputs) {
      needed = needed || requires_grad(id);
      in_place = in_place || id == output;
    }
    run(ops_[op].forward, &parameters);
    if (!needed) return;
    requires_[static_cast<size_t>(output)] = 1;
    if (!options_.recording) return;
    if (ops_[op].backward == nullptr) {
      status_ =
          Status::error(Code::unsupported, std::string("Expected a backward for op ") + ops_[op].name + " on device " +
                                               ops_.device + " but it has none. Freeze what leads to it.");
      return;
    }
    entries_.push_back({output, in_place, [this, op, parameters]() mutable { backward_of(op, parameters); }});
  }

  // Runs `body` as one block: a unit of recompute when recording with checkpointing, of memory reuse when not
  // recording. The result must have the dtype of x and `rows` rows of its width (-1: as many as x).
  Tensor block(Tensor x, const std::function<Tensor(Tape&, Tensor)>& body, int64_t rows = -1);

  // The gradient buffer of an output, for the caller to fill before backward().
  Tensor seed(const Tensor& output);
  void backward();

  // For bind() of the parameter structs.
  class Binder {
   public:
    explicit Binder(Tape& tape) : tape_(tape) {}
    Tensor output(const Tensor& tensor) const;                   // its gradient, all of it
    Tensor input(const Tensor& tensor, bool& accumulate) const;  // where to add or write; absent when not needed
    Tensor input_overwritten(const Tensor& tensor) const;
    Tensor parameter(const Tensor& tensor) const;
    // For out = f + residual: hands out's gradient on as the residual's, or returns where to add it.
    Tensor pass_on(const Tensor& residual, const Tensor& out) const;

   private:
    Tape& tape_;
  };

 private:
  friend class Binder;
  struct Entry {
    int32_t output;
    bool in_place;  // the output's gradient is the input's too
    std::function<void()> run;
  };
  struct FreeBuffer {
    void* data;
    size_t size, offset;
  };

  // A device is told of dry runs too: it measures.
  void run(void (*kernel)(Context&, const void*), const void* parameters) {
    if (!dry() || context_.device != nullptr) kernel(context_, parameters);
  }
  template <class Parameters>
  void backward_of(Op op, Parameters& parameters) {
    if constexpr (requires(Binder & binder) { Parameters::bind(parameters, binder); }) {
      Binder binder(*this);
      Parameters::bind(parameters, binder);
      if (status_.ok()) run(ops_[op].backward, &parameters);
    }
  }
  void run_backward(size_t first_entry);
  Tensor acquire(const Tensor& like);
  void release(int32_t id);

  Context& context_;
  const OpTable& ops_;
  Arena& arena_;
  const std::vector<Tensor>& parameter_grads_;
  Options options_;
  Status status_;
  std::vector<uint8_t> requires_;
  std::vector<Tensor> grads_;
  std::vector<size_t> grad_offsets_;
  std::vector<Entry> entries_;
  std::vector<FreeBuffer> free_;
};

}  // namespace gavel
