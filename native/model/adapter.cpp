#include "model/adapter.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/philox.h"
#include "model/host_rows.h"
#include "model/weights.h"
#include "ops/head_logprob.h"

namespace gavel {
namespace {

constexpr const char* kEmbedding = "embedding";

Status refuse(std::string message) { return Status::error(Code::invalid_argument, std::move(message)); }

float load_element(const Tensor& tensor, int64_t index) {
  return tensor.dtype == DType::bf16 ? bf16_to_float(tensor.bf16()[index]) : tensor.f32()[index];
}

int64_t element(const Tensor& tensor, int64_t row, int64_t col) {
  if (tensor.layout == Layout::panels) return panel_index(row, col, tensor.cols(), tensor.dtype);
  return row * tensor.cols() + col;
}

// "model.layers.0.self_attn.q_proj.weight" -> "...q_proj.lora_A.weight".
std::string adapter_name(const std::string& source, const char* part) {
  constexpr std::string_view kSuffix = ".weight";
  return source.substr(0, source.size() - kSuffix.size()) + "." + part + std::string(kSuffix);
}

// A ~ U(-1/sqrt(K), 1/sqrt(K)): kaiming_uniform with a = sqrt(5), as PEFT and torch.nn.Linear begin.
void fill_down(Weights& weights, Parameter& down, uint64_t seed) {
  const int64_t cols = down.value.cols();
  const float bound = static_cast<float>(1.0 / std::sqrt(static_cast<double>(cols)));
  std::vector<float> values;
  for (const SourceTensor& source : down.sources) {
    const uint64_t item = hash_name(source.name);
    values.resize(static_cast<size_t>(source.shape[0] * cols));
    for (int64_t r = 0; r < source.shape[0]; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        const float uniform = random_uniform({seed, item, static_cast<uint32_t>(r), static_cast<uint32_t>(c)});
        values[static_cast<size_t>(r * cols + c)] = bound * (2.0f * uniform - 1.0f);
      }
    }
    weights.write_rows(down, source, TensorKind::value, 0, source.shape[0], values.data());
  }
}

Status check_targets(Weights& weights, const AdapterOptions& options) {
  for (const auto& [name, rank, scale] : options.targets) {
    if (rank < 1) return refuse("Expected an adapter rank of at least 1 for \"" + name + "\".");
    const SourceTensor* source = nullptr;
    const Parameter* parameter = weights.find(name, &source);
    if (parameter == nullptr) return refuse("Expected adapter targets of this model but it has no \"" + name + "\".");
    if (parameter->kind != ParameterKind::matrix || parameter->reward_head || !name.ends_with(".weight") ||
        source->shape.rank != 2) {
      return refuse("Expected the weight of a linear layer as adapter target but \"" + name +
                    "\" is none. Leave it out of the targets.");
    }
  }
  return Status::success();
}

void add_matrices(Weights& weights, const AdapterOptions& options) {
  const int32_t count = weights.size();
  for (int32_t index = 0; index < count; ++index) {
    const Parameter& base = weights.parameter(index);
    std::vector<SourceTensor> down, up;
    std::vector<float> scales;
    for (const SourceTensor& source : base.sources) {
      const auto target = std::find_if(options.targets.begin(), options.targets.end(),
                                       [&](const AdapterTarget& one) { return one.name == source.name; });
      if (target == options.targets.end()) continue;
      const auto at = static_cast<int64_t>(scales.size());
      down.push_back({adapter_name(source.name, "lora_A"), {target->rank, base.value.cols()}});
      up.push_back({adapter_name(source.name, "lora_B"), {source.shape[0], target->rank}, source.row_begin, at});
      scales.insert(scales.end(), static_cast<size_t>(target->rank), static_cast<float>(target->scale));
    }
    if (down.empty()) continue;
    const std::string name = base.name;
    const int64_t rows = base.value.rows(), width = static_cast<int64_t>(scales.size());
    const int32_t down_index = weights.add(name + ".lora_A", ParameterKind::matrix, std::move(down));
    const int32_t up_index = weights.add_blocks(name + ".lora_B", rows, width, std::move(up));
    weights.parameter(index).lora_down = down_index;
    weights.parameter(index).lora_up = up_index;
    weights.parameter(index).lora_scale = std::move(scales);
  }
}

Status add_tokens(Weights& weights, const AdapterOptions& options) {
  if (options.tokens.empty()) return Status::success();
  Adapter& adapter = weights.adapter();
  for (int32_t i = 0; i < weights.size(); ++i) {
    if (weights.parameter(i).name == kEmbedding) adapter.embedding = i;
  }
  if (adapter.embedding < 0) return Status::error(Code::internal, "Expected a parameter named \"embedding\".");
  const Tensor& table = weights[adapter.embedding];
  adapter.row_of_token.assign(static_cast<size_t>(table.rows()), -1);
  for (size_t i = 0; i < options.tokens.size(); ++i) {
    const int32_t token = options.tokens[i];
    if (token < 0 || token >= table.rows() || adapter.row_of_token[static_cast<size_t>(token)] >= 0) {
      return refuse("Expected distinct trainable tokens below the vocabulary size " + std::to_string(table.rows()) +
                    " but received " + std::to_string(token) + ".");
    }
    adapter.row_of_token[static_cast<size_t>(token)] = static_cast<int32_t>(i);
  }
  adapter.tokens = options.tokens;
  std::string name = weights.parameter(adapter.embedding).sources.front().name;
  name = name.substr(0, name.size() - std::string_view(".weight").size()) + ".trainable_tokens";
  const int64_t hidden = table.cols(), count = static_cast<int64_t>(options.tokens.size());
  adapter.token_rows =
      weights.add("trainable_tokens", ParameterKind::embedding, {{name, {count, hidden}}}, Layout::rows);
  return Status::success();
}

void copy_token_rows(Weights& weights, bool trained) {
  Adapter& adapter = weights.adapter();
  if (adapter.token_rows < 0 || weights.planning()) return;
  const Tensor& table = weights[adapter.embedding];
  const int64_t hidden = table.cols();
  const HostRows rows(weights.memory(), weights[adapter.token_rows], HostRows::Use::read);
  for (size_t i = 0; i < adapter.tokens.size(); ++i) {
    const HostRows held(weights.memory(), table, adapter.tokens[i], 1, HostRows::Use::write);
    const Tensor& to = held.tensor();
    for (int64_t k = 0; k < hidden; ++k) {
      const int64_t from = static_cast<int64_t>(i) * hidden + k;
      const int64_t at = element(to, adapter.tokens[i] - held.first_row(), k);
      const float value = trained ? load_element(rows.tensor(), from) : adapter.base_rows[static_cast<size_t>(from)];
      if (to.dtype == DType::bf16) {
        to.bf16()[at] = float_to_bf16(value);
      } else {
        to.f32()[at] = value;
      }
    }
  }
}

}  // namespace

