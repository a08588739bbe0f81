// The one copy of a model's weights, in the packed layout the kernels read, with gradients, masters and moments in the
// same order. A parameter is what a kernel reads (qkv is one matrix); a source is a tensor of a Hugging Face checkpoint
// and the rows of a parameter it fills. Owned by Model; job thread only.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "core/status.h"
#include "core/tensor.h"

namespace gavel {

struct SourceTensor {
  std::string name;  // in a Hugging Face checkpoint
  Shape shape;       // there; a convolution kernel keeps its own rank, row-major like its flattening
  int64_t row_begin = 0;
};

enum class ParameterKind : uint8_t { matrix, vector, norm, bias, embedding };

struct Parameter {
  std::string name;
  ParameterKind kind = ParameterKind::matrix;
  std::vector<SourceTensor> sources;
  Tensor value;    // id is parameter_id(index)
  Tensor master;   // fp32; only for trainable bf16 values
  Tensor grad;     // fp32; only when trainable
  Tensor moment1;  // fp32, from the first optimizer step
  Tensor moment2;
  bool trainable = true;
  int64_t count() const;  // stored elements, padding included
};

// Tensor ids below -1 name parameters on a tape.
constexpr int32_t parameter_id(int32_t index) { return -2 - index; }
constexpr int32_t parameter_index(int32_t id) { return -2 - id; }

enum class TensorKind : uint8_t { value, master, moment1, moment2, gradient };

class Weights {
 public:
  Weights() = default;
  ~Weights();
  Weights(const Weights&) = delete;
  Weights& operator=(const Weights&) = delete;

  // Declares a parameter (before allocate) and returns its index. rows of matrices: outputs; sources in row order.
  int32_t add(std::string name, ParameterKind kind, std::vector<SourceTensor> sources, Layout layout = Layout::panels);
  Status allocate(DType dtype);

  const Tensor& operator[](int32_t index) const { return parameters_[static_cast<size_t>(index)].value; }
  Parameter& parameter(int32_t index) { return parameters_[static_cast<size_t>(index)]; }
  const Parameter& parameter(int32_t index) const { return parameters_[static_cast<size_t>(index)]; }
  int32_t size() const { return static_cast<int32_t>(parameters_.size()); }
  DType dtype() const { return dtype_; }

  // Gradients (and masters of bf16 values) exist from the first call that needs them; frozen parameters have none.
  Status ensure_gradients();
  Status ensure_moments();
  void zero_gradients();
  void set_trainable(const std::vector<std::string>& source_names);

  // Row-major fp32 copies of one source tensor, to and from the packed order.
  Status read(std::string_view source, TensorKind kind, std::vector<float>* out) const;
  Status write(std::string_view source, TensorKind kind, const float* data, size_t count);
  // Rows [row_begin, row_begin + rows) of the source, so that files stream without a whole copy.
  void read_rows(const Parameter& parameter, const SourceTensor& source, TensorKind kind, int64_t row_begin,
                 int64_t rows, float* out) const;
  void write_rows(Parameter& parameter, const SourceTensor& source, TensorKind kind, int64_t row_begin, int64_t rows,
                  const float* data);
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
  };
  Status allocate_tensors(const std::vector<Allocation>& wanted);
  Tensor* tensor_of(Parameter& parameter, TensorKind kind);
  std::vector<Parameter> parameters_;
  std::vector<std::pair<void*, size_t>> blocks_;
  DType dtype_ = DType::f32;
};

}  // namespace gavel
