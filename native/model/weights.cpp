#include "model/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/arena.h"
#include "core/memory.h"
#include "core/philox.h"
#include "model/panel_copy.h"
#include "ops/adamw.h"

namespace gavel {
namespace {

int64_t source_cols(const SourceTensor& source) { return source.shape.count() / source.shape[0]; }

// Index of element (row, col) of a parameter in its stored order.
int64_t element_index(const Parameter& parameter, DType order, int64_t row, int64_t col) {
  if (parameter.value.shape.rank == 1) return row;
  const int64_t cols = parameter.value.cols();
  if (parameter.value.layout == Layout::panels) return panel_index(row, col, cols, order);
  return row * cols + col;
}

// Elements of a moment: fp32, bf16 or codes of the dynamic map of its scale.
float load_moment(const Tensor& moment, const Tensor& scales, const std::array<float, 256>& map, int64_t index) {
  if (moment.dtype != DType::u8)
    return moment.dtype == DType::bf16 ? bf16_to_float(moment.bf16()[index]) : moment.f32()[index];
  return map[static_cast<const uint8_t*>(moment.data)[index]] * scales.f32()[index / kStateBlock];
}

}  // namespace

uint64_t hash_name(std::string_view name) {  // FNV-1a
  uint64_t hash = 0xcbf29ce484222325u;
  for (char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return hash;
}

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

int32_t Weights::add_blocks(std::string name, int64_t rows, int64_t cols, std::vector<SourceTensor> sources) {
  Parameter parameter;
  parameter.name = std::move(name);
  parameter.kind = ParameterKind::matrix;
  parameter.sources = std::move(sources);
  parameter.value.shape = {rows, cols};
  parameter.value.layout = Layout::panels;
  parameter.value.id = parameter_id(static_cast<int32_t>(parameters_.size()));
  parameters_.push_back(std::move(parameter));
  return static_cast<int32_t>(parameters_.size()) - 1;
}

// Kernels may read 64 bytes past a vector's end.
size_t Weights::bytes_of(const Allocation& one) {
  const int64_t count = one.scales ? state_blocks(one.parameter->count()) : one.parameter->count();
  return (static_cast<size_t>(count) * dtype_size(one.dtype) + 64 + 63) / 64 * 64;
}

// One mapping for all: a mapping each would round every bias up to a huge page.
Status Weights::allocate_tensors(const std::vector<Allocation>& wanted) {
  size_t total = 0;
  for (const Allocation& one : wanted) total += bytes_of(one);
  if (total == 0) return Status::success();
  const std::string todo =
      "Use bf16, a smaller model, an adapter, or narrower optimizer states; estimateMemory() says what a run takes.";
  if (!planning_) GAVEL_RETURN_IF_ERROR(check_memory(total, "weights and their training state", todo));
  auto* data = static_cast<uint8_t*>(allocate_pages(total));
  if (data == nullptr) {
    return Status::error(Code::out_of_memory, "Expected " + std::to_string(total) +
                                                  " bytes for weights but the system refused them. " + todo)
        .with("requestedBytes", std::to_string(total));
  }
  blocks_.emplace_back(data, total);
  for (const Allocation& one : wanted) {
    const Tensor& value = one.parameter->value;
    *one.tensor = Tensor{data, value.shape, one.dtype, value.layout, one.tensor->id};
    if (one.scales) *one.tensor = Tensor{data, {state_blocks(one.parameter->count())}, one.dtype};
    data += bytes_of(one);
  }
  return Status::success();
}

Status Weights::allocate(DType dtype) {
  dtype_ = dtype;
  std::vector<Allocation> wanted;
  for (Parameter& parameter : parameters_) {
    if (!parameter.value) wanted.push_back({&parameter, &parameter.value, dtype});
  }
  return allocate_tensors(wanted);
}

Status Weights::ensure_gradients() {
  std::vector<Allocation> wanted;
  std::vector<Parameter*> mastered;
  for (Parameter& parameter : parameters_) {
    if (!parameter.trainable || parameter.grad) continue;
    wanted.push_back({&parameter, &parameter.grad, DType::f32});
    if (dtype_ != DType::bf16 || !state_.masters || parameter.master) continue;
    wanted.push_back({&parameter, &parameter.master, DType::f32});
    mastered.push_back(&parameter);
  }
  GAVEL_RETURN_IF_ERROR(allocate_tensors(wanted));
  if (planning_) return Status::success();
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
    wanted.push_back({&parameter, &parameter.moment1, state_.moments});
    wanted.push_back({&parameter, &parameter.moment2, state_.moments});
    if (state_.moments != DType::u8) continue;
    wanted.push_back({&parameter, &parameter.scales1, DType::f32, true});
    wanted.push_back({&parameter, &parameter.scales2, DType::f32, true});
  }
  return allocate_tensors(wanted);
}

void Weights::zero_gradients() {
  for (Parameter& parameter : parameters_) {
    if (parameter.grad) std::memset(parameter.grad.data, 0, static_cast<size_t>(parameter.count()) * sizeof(float));
  }
}

void Weights::zero_moments() {
  for (Parameter& parameter : parameters_) {
    for (const Tensor* moment : {&parameter.moment1, &parameter.moment2}) {
      if (*moment) std::memset(moment->data, 0, static_cast<size_t>(parameter.count()) * dtype_size(moment->dtype));
    }
    for (const Tensor* scales : {&parameter.scales1, &parameter.scales2}) {
      if (*scales) std::memset(scales->data, 0, static_cast<size_t>(scales->shape[0]) * sizeof(float));
    }
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
    case TensorKind::merged:
      return &parameter.value;
    case TensorKind::master:
      return &parameter.master;
    case TensorKind::moment1:
      return &parameter.moment1;
    case TensorKind::moment2:
      return &parameter.moment2;
    case TensorKind::gradient:
      return &parameter.grad;
    // Codes exist where scales do: other moments have none.
    case TensorKind::codes1:
      return parameter.scales1 ? &parameter.moment1 : &parameter.scales1;
    case TensorKind::codes2:
      return parameter.scales2 ? &parameter.moment2 : &parameter.scales2;
    case TensorKind::scales1:
      return &parameter.scales1;
    case TensorKind::scales2:
      return &parameter.scales2;
  }
  return nullptr;
}

Weights::Extent Weights::extent(const Parameter& parameter, const SourceTensor& source, TensorKind kind) {
  if (is_scales(kind)) return {state_blocks(parameter.count()), 1};
  const int64_t rows = source.shape[0];
  return {rows, rows == 0 ? 0 : source.shape.count() / rows};
}

void Weights::read_rows(const Parameter& parameter, const SourceTensor& source, TensorKind kind, int64_t row_begin,
                        int64_t rows, float* out) const {
  const Tensor& tensor = *const_cast<Weights*>(this)->tensor_of(const_cast<Parameter&>(parameter), kind);
  if (is_scales(kind)) {
    std::memcpy(out, tensor.f32() + row_begin, static_cast<size_t>(rows) * sizeof(float));
    return;
  }
  const int64_t cols = source_cols(source);
  if (tensor.dtype != DType::u8) {
    read_block(tensor, dtype_, {source.row_begin + row_begin, source.col_begin, rows, cols}, out);
  } else {
    const bool first = kind == TensorKind::moment1;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t col = 0; col < cols; ++col) {
        const int64_t index =
            element_index(parameter, dtype_, source.row_begin + row_begin + row, source.col_begin + col);
        float& value = out[row * cols + col];
        if (is_codes(kind)) {
          value = static_cast<const uint8_t*>(tensor.data)[index];
        } else {
          value = load_moment(tensor, first ? parameter.scales1 : parameter.scales2, first ? kSignedMap : kUnsignedMap,
                              index);
        }
      }
    }
  }
  if (kind == TensorKind::merged)
    add_adapter_rows(*this, parameter_index(parameter.value.id), source.row_begin + row_begin, rows, out);
}

