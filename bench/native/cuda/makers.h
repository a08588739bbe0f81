// What the makers of cases share: a case whose traffic is what the op's operand list names.
#pragma once
#include "bench/native/cuda/case.h"
#include "ops/operands.h"

namespace gavel::bench {

using Maker = void (*)(const Spec& spec, Operands& operands, Case* made);

struct TrafficVisitor {
  double bytes = 0;
  void tensor(Tensor& tensor, Access) {
    if (tensor) bytes += static_cast<double>(count_of(tensor)) * static_cast<double>(dtype_size(tensor.dtype));
  }
  template <class T>
  void array(T*& pointer, int64_t count, Access) {
    if (pointer != nullptr) bytes += static_cast<double>(count) * sizeof(T);
  }
  template <class T>
  void memory(T*& pointer, int64_t count, Access access) {
    array(pointer, count, access);
  }
  void store(void*&, int64_t) {}
};

/// Keeps a copy of the parameters for the life of the case.
template <class Struct>
Struct& hold(Case* made, Op op, const Struct& parameters) {
  auto kept = std::make_shared<Struct>(parameters);
  made->op = op;
  made->parameters = kept.get();
  made->held.push_back(kept);
  return *kept;
}

/// hold(), and the bytes of every operand counted once; `added` is what is read before it is written.
template <class Struct>
void finish(Case* made, Op op, const Struct& parameters, double added = 0) {
  TrafficVisitor visitor;
  visit_operands(hold(made, op, parameters), visitor);
  made->bytes = visitor.bytes + added;
}

template <class... Numbers>
double product(Numbers... numbers) {
  return (1.0 * ... * static_cast<double>(numbers));
}

/// Bytes of a tensor where it lies.
inline double size_of(const Tensor& tensor) { return product(stored_count(tensor), dtype_size(tensor.dtype)); }

/// What the tape names in a backward pass, and kernels read the shape of alone.
inline Tensor without_data(Tensor tensor) {
  tensor.data = nullptr;
  return tensor;
}

std::string words(const char* format, ...) __attribute__((format(printf, 1, 2)));

void make_attention(const Spec& spec, Operands& operands, Case* made);
void make_attention_decode(const Spec& spec, Operands& operands, Case* made);
void make_attention_segments(const Spec& spec, Operands& operands, Case* made);
void make_linear(const Spec& spec, Operands& operands, Case* made);
void make_head_logprob(const Spec& spec, Operands& operands, Case* made);
void make_head_logits(const Spec& spec, Operands& operands, Case* made);
void make_patch_embedding(const Spec& spec, Operands& operands, Case* made);
void make_embedding(const Spec& spec, Operands& operands, Case* made);
void make_sample_token(const Spec& spec, Operands& operands, Case* made);
void make_adamw(const Spec& spec, Operands& operands, Case* made);
void make_global_norm(const Spec& spec, Operands& operands, Case* made);
void make_rms_norm(const Spec& spec, Operands& operands, Case* made);
void make_layer_norm(const Spec& spec, Operands& operands, Case* made);
void make_head_norm(const Spec& spec, Operands& operands, Case* made);
void make_swiglu(const Spec& spec, Operands& operands, Case* made);
void make_gelu(const Spec& spec, Operands& operands, Case* made);
void make_relu(const Spec& spec, Operands& operands, Case* made);
void make_rope(const Spec& spec, Operands& operands, Case* made);
void make_rope_table(const Spec& spec, Operands& operands, Case* made);
void make_gather_rows(const Spec& spec, Operands& operands, Case* made);
void make_row_mix(const Spec& spec, Operands& operands, Case* made);
void make_resize_heads(const Spec& spec, Operands& operands, Case* made);
void make_dropout(const Spec& spec, Operands& operands, Case* made);

}  // namespace gavel::bench
