#include "model/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/arena.h"
#include "core/philox.h"

namespace gavel {
namespace {

uint64_t hash_name(std::string_view name) {  // FNV-1a
  uint64_t hash = 0xcbf29ce484222325u;
  for (char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return hash;
}

int64_t source_cols(const SourceTensor& source) { return source.shape.count() / source.shape[0]; }

// Index of element (row, col) of a parameter in its stored order.
int64_t element_index(const Parameter& parameter, DType order, int64_t row, int64_t col) {
  if (parameter.value.shape.rank == 1) return row;
  const int64_t cols = parameter.value.cols();
  if (parameter.value.layout == Layout::panels) return panel_index(row, col, cols, order);
  return row * cols + col;
}

}  // namespace

int64_t Parameter::count() const {
  if (value.shape.rank == 1) return value.shape[0];
  return value.layout == Layout::panels ? panel_count(value.rows(), value.cols()) : value.shape.count();
}

Weights::~Weights() {
  for (auto& [data, size] : blocks_) free_pages(data, size);
}

int32_t Weights::add(std::string name, ParameterKind kind, std::vector<SourceTensor> sources, Layout layout) {
  Parameter parameter;
  parameter.name = std::move(name);
  parameter.kind = kind;
  int64_t rows = 0;
  for (SourceTensor& source : sources) {
    source.row_begin = rows;
    rows += source.shape[0];
  }
  const bool is_vector = sources.front().shape.rank == 1;
  parameter.value.shape = is_vector ? Shape{rows} : Shape{rows, source_cols(sources.front())};
  parameter.value.layout = is_vector ? Layout::rows : layout;
  parameter.value.id = parameter_id(static_cast<int32_t>(parameters_.size()));
  parameter.sources = std::move(sources);
  parameters_.push_back(std::move(parameter));
  return static_cast<int32_t>(parameters_.size()) - 1;
}

Status Weights::allocate_tensor(Tensor* tensor, Shape shape, DType dtype, Layout layout, int64_t count) {
  const size_t size = static_cast<size_t>(count) * dtype_size(dtype);
  // Small tensors share nothing: a page each is the price of one rule. Kernels may read 64 bytes past a vector's end.
  void* data = allocate_pages(size + 64);
  if (data == nullptr) {
    return Status::error(Code::out_of_memory,
                         "Expected " + std::to_string(size) + " bytes for a weight tensor but the system refused them.")
        .with("requestedBytes", std::to_string(size));
  }
  blocks_.emplace_back(data, size + 64);
  const int32_t id = tensor->id;
  *tensor = Tensor{data, shape, dtype, layout, id};
  return Status::success();
}

Status Weights::allocate(DType dtype) {
  dtype_ = dtype;
  for (Parameter& parameter : parameters_) {
    GAVEL_RETURN_IF_ERROR(
        allocate_tensor(&parameter.value, parameter.value.shape, dtype, parameter.value.layout, parameter.count()));
  }
  allocated_ = true;
  return Status::success();
}

Status Weights::ensure_gradients() {
  for (Parameter& parameter : parameters_) {
    if (!parameter.trainable || parameter.grad) continue;
    const Tensor& value = parameter.value;
    GAVEL_RETURN_IF_ERROR(allocate_tensor(&parameter.grad, value.shape, DType::f32, value.layout, parameter.count()));
    if (dtype_ == DType::bf16 && !parameter.master) {
      GAVEL_RETURN_IF_ERROR(
          allocate_tensor(&parameter.master, value.shape, DType::f32, value.layout, parameter.count()));
      for (int64_t i = 0; i < parameter.count(); ++i) parameter.master.f32()[i] = bf16_to_float(value.bf16()[i]);
    }
  }
  return Status::success();
}

Status Weights::ensure_moments() {
  for (Parameter& parameter : parameters_) {
    if (!parameter.trainable || parameter.moment1) continue;
    const Tensor& value = parameter.value;
    GAVEL_RETURN_IF_ERROR(
        allocate_tensor(&parameter.moment1, value.shape, DType::f32, value.layout, parameter.count()));
    GAVEL_RETURN_IF_ERROR(
        allocate_tensor(&parameter.moment2, value.shape, DType::f32, value.layout, parameter.count()));
  }
  return Status::success();
}

void Weights::zero_gradients() {
  for (Parameter& parameter : parameters_) {
    if (parameter.grad) std::memset(parameter.grad.data, 0, static_cast<size_t>(parameter.count()) * sizeof(float));
  }
}

void Weights::set_trainable(const std::vector<std::string>& source_names) {
  for (Parameter& parameter : parameters_) {
    parameter.trainable =
        std::any_of(parameter.sources.begin(), parameter.sources.end(), [&](const SourceTensor& source) {
          return std::find(source_names.begin(), source_names.end(), source.name) != source_names.end();
        });
  }
}

Parameter* Weights::find(std::string_view source, const SourceTensor** found) {
  for (Parameter& parameter : parameters_) {
    for (const SourceTensor& one : parameter.sources) {
      if (one.name == source) {
        *found = &one;
        return &parameter;
      }
    }
  }
  return nullptr;
}

Tensor* Weights::tensor_of(Parameter& parameter, TensorKind kind) {
  switch (kind) {
    case TensorKind::value:
      return &parameter.value;
    case TensorKind::master:
      return &parameter.master;
    case TensorKind::moment1:
      return &parameter.moment1;
    case TensorKind::moment2:
      return &parameter.moment2;
    case TensorKind::gradient:
      return &parameter.grad;
  }
  return nullptr;
}

void Weights::read_rows(const Parameter& parameter, const SourceTensor& source, TensorKind kind, int64_t row_begin,
                        int64_t rows, float* out) const {
  const Tensor& tensor = *const_cast<Weights*>(this)->tensor_of(const_cast<Parameter&>(parameter), kind);
  const int64_t cols = source_cols(source);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t col = 0; col < cols; ++col) {
      const int64_t index = element_index(parameter, dtype_, source.row_begin + row_begin + row, col);
      out[row * cols + col] = tensor.dtype == DType::bf16 ? bf16_to_float(tensor.bf16()[index]) : tensor.f32()[index];
    }
  }
}

