#include "model/reuse.h"

namespace gavel {

Reuse::Reuse(Model& model, bool adapter_on)
    : cache_(model.prompt_cache()),
      memory_(model.weights().memory()),
      adapter_on_(adapter_on && model.weights().adapter().attached),
      tower_adapted_(adapter_on_ && model.architecture().tower_adapted(model.weights())) {
  cache_.begin_call();
}

std::vector<ContentKey> Reuse::keys_of(const std::vector<ImageInput>& images) const {
  std::vector<ContentKey> keys;
  for (const ImageInput& image : images) keys.push_back(cache_.key_of(image, tower_adapted_));
  return keys;
}

ContentKey Reuse::key_of(const std::vector<int32_t>& tokens, const std::vector<ContentKey>& images) const {
  return cache_.key_of(tokens, images, adapter_on_);
}

void Reuse::keep_features(const ContentKey& key, const VisionFeatures& made, std::span<const int32_t> rows) {
  const size_t row_bytes = static_cast<size_t>(made.rows.cols()) * dtype_size(made.rows.dtype);
  auto kept = std::make_shared<KeptFeatures>();
  kept->rows = static_cast<int32_t>(rows.size());
  kept->parts = 1 + static_cast<int32_t>(made.deepstack.size());
  const size_t bytes = static_cast<size_t>(kept->parts) * rows.size() * row_bytes;
  if (!cache_.admits(bytes)) return;
  kept->data.resize(bytes);
  uint8_t* to = kept->data.data();
  std::vector<TensorMemory::Transfer> transfers;
  for (int32_t part = 0; part < kept->parts; ++part) {
    const Tensor& from = part == 0 ? made.rows : made.deepstack[static_cast<size_t>(part) - 1];
    for (const int32_t row : rows) {
      transfers.push_back(
          {to, static_cast<const uint8_t*>(from.data) + static_cast<size_t>(row) * row_bytes, row_bytes});
      to += row_bytes;
    }
  }
  memory_.download(transfers);
  cache_.keep(key, std::move(kept));
}

}  // namespace gavel
