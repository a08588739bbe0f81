// Row-major access to weights, gradients and optimizer state in their packed order: whole tensors and ranges of rows.
#include <array>

#include "model/host_rows.h"
#include "model/panel_copy.h"
#include "model/weights.h"
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

TensorBlock moved(TensorBlock block, const HostRows& held) {
  block.row_begin -= held.first_row();
  return block;
}

}  // namespace

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

// Elements of a moment in codes: those of the dynamic map, times the scale of their block.
void Weights::read_codes(const Parameter& parameter, const TensorBlock& block, TensorKind kind, float* out) const {
  const bool first = kind == TensorKind::moment1 || kind == TensorKind::codes1;
  const Tensor& tensor = first ? parameter.moment1 : parameter.moment2;
  const Tensor& all_scales = first ? parameter.scales1 : parameter.scales2;
  const std::array<float, 256>& map = first ? kSignedMap : kUnsignedMap;
  const HostRows codes(memory_, tensor, block.row_begin, block.rows, HostRows::Use::read);
  const int64_t begin = codes.first_element(), end = begin + codes.elements();
  const HostRows scales(memory_, all_scales, begin / kStateBlock, state_blocks(end) - begin / kStateBlock,
                        HostRows::Use::read);
  for (int64_t row = 0; row < block.rows; ++row) {
    for (int64_t col = 0; col < block.cols; ++col) {
      const int64_t index = element_index(parameter, parameter.dtype(), block.row_begin + row, block.col_begin + col);
      const uint8_t code = static_cast<const uint8_t*>(codes.tensor().data)[index - begin];
      float& value = out[row * block.cols + col];
      value = code;
      if (!is_codes(kind)) value = map[code] * scales.tensor().f32()[index / kStateBlock - scales.first_row()];
    }
  }
}

void Weights::read_rows(const Parameter& parameter, const SourceTensor& source, TensorKind kind, int64_t row_begin,
                        int64_t rows, float* out) const {
  const Tensor& tensor = *const_cast<Weights*>(this)->tensor_of(const_cast<Parameter&>(parameter), kind);
  if (is_scales(kind))
    return memory_.download(out, tensor.f32() + row_begin, static_cast<size_t>(rows) * sizeof(float));
  const TensorBlock block{source.row_begin + row_begin, source.col_begin, rows, source_cols(source)};
  if (tensor.dtype == DType::u8) {
    read_codes(parameter, block, kind, out);
  } else {
    const HostRows held(memory_, tensor, block.row_begin, rows, HostRows::Use::read);
    read_block(held.tensor(), parameter.dtype(), moved(block, held), out);
  }
  if (kind == TensorKind::merged)
    add_adapter_rows(*this, parameter_index(parameter.value.id), source.row_begin + row_begin, rows, out);
}

void Weights::write_rows(Parameter& parameter, const SourceTensor& source, TensorKind kind, int64_t row_begin,
                         int64_t rows, const float* data) {
  Tensor& tensor = *tensor_of(parameter, kind);
  if (is_scales(kind)) return memory_.upload(tensor.f32() + row_begin, data, static_cast<size_t>(rows) * sizeof(float));
  const TensorBlock block{source.row_begin + row_begin, source.col_begin, rows, source_cols(source)};
  const HostRows held(memory_, tensor, block.row_begin, rows, HostRows::Use::write);
  if (tensor.dtype != DType::u8) {
    write_block(held.tensor(), parameter.dtype(), moved(block, held), data);
    // A master follows its value when the value is set from outside; a checkpoint that has masters sets them after.
    if (kind != TensorKind::value || !parameter.master) return;
    const HostRows master(memory_, parameter.master, block.row_begin, rows, HostRows::Use::write);
    write_block(master.tensor(), parameter.dtype(), moved(block, master), data);
    return;
  }
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t col = 0; col < block.cols; ++col) {
      const int64_t index = element_index(parameter, parameter.dtype(), block.row_begin + row, block.col_begin + col);
      static_cast<uint8_t*>(held.tensor().data)[index - held.first_element()] =
          static_cast<uint8_t>(data[row * block.cols + col]);
    }
  }
}

void Weights::write_stored_rows(Parameter& parameter, const TensorBlock& block, const void* data) {
  const HostRows held(memory_, parameter.value, block.row_begin, block.rows, HostRows::Use::write);
  write_stored(held.tensor(), parameter.dtype(), moved(block, held), data);
}

void Weights::read_stored_rows(const Parameter& parameter, const TensorBlock& block, void* data) const {
  const HostRows held(memory_, parameter.value, block.row_begin, block.rows, HostRows::Use::read);
  read_stored(held.tensor(), parameter.dtype(), moved(block, held), data);
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
  return memory_.finish();
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
  return memory_.finish();
}

}  // namespace gavel
