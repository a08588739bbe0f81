#include "ops/tape.h"

#include <algorithm>

#include "core/tensor.h"

namespace gavel {

Tape::Tape(Context& context, const OpTable& ops, Arena& arena, const std::vector<Tensor>& parameter_grads,
           Options options)
    : context_(context), ops_(ops), arena_(arena), parameter_grads_(parameter_grads), options_(options) {}

Tensor Tape::activation(Shape shape, DType dtype) {
  Tensor result = arena_.tensor(shape, dtype);
  result.id = static_cast<int32_t>(grads_.size());
  requires_.push_back(0);
  grads_.emplace_back();
  grad_offsets_.push_back(0);
  return result;
}

Tensor Tape::renamed(const Tensor& tensor) {
  Tensor result = tensor;
  result.id = static_cast<int32_t>(grads_.size());
  requires_.push_back(0);
  grads_.emplace_back();
  grad_offsets_.push_back(0);
  return result;
}

bool Tape::requires_grad(int32_t id) const {
  if (id >= 0) return requires_[static_cast<size_t>(id)] != 0;
  if (id == -1) return false;
  return static_cast<bool>(parameter_grads_[static_cast<size_t>(-2 - id)]);
}

Tensor Tape::block(Tensor x, const std::function<Tensor(Tape&, Tensor)>& body, int64_t rows) {
  if (!status_.ok()) return x;
  if (options_.recording && !options_.checkpointing) return body(*this, x);

  Tensor out = activation({rows < 0 ? x.rows() : rows, x.cols()}, x.dtype);
  const size_t mark = arena_.mark();
  const bool was_recording = options_.recording;
  options_.recording = false;
  const Tensor inner = body(*this, x);
  options_.recording = was_recording;
  if (!dry() && !context_.planning && status_.ok()) {
    memory().copy(out.data, inner.data, static_cast<size_t>(out.shape.count()) * dtype_size(x.dtype));
  }
  arena_.reset(mark);
  if (!options_.recording) return out;

  if (!requires_grad(inner.id)) return out;
  requires_[static_cast<size_t>(out.id)] = 1;
  entries_.push_back({out.id, false, [this, x, out, body] {
                        // The input's gradient must outlive the block's own memory.
                        if (requires_grad(x.id) && !grads_[static_cast<size_t>(x.id)]) {
                          const Tensor grad = acquire(x);
                          if (!dry() && !context_.planning) {
                            memory().clear(grad.data, static_cast<size_t>(x.shape.count()) * dtype_size(x.dtype));
                          }
                          grads_[static_cast<size_t>(x.id)] = grad;
                        }
                        const size_t inner_mark = arena_.mark();
                        const size_t first_entry = entries_.size();
                        const bool was_checkpointing = options_.checkpointing;
                        options_.checkpointing = false;
                        const Tensor again = body(*this, x);
                        options_.checkpointing = was_checkpointing;
                        if (requires_grad(again.id)) {
                          grads_[static_cast<size_t>(again.id)] = grads_[static_cast<size_t>(out.id)];
                          grad_offsets_[static_cast<size_t>(again.id)] = grad_offsets_[static_cast<size_t>(out.id)];
                          grads_[static_cast<size_t>(out.id)] = {};
                          run_backward(first_entry);
                        }
                        entries_.resize(first_entry);
                        std::erase_if(free_, [&](const FreeBuffer& buffer) { return buffer.offset >= inner_mark; });
                        arena_.reset(inner_mark);
                      }});
  return out;
}

Tensor Tape::seed(const Tensor& output) {
  Tensor grad = acquire(output);
  grads_[static_cast<size_t>(output.id)] = grad;
  return grad;
}

void Tape::backward() {
  run_backward(0);
  entries_.clear();
}

void Tape::run_backward(size_t first_entry) {
  for (size_t index = entries_.size(); index > first_entry && status_.ok(); --index) {
    // Moved out: running a block appends entries, which may move the vector.
    const int32_t output = entries_[index - 1].output;
    const bool in_place = entries_[index - 1].in_place;
    if (!grads_[static_cast<size_t>(output)]) continue;  // nothing downstream used it
    const std::function<void()> run = std::move(entries_[index - 1].run);
    run();
    if (!in_place) release(output);
  }
}

Tensor Tape::acquire(const Tensor& like) {
  const size_t size = std::max<size_t>(static_cast<size_t>(like.shape.count()) * dtype_size(like.dtype), 64);
  Tensor grad = like;
  auto best = free_.end();
  for (auto it = free_.begin(); it != free_.end(); ++it) {
    if (it->size >= size && it->size <= 2 * size && (best == free_.end() || it->size < best->size)) best = it;
  }
  size_t offset;
  if (best != free_.end()) {
    grad.data = best->data;
    offset = best->offset;
    free_.erase(best);
  } else {
    offset = arena_.mark();
    grad.data = arena_.allocate(size);
  }
  grad.layout = Layout::rows;
  if (like.id >= 0) grad_offsets_[static_cast<size_t>(like.id)] = offset;
  grad.id = -1;
  return grad;
}

void Tape::release(int32_t id) {
  Tensor& grad = grads_[static_cast<size_t>(id)];
  if (!grad) return;  // handed on
  const size_t size = std::max<size_t>(static_cast<size_t>(grad.shape.count()) * dtype_size(grad.dtype), 64);
  free_.push_back({grad.data, size, grad_offsets_[static_cast<size_t>(id)]});
  grad = {};
}

Tensor Tape::Binder::output(const Tensor& tensor) const { return tape_.grads_[static_cast<size_t>(tensor.id)]; }

Tensor Tape::Binder::input(const Tensor& tensor, bool& accumulate) const {
  if (tensor.id < 0 || !tape_.requires_grad(tensor.id)) return {};
  Tensor& grad = tape_.grads_[static_cast<size_t>(tensor.id)];
  accumulate = static_cast<bool>(grad);
  if (!grad) grad = tape_.acquire(tensor);
  return grad;
}

Tensor Tape::Binder::input_overwritten(const Tensor& tensor) const {
  bool accumulate = false;
  Tensor grad = input(tensor, accumulate);
  if (accumulate) {
    tape_.status_ = Status::error(Code::internal, "Expected one consumer of a tensor whose gradient is overwritten.");
  }
  return grad;
}

Tensor Tape::Binder::parameter(const Tensor& tensor) const {
  if (tensor.id > -2) return {};
  return tape_.parameter_grads_[static_cast<size_t>(-2 - tensor.id)];
}

Tensor Tape::Binder::pass_on(const Tensor& residual, const Tensor& out) const {
  if (residual.id < 0 || !tape_.requires_grad(residual.id)) return {};
  Tensor& grad = tape_.grads_[static_cast<size_t>(residual.id)];
  if (grad) return grad;
  // The backward still reads out's gradient through its own copy of the tensor; ownership moves to the residual.
  grad = tape_.grads_[static_cast<size_t>(out.id)];
  tape_.grad_offsets_[static_cast<size_t>(residual.id)] = tape_.grad_offsets_[static_cast<size_t>(out.id)];
  tape_.grads_[static_cast<size_t>(out.id)] = {};
  return {};
}

}  // namespace gavel
