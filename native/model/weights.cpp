#include "model/weights.h"

#include <algorithm>
#include <cmath>

#include "core/philox.h"
#include "model/host_rows.h"
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
  for (auto& [data, size] : blocks_) memory_.release(data, size);
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

// Zeros. One mapping for all: a mapping each would round every bias up to a huge page.
Status Weights::allocate_tensors(const std::vector<Allocation>& wanted) {
  size_t total = 0;
  for (const Allocation& one : wanted) total += bytes_of(one);
  if (total == 0) return Status::success();
  const std::string advice =
      "Use bf16, a smaller model, an adapter, or narrower optimizer states; estimateMemory() says what a run takes.";
  const char* const what = "weights and their training state";
  if (!planning_) GAVEL_RETURN_IF_ERROR(memory_.check(total, what, advice));
  uint8_t* data = nullptr;
  GAVEL_RETURN_IF_ERROR(memory_.allocate(total, what, advice, &data));
  blocks_.emplace_back(data, total);
  for (const Allocation& one : wanted) {
    const Tensor& value = one.parameter->value;
    *one.tensor = Tensor{data, value.shape, one.dtype, value.layout, one.tensor->id};
    if (one.scales) *one.tensor = Tensor{data, {state_blocks(one.parameter->count())}, one.dtype};
    data += bytes_of(one);
  }
  if (memory_.on_device()) memory_.clear(blocks_.back().first, total);
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
  for (Parameter* parameter : mastered) fill_master(*parameter);
  return memory_.finish();
}

// By pieces, of which a device's memory is read and written whole.
void Weights::fill_master(Parameter& parameter) {
  constexpr int64_t kPiece = int64_t{1} << 20;
  const int64_t count = parameter.count();
  const auto flat = [](const Tensor& tensor, int64_t elements) {
    return Tensor{tensor.data, {elements}, tensor.dtype, Layout::rows, -1};
  };
  const Tensor value = flat(parameter.value, count), master = flat(parameter.master, count);
  for (int64_t begin = 0; begin < count; begin += kPiece) {
    const int64_t end = std::min(count, begin + kPiece);
    const HostRows from(memory_, value, begin, end - begin, HostRows::Use::read);
    const HostRows to(memory_, master, begin, end - begin, HostRows::Use::write);
    for (int64_t i = begin; i < end; ++i)
      to.tensor().f32()[i - to.first_row()] = bf16_to_float(from.tensor().bf16()[i - from.first_row()]);
  }
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
    if (parameter.grad) memory_.clear(parameter.grad.data, static_cast<size_t>(parameter.count()) * sizeof(float));
  }
}

void Weights::zero_moments() {
  for (Parameter& parameter : parameters_) {
    for (const Tensor* moment : {&parameter.moment1, &parameter.moment2}) {
      if (*moment) memory_.clear(moment->data, static_cast<size_t>(parameter.count()) * dtype_size(moment->dtype));
    }
    for (const Tensor* scales : {&parameter.scales1, &parameter.scales2}) {
      if (*scales) memory_.clear(scales->data, static_cast<size_t>(scales->shape[0]) * sizeof(float));
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
  std::vector<float> values;
  for (Parameter& parameter : parameters_) {
    if (parameter.adapter || parameter.reward_head) continue;
    const bool random = parameter.kind == ParameterKind::matrix || parameter.kind == ParameterKind::embedding;
    for (const SourceTensor& source : parameter.sources) {
      const int64_t cols = source_cols(source);
      const uint64_t item = hash_name(source.name);
      // Whole panels, as they are stored.
      for (int64_t first = 0; first < source.shape[0]; first += kPanel) {
        const int64_t rows = std::min(kPanel, source.shape[0] - first);
        values.assign(static_cast<size_t>(rows * cols), parameter.kind == ParameterKind::norm ? 1.0f : 0.0f);
        for (int64_t i = 0; i < rows * cols && random; ++i) {
          const auto bits =
              random_bits({seed, item, static_cast<uint32_t>(first + i / cols), static_cast<uint32_t>(i % cols)});
          const double u1 = (bits[0] + 0.5) * 0x1p-32, u2 = (bits[1] + 0.5) * 0x1p-32;
          values[static_cast<size_t>(i)] =
              static_cast<float>(std * std::sqrt(-2.0 * std::log(u1)) * std::cos(6.283185307179586 * u2));
        }
        write_rows(parameter, source, TensorKind::value, first, rows, values.data());
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
    memory_.copy(to.value.data, from.value.data, count * dtype_size(to.dtype()));
    if (!to.master) continue;
    if (from.master) {
      memory_.copy(to.master.data, from.master.data, count * sizeof(float));
    } else {
      fill_master(to);
    }
  }
  // The table's own rows, which come back when the adapter is switched off.
  adapter_.base_rows = other.adapter_.base_rows;
  return memory_.finish();
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