void Weights::write_rows(Parameter& parameter, const SourceTensor& source, TensorKind kind, int64_t row_begin,
                         int64_t rows, const float* data) {
  Tensor& tensor = *tensor_of(parameter, kind);
  if (is_scales(kind)) {
    std::memcpy(tensor.f32() + row_begin, data, static_cast<size_t>(rows) * sizeof(float));
    return;
  }
  const int64_t cols = source_cols(source);
  const TensorBlock block{source.row_begin + row_begin, source.col_begin, rows, cols};
  if (tensor.dtype != DType::u8) {
    write_block(tensor, dtype_, block, data);
    // A master follows its value when the value is set from outside; a checkpoint that has masters sets them after.
    if (kind == TensorKind::value && parameter.master) write_block(parameter.master, dtype_, block, data);
    return;
  }
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t col = 0; col < cols; ++col) {
      const int64_t index = element_index(parameter, dtype_, block.row_begin + row, block.col_begin + col);
      static_cast<uint8_t*>(tensor.data)[index] = static_cast<uint8_t>(data[row * cols + col]);
    }
  }
}

Status Weights::read(std::string_view source, TensorKind kind, std::vector<float>* out) const {
  const SourceTensor* found = nullptr;
  Parameter* parameter = const_cast<Weights*>(this)->find(source, &found);
  if (parameter == nullptr) {
    return Status::error(Code::invalid_argument, "Expected the name of a tensor of this model but received \"" +
                                                     std::string(source) + "\". model.tensors() lists them.");
  }
  if (!*const_cast<Weights*>(this)->tensor_of(*parameter, kind)) {
    return Status::error(Code::invalid_argument,
                         "Expected a trainable tensor with that state for \"" + std::string(source) +
                             "\" but it has none yet. It exists after the first training step.");
  }
  const Extent size = extent(*parameter, *found, kind);
  out->resize(static_cast<size_t>(size.rows * size.cols));
  read_rows(*parameter, *found, kind, 0, size.rows, out->data());
  return Status::success();
}