void Weights::write_rows(Parameter& parameter, const SourceTensor& source, TensorKind kind, int64_t row_begin,
                         int64_t rows, const float* data) {
  Tensor& tensor = *tensor_of(parameter, kind);
  const int64_t cols = source_cols(source);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t col = 0; col < cols; ++col) {
      const int64_t index = element_index(parameter, dtype_, source.row_begin + row_begin + row, col);
      const float value = data[row * cols + col];
      if (tensor.dtype == DType::bf16) {
        tensor.bf16()[index] = float_to_bf16(value);
      } else {
        tensor.f32()[index] = value;
      }
      // A master follows its value when the value is set from outside; a checkpoint that has masters sets them after.
      if (kind == TensorKind::value && parameter.master) parameter.master.f32()[index] = value;
    }
  }
}

Status Weights::read(std::string_view source, TensorKind kind, std::vector<float>* out) const {
  const SourceTensor* found = nullptr;
  Parameter* parameter = const_cast<Weights*>(this)->find(source, &found);
  if (parameter == nullptr) {
    return Status::error(Code::invalid_argument,
                         "Expected the name of a tensor of this model but received \"" + std::string(source) + "\".");
  }
  if (!*const_cast<Weights*>(this)->tensor_of(*parameter, kind)) {
    return Status::error(Code::invalid_argument,
                         "Expected a trainable tensor with that state for \"" + std::string(source) +
                             "\" but it has none yet. It exists after the first training step.");
  }
  out->resize(static_cast<size_t>(found->shape.count()));
  read_rows(*parameter, *found, kind, 0, found->shape[0], out->data());
  return Status::success();
}

