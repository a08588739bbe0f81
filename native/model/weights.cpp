#include "model/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/arena.h"
#include "core/memory.h"
#include "core/philox.h"
#include "ops/adamw.h"

namespace gavel {
namespace {

int64_t source_cols(const SourceTensor& source) { return source.shape.count() / source.shape[0]; }

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
  const std::string advice =
      "Use bf16, a smaller model, an adapter, or narrower optimizer states; estimateMemory() says what a run takes.";
  if (!planning_) GAVEL_RETURN_IF_ERROR(check_memory(total, "weights and their training state", advice));
  auto* data = static_cast<uint8_t*>(allocate_pages(total));
  if (data == nullptr) {
    return Status::error(Code::out_of_memory, "Expected " + std::to_string(total) +
                                                  " bytes for weights but the system refused them. " + advice)
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
    if (!parameter.value) wanted.push_back({&parameter, &parameter.value, parameter.reward_head ? DType::f32 : dtype});
  }
  return allocate_tensors(wanted);
}

Status Weights::ensure_gradients() {
  std::vector<Allocation> wanted;
  std::vector<Parameter*> mastered;
  for (Parameter& parameter : parameters_) {
    if (!parameter.trainable || parameter.grad) continue;
    wanted.push_back({&parameter, &parameter.grad, DType::f32});
    if (parameter.dtype() != DType::bf16 || !state_.masters || parameter.master) continue;
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

void Weights::initialize(uint64_t seed, double std) {
  std::vector<float> row;
  for (Parameter& parameter : parameters_) {
    if (parameter.adapter || parameter.reward_head) continue;
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
                         "Expected a model of the same family, shape, dtype, adapter and reward head to copy weights "
                         "from. Clone the model "
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
    std::memcpy(to.value.data, from.value.data, count * dtype_size(to.dtype()));
    if (!to.master) continue;
    for (size_t j = 0; j < count; ++j) {
      to.master.f32()[j] = from.master ? from.master.f32()[j] : bf16_to_float(from.value.bf16()[j]);
    }
  }
  // The table's own rows, which come back when the adapter is switched off.
  adapter_.base_rows = other.adapter_.base_rows;
  return Status::success();
}

size_t Weights::weight_bytes() const {
  size_t total = 0;
  for (const Parameter& parameter : parameters_) {
    total += static_cast<size_t>(parameter.count()) * dtype_size(parameter.dtype());
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