Status Weights::write(std::string_view source, TensorKind kind, const float* data, size_t count) {
  const SourceTensor* found = nullptr;
  Parameter* parameter = find(source, &found);
  if (parameter == nullptr) {
    return Status::error(Code::invalid_argument, "Expected the name of a tensor of this model but received \"" +
                                                     std::string(source) + "\". model.tensors() lists them.");
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
      return Status::error(Code::invalid_argument,
                           "Expected a trainable tensor for \"" + std::string(source) +
                               "\" but it is frozen or has no master. model.tensors() says which train.");
    }
    if (tensor_of(*parameter, kind)->dtype == DType::u8 || is_scales(kind)) {
      return Status::error(Code::unsupported, "Expected fp32 or bf16 moments to write but those of \"" +
                                                  std::string(source) +
                                                  "\" are 8-bit codes, which share a scale with their neighbours. Load "
                                                  "a saved checkpoint, or make the model with other optimizer states.");
    }
  }
  write_rows(*parameter, *found, kind, 0, found->shape[0], data);
  refresh_token_rows(*this);
  return Status::success();
}

void Weights::initialize(uint64_t seed, double std) {
  std::vector<float> row;
  for (Parameter& parameter : parameters_) {
    if (parameter.adapter) continue;
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
    return Status::error(
        Code::invalid_argument,
        "Expected a model of the same family, shape, dtype and adapter to copy weights from. Clone the model "
        "instead.");
  }
  for (int32_t i = 0; i < size(); ++i) {
    if (!(other.parameter(i).value.shape == parameter(i).value.shape)) {
      return Status::error(Code::invalid_argument, "Expected the shape of \"" + parameter(i).name +
                                                       "\" to be equal in both models. Clone the model instead.");
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
    for (const Tensor* moment : {&parameter.moment1, &parameter.moment2}) {
      if (*moment) total += static_cast<size_t>(parameter.count()) * dtype_size(moment->dtype);
    }
    for (const Tensor* scales : {&parameter.scales1, &parameter.scales2}) {
      if (*scales) total += static_cast<size_t>(scales->shape[0]) * sizeof(float);
    }
  }
  return total;
}

}  // namespace gavel