Status Weights::write(std::string_view source, TensorKind kind, const float* data, size_t count) {
  const SourceTensor* found = nullptr;
  Parameter* parameter = find(source, &found);
  if (parameter == nullptr) {
    return Status::error(Code::invalid_argument,
                         "Expected the name of a tensor of this model but received \"" + std::string(source) + "\".");
  }
  if (static_cast<int64_t>(count) != found->shape.count()) {
    return Status::error(Code::invalid_argument, "Expected " + std::to_string(found->shape.count()) + " values for \"" +
                                                     std::string(source) + "\" but received " + std::to_string(count) +
                                                     ".");
  }
  if (kind != TensorKind::value) {
    GAVEL_RETURN_IF_ERROR(ensure_gradients());
    GAVEL_RETURN_IF_ERROR(ensure_moments());
    if (!*tensor_of(*parameter, kind)) {
      return Status::error(Code::invalid_argument, "Expected a trainable tensor for \"" + std::string(source) +
                                                       "\" but it is frozen or has no master.");
    }
  }
  write_rows(*parameter, *found, kind, 0, found->shape[0], data);
  return Status::success();
}

void Weights::initialize(uint64_t seed, double std) {
  std::vector<float> row;
  for (Parameter& parameter : parameters_) {
    for (const SourceTensor& source : parameter.sources) {
      const int64_t cols = source_cols(source);
      const uint64_t item = hash_name(source.name);
      row.resize(static_cast<size_t>(cols));
      for (int64_t r = 0; r < source.shape[0]; ++r) {
        for (int64_t c = 0; c < cols; ++c) {
          float value = 0.0f;
          if (parameter.kind == ParameterKind::norm) value = 1.0f;
          if (parameter.kind == ParameterKind::matrix || parameter.kind == ParameterKind::embedding) {
            const auto bits = random_bits({seed, item, static_cast<uint32_t>(r), static_cast<uint32_t>(c)});
            const double u1 = (bits[0] + 0.5) * 0x1p-32, u2 = (bits[1] + 0.5) * 0x1p-32;
            value = static_cast<float>(std * std::sqrt(-2.0 * std::log(u1)) * std::cos(6.283185307179586 * u2));
          }
          row[static_cast<size_t>(c)] = value;
        }
        write_rows(parameter, source, TensorKind::value, r, 1, row.data());
      }
    }
  }
}

Status Weights::copy_from(const Weights& other) {
  if (other.size() != size() || other.dtype_ != dtype_) {
    return Status::error(Code::invalid_argument,
                         "Expected a model of the same family, shape and dtype to copy weights from.");
  }
  for (int32_t i = 0; i < size(); ++i) {
    if (!(other.parameter(i).value.shape == parameter(i).value.shape)) {
      return Status::error(Code::invalid_argument,
                           "Expected the shape of \"" + parameter(i).name + "\" to be equal in both models.");
    }
  }
  for (int32_t i = 0; i < size(); ++i) {
    Parameter& to = parameter(i);
    const Parameter& from = other.parameter(i);
    const size_t count = static_cast<size_t>(to.count());
    std::memcpy(to.value.data, from.value.data, count * dtype_size(dtype_));
    if (!to.master) continue;
    for (size_t j = 0; j < count; ++j) {
      to.master.f32()[j] = from.master ? from.master.f32()[j] : bf16_to_float(from.value.bf16()[j]);
    }
  }
  return Status::success();
}

size_t Weights::weight_bytes() const {
  size_t total = 0;
  for (const Parameter& parameter : parameters_) {
    total += static_cast<size_t>(parameter.count()) * dtype_size(dtype_);
    if (parameter.master) total += static_cast<size_t>(parameter.count()) * sizeof(float);
  }
  return total;
}

size_t Weights::gradient_bytes() const {
  size_t total = 0;
  for (const Parameter& parameter : parameters_) {
    if (parameter.grad) total += static_cast<size_t>(parameter.count()) * sizeof(float);
  }
  return total;
}

size_t Weights::optimizer_bytes() const {
  size_t total = 0;
  for (const Parameter& parameter : parameters_) {
    if (parameter.moment1) total += 2 * static_cast<size_t>(parameter.count()) * sizeof(float);
  }
  return total;
}

}  // namespace gavel
