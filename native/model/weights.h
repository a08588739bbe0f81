// The one copy of a model's weights, in the packed layout the kernels read, with gradients, masters and moments in the
// same order. A parameter is what a kernel reads (qkv is one matrix); a source is a tensor of a Hugging Face checkpoint
// and the rows of a parameter it fills. Owned by Model; job thread only.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "core/status.h"
#include "core/tensor.h"
#include "core/tensor_memory.h"
#include "model/adapter.h"
#include "model/panel_copy.h"
#include "model/training_state.h"

namespace gavel {

struct SourceTensor {
  std::string name;  // in a Hugging Face checkpoint
  Shape shape;       // there; a convolution kernel keeps its own rank, row-major like its flattening
  int64_t row_begin = 0, col_begin = 0;
};

enum class ParameterKind : uint8_t { matrix, vector, norm, bias, embedding };

struct Parameter {
  std::string name;
  ParameterKind kind = ParameterKind::matrix;
  std::vector<SourceTensor> sources;
  Tensor value;    // id is parameter_id(index)
  Tensor master;   // fp32; only for trainable bf16 values
  Tensor grad;     // fp32; only when trainable
  Tensor moment1;  // of the training state's type, from the first optimizer step
  Tensor moment2;
  Tensor scales1;  // fp32 [state_blocks(count())]; only of 8-bit moments
  Tensor scales2;
  bool trainable = true;
  bool adapter = false;                  // part of an adapter, not of the base model
  bool reward_head = false;              // fp32 whatever the model's dtype, and never frozen by an adapter
  int32_t lora_down = -1, lora_up = -1;  // the adapter of a matrix, or none
  std::vector<float> lora_scale;         // by row of lora_down
  int64_t count() const;                 // stored elements, padding included
  // Of the value, whose order its gradient, master and moments share.
  DType dtype() const { return value.dtype; }
};

// Of a tensor's or a parameter's name: the item of its random numbers.
uint64_t hash_name(std::string_view name);

// Tensor ids below -1 name parameters on a tape.
constexpr int32_t parameter_id(int32_t index) { return -2 - index; }
constexpr int32_t parameter_index(int32_t id) { return -2 - id; }

// merged: the value with its adapter added; for reading and saving only. 8-bit moments are saved as codes, in the
// source's own rows, and scales, which belong to the whole parameter and run over its packed order.
enum class TensorKind : uint8_t { value, master, moment1, moment2, gradient, merged, codes1, codes2, scales1, scales2 };
constexpr bool is_codes(TensorKind kind) { return kind == TensorKind::codes1 || kind == TensorKind::codes2; }
constexpr bool is_scales(TensorKind kind) { return kind == TensorKind::scales1 || kind == TensorKind::scales2; }

class Weights {
 public:
  Weights() = default;
  ~Weights();
  Weights(const Weights&) = delete;
  Weights& operator=(const Weights&) = delete;

  // Declares a parameter (before allocate) and returns its index. rows of matrices: outputs; sources in row order.
  int32_t add(std::string name, ParameterKind kind, std::vector<SourceTensor> sources, Layout layout = Layout::panels);
  // A matrix of this shape whose sources lie at their own row_begin and col_begin; the rest stays zero.
  int32_t add_blocks(std::string name, int64_t rows, int64_t cols, std::vector<SourceTensor> sources);
  // Zero values for every parameter that has none yet.
  Status allocate(DType dtype);

  const Tensor& operator[](int32_t index) const { return parameters_[static_cast<size_t>(index)].value; }
  Parameter& parameter(int32_t index) { return parameters_[static_cast<size_t>(index)]; }
  const Parameter& parameter(int32_t index) const { return parameters_[static_cast<size_t>(index)]; }
  int32_t size() const { return static_cast<int32_t>(parameters_.size()); }
  Adapter& adapter() { return adapter_; }
  const Adapter& adapter() const { return adapter_; }
  DType dtype() const { return dtype_; }

  const TrainingState& training_state() const { return state_; }
  // Before the first gradient.
  void set_training_state(const TrainingState& state) { state_ = state; }
  // Memory is reserved and stays untouched: whoever fills tensors leaves them alone.
  bool planning() const { return planning_; }
  // Where tensors live; before the first allocation.
  const TensorMemory& memory() const { return memory_; }
  void set_memory(const TensorMemory& memory) { memory_ = memory; }
  void set_planning(bool planning) { planning_ = planning; }
  // Gradients (and masters of bf16 values) exist from the first call that needs them; frozen parameters have none.
  Status ensure_gradients();
  Status ensure_moments();
  void zero_gradients();
  void zero_moments();
  void set_trainable(const std::vector<std::string>& source_names);

  // Row-major fp32 copies of one source tensor, to and from the packed order.
  Status read(std::string_view source, TensorKind kind, std::vector<float>* out) const;
  Status write(std::string_view source, TensorKind kind, const float* data, size_t count);
  // Rows [row_begin, row_begin + rows) of the source, so that files stream without a whole copy.
  void read_rows(const Parameter& parameter, const SourceTensor& source, TensorKind kind, int64_t row_begin,
                 int64_t rows, float* out) const;
  void write_rows(Parameter& parameter, const SourceTensor& source, TensorKind kind, int64_t row_begin, int64_t rows,
                  const float* data);
  // The same of a value whose rows already have its dtype, without a master.
  void write_stored_rows(Parameter& parameter, const TensorBlock& block, const void* data);
  void read_stored_rows(const Parameter& parameter, const TensorBlock& block, void* data) const;
  // Rows and columns that a kind of a source has: those of its shape, but [blocks, 1] for scales.
  struct Extent {
    int64_t rows, cols;
  };
  static Extent extent(const Parameter& parameter, const SourceTensor& source, TensorKind kind);
  // Null when no parameter has that source.
  Parameter* find(std::string_view source, const SourceTensor** found);
  // Seeded by (seed, source name, element), so a checkpoint of the same config and seed is the same on any machine.
  void initialize(uint64_t seed, double std);
  Status copy_from(const Weights& other);

  size_t weight_bytes() const;
  size_t gradient_bytes() const;
  size_t optimizer_bytes() const;

 private:
  struct Allocation {
    Parameter* parameter;
    Tensor* tensor;
    DType dtype;
    bool scales = false;  // one element a block, not one an element
  };
  static size_t bytes_of(const Allocation& one);
  Status allocate_tensors(const std::vector<Allocation>& wanted);
  Tensor* tensor_of(Parameter& parameter, TensorKind kind);
  void read_codes(const Parameter& parameter, const TensorBlock& block, TensorKind kind, float* out) const;
  void fill_master(Parameter& parameter);
  std::vector<Parameter> parameters_;
  Adapter adapter_;
  std::vector<std::pair<void*, size_t>> blocks_;
  TensorMemory memory_;
  DType dtype_ = DType::f32;
  TrainingState state_;
  bool planning_ = false;
};

}  // namespace gavel