Status attach_adapter(Weights& weights, const AdapterOptions& options) {
  Adapter& adapter = weights.adapter();
  if (adapter.attached) return refuse("Expected a model without an adapter but it has one. Load the base model again.");
  GAVEL_RETURN_IF_ERROR(check_targets(weights, options));
  const int32_t base_count = weights.size();
  GAVEL_RETURN_IF_ERROR(add_tokens(weights, options));
  add_matrices(weights, options);
  for (int32_t i = 0; i < weights.size(); ++i) {
    weights.parameter(i).adapter = i >= base_count;
    weights.parameter(i).trainable = weights.parameter(i).adapter || weights.parameter(i).reward_head;
  }
  GAVEL_RETURN_IF_ERROR(weights.allocate(weights.dtype()));
  adapter.attached = true;
  adapter.seed = options.seed;
  adapter.dropout = static_cast<float>(options.dropout);
  if (weights.planning()) return Status::success();
  for (int32_t i = 0; i < base_count; ++i) {
    const int32_t down = weights.parameter(i).lora_down;
    if (down >= 0) fill_down(weights, weights.parameter(down), options.seed);
  }
  if (adapter.token_rows >= 0) {
    const Tensor& table = weights[adapter.embedding];
    for (int32_t token : adapter.tokens) {
      const HostRows held(weights.memory(), table, token, 1, HostRows::Use::read);
      for (int64_t k = 0; k < table.cols(); ++k) {
        adapter.base_rows.push_back(load_element(held.tensor(), element(held.tensor(), token - held.first_row(), k)));
      }
    }
    Parameter& rows = weights.parameter(adapter.token_rows);
    weights.write_rows(rows, rows.sources.front(), TensorKind::value, 0, rows.value.rows(), adapter.base_rows.data());
  }
  return weights.memory().finish();
}

void set_adapter_on(Weights& weights, bool on) {
  if (weights.adapter().on == on) return;
  weights.adapter().on = on;
  copy_token_rows(weights, on);
}

AdapterScope::AdapterScope(Weights& weights, bool on, float dropout, uint32_t step) : weights_(weights) {
  set_adapter_on(weights, on);
  weights.adapter().active_dropout = dropout;
  weights.adapter().step = step;
}

AdapterScope::~AdapterScope() {
  set_adapter_on(weights_, true);
  weights_.adapter().active_dropout = 0.0f;
}

void refresh_token_rows(Weights& weights) {
  if (weights.adapter().on) copy_token_rows(weights, true);
}

