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

// Kernels may read 64 bytes past a vector's end.
size_t allocation_bytes(const Parameter& parameter, DType dtype) {
  return (static_cast<size_t>(parameter.count()) * dtype_size(dtype) + 64 + 63) / 64 * 64;
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

// One mapping for all: a mapping each would round every bias up to a huge page.
Status Weights::allocate_tensors(const std::vector<Allocation>& wanted) {
  size_t total = 0;
  for (const Allocation& one : wanted) total += allocation_bytes(*one.parameter, one.dtype);
  if (total == 0) return Status::success();
  auto* data = static_cast<uint8_t*>(allocate_pages(total));
  if (data == nullptr) {
    return Status::error(Code::out_of_memory,
                         "Expected " + std::to_string(total) +
                             " bytes for weights but the system refused them. Use bf16 or a smaller "
                             "model.")
        .with("requestedBytes", std::to_string(total));
  }
  blocks_.emplace_back(data, total);
  for (const Allocation& one : wanted) {
    const Tensor& value = one.parameter->value;
    *one.tensor = Tensor{data, value.shape, one.dtype, value.layout, one.tensor->id};
    data += allocation_bytes(*one.parameter, one.dtype);
  }
  return Status::success();
}

Status Weights::allocate(DType dtype) {
  dtype_ = dtype;
  std::vector<Allocation> wanted;
  for (Parameter& parameter : parameters_) wanted.push_back({&parameter, &parameter.value, dtype});
  return allocate_tensors(wanted);
}

Status Weights::ensure_gradients() {
  std::vector<Allocation> wanted;
  std::vector<Parameter*> mastered;
  for (Parameter& parameter : parameters_) {
    if (!parameter.trainable || parameter.grad) continue;
    wanted.push_back({&parameter, &parameter.grad, DType::f32});
    if (dtype_ != DType::bf16 || parameter.master) continue;
    wanted.push_back({&parameter, &parameter.master, DType::f32});
    mastered.push_back(&parameter);
  }
  GAVEL_RETURN_IF_ERROR(allocate_tensors(wanted));
  for (Parameter* parameter : mastered) {
    const int64_t count = parameter->count();
    for (int64_t i = 0; i < count; ++i) parameter->master.f32()[i] = bf16_to_float(parameter->value.bf16()[i]);
  }
  return Status::success();
}

Status Weights::ensure_moments() {
  std::vector<Allocation> wanted;
  for (Parameter& parameter : parameters_) {
    if (!parameter.trainable || parameter.moment1) continue;
    wanted.push_back({&parameter, &parameter.moment1, DType::f32});
    wanted.push_back({&parameter, &parameter.moment2, DType::f32});
  }
  return allocate_tensors(wanted);
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