void mask_adapter_gradients(Weights& weights) {
  if (weights.planning()) return;
  for (int32_t i = 0; i < weights.size(); ++i) {
    const int32_t up = weights.parameter(i).lora_up;
    if (up < 0 || !weights.parameter(up).grad) continue;
    const Parameter& parameter = weights.parameter(up);
    const int64_t cols = parameter.value.cols(), sources = static_cast<int64_t>(parameter.sources.size());
    const SourceTensor& first = parameter.sources.front();
    if (sources == 1 && first.shape[0] == parameter.value.rows() && first.shape[1] == cols) continue;
    const HostRows held(weights.memory(), parameter.grad, HostRows::Use::write);
    const auto zero = [&](int64_t row, int64_t begin, int64_t end) {
      for (int64_t col = begin; col < end; ++col)
        held.tensor().f32()[panel_index(row, col, cols, weights.dtype())] = 0.0f;
    };
    int64_t next = 0;  // sources stand in row order; rows between them belong to sources without an adapter
    for (const SourceTensor& source : parameter.sources) {
      for (; next < source.row_begin; ++next) zero(next, 0, cols);
      for (const int64_t end = source.row_begin + source.shape[0]; next < end; ++next) {
        zero(next, 0, source.col_begin);
        zero(next, source.col_begin + source.shape[1], cols);
      }
    }
    for (; next < parameter.value.rows(); ++next) zero(next, 0, cols);
  }
}

void add_adapter_rows(const Weights& weights, int32_t matrix, int64_t row_begin, int64_t rows, float* values) {
  const Parameter& base = weights.parameter(matrix);
  if (base.lora_up < 0) return;
  const HostRows held_down(weights.memory(), weights[base.lora_down], HostRows::Use::read);
  const HostRows held_up(weights.memory(), weights[base.lora_up], row_begin, rows, HostRows::Use::read);
  const Tensor &down = held_down.tensor(), &up = held_up.tensor();
  const int64_t width = down.rows(), cols = down.cols();
  std::vector<float> a(static_cast<size_t>(width * cols));
  for (int64_t r = 0; r < width; ++r) {
    for (int64_t c = 0; c < cols; ++c) a[static_cast<size_t>(r * cols + c)] = load_element(down, element(down, r, c));
  }
  std::vector<double> sum(static_cast<size_t>(cols));
  for (int64_t row = 0; row < rows; ++row) {
    std::fill(sum.begin(), sum.end(), 0.0);
    for (int64_t r = 0; r < width; ++r) {
      const double b = double{base.lora_scale[static_cast<size_t>(r)]} *
                       load_element(up, element(up, row_begin + row - held_up.first_row(), r));
      if (b == 0.0) continue;
      for (int64_t c = 0; c < cols; ++c) sum[static_cast<size_t>(c)] += b * a[static_cast<size_t>(r * cols + c)];
    }
    for (int64_t c = 0; c < cols; ++c) {
      float& value = values[row * cols + c];
      value = static_cast<float>(value + sum[static_cast<size_t>(c)]);
    }
  }
}

// d loss / d w_j = sum over targets of g (z_j)' / T h, with z_j = h . w_j / T, p_j = exp(z_j - lse),
// (log p_token)' = [token = j] - p_j and (entropy)' = -p_j (z_j - lse + entropy).
void add_token_row_gradients(Weights& weights, const HeadLogprob& head) {
  Adapter& adapter = weights.adapter();
  if (adapter.token_rows < 0 || head.weight.data != weights[adapter.embedding].data) return;
  const Tensor& grad = weights.parameter(adapter.token_rows).grad;
  if (!grad || !weights.parameter(adapter.token_rows).trainable || weights.planning()) return;
  const TensorMemory& memory = weights.memory();
  const HostRows held_grad(memory, grad, HostRows::Use::write);
  const HostRows held_rows(memory, weights[adapter.token_rows], HostRows::Use::read);
  const HostRows held_hidden(memory, head.hidden, HostRows::Use::read);
  const Tensor &rows = held_rows.tensor(), &states = held_hidden.tensor();
  const int64_t hidden = head.hidden.cols();
  for (size_t i = 0; i < adapter.tokens.size(); ++i) {
    float* to = held_grad.tensor().f32() + static_cast<int64_t>(i) * hidden;
    for (int32_t r = 0; r < head.num_targets; ++r) {
      const int64_t at = int64_t{head.rows[r]} * hidden;
      const double inverse = head.inverse_temperature[r];
      double score = 0;
      for (int64_t k = 0; k < hidden; ++k)
        score += double{load_element(states, at + k)} * load_element(rows, static_cast<int64_t>(i) * hidden + k);
      const double log_p = score * inverse - head.log_normalizer[r], p = std::exp(log_p);
      double slope = head.grad_logprob[r] * ((head.tokens[r] == adapter.tokens[i] ? 1.0 : 0.0) - p);
      if (head.grad_entropy != nullptr) slope -= head.grad_entropy[r] * p * (log_p + head.entropy[r]);
      slope *= inverse;
      if (slope == 0) continue;
      for (int64_t k = 0; k < hidden; ++k) to[k] += static_cast<float>(slope * load_element(states, at + k));
    }
  }
}

}  // namespace gavel
