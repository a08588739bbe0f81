#include "model/architecture.h"

#include <cstring>

namespace gavel {
namespace {

// The tower's rows, then those kept of other pictures; part 0 is the features, the others deepstack's.
VisionFeatures with_kept(Tape& tape, const VisionFeatures& made, const PackView& pack, int32_t hidden_size,
                         DType dtype) {
  const int32_t parts = pack.kept_features.front()->parts;
  const size_t row_bytes = static_cast<size_t>(hidden_size) * dtype_size(dtype);
  const int64_t own = made.rows ? made.rows.rows() : 0;
  int64_t total = own;
  for (const KeptFeatures* kept : pack.kept_features) total += kept->rows;
  VisionFeatures all;
  for (int32_t part = 0; part < parts; ++part) {
    const Tensor joined = tape.activation({total, hidden_size}, dtype);
    (part == 0 ? all.rows : all.deepstack.emplace_back()) = joined;
    if (tape.dry()) continue;
    auto* to = static_cast<uint8_t*>(joined.data);
    if (own > 0) {
      const Tensor& rows = part == 0 ? made.rows : made.deepstack[static_cast<size_t>(part) - 1];
      tape.memory().copy(to, rows.data, static_cast<size_t>(own) * row_bytes);
      to += static_cast<size_t>(own) * row_bytes;
    }
    for (const KeptFeatures* kept : pack.kept_features) {
      const size_t bytes = static_cast<size_t>(kept->rows) * row_bytes;
      tape.memory().upload(to, kept->data.data() + static_cast<size_t>(part) * bytes, bytes);
      to += bytes;
    }
  }
  return all;
}

Status count_mismatch(std::string expected, size_t image, std::string received) {
  return Status::error(Code::image_count_mismatch,
                       "Expected " + std::move(expected) + " for image " + std::to_string(image + 1) +
                           " but received " + std::move(received) +
                           " in the prompt. Give each picture or video the placeholders its processor counts.");
}

}  // namespace

Tensor Architecture::forward(Tape& tape, const Weights& weights, const PackView& pack, VisionFeatures* computed) const {
  VisionFeatures vision;
  if (pack.vision != nullptr) vision = tower(tape, weights, *pack.vision);
  if (computed != nullptr) *computed = vision;
  if (!pack.kept_features.empty()) vision = with_kept(tape, vision, pack, hidden_size, weights.dtype());
  if (pack.kept_hidden.empty()) return decode(tape, weights, pack, vision);

  const size_t row_bytes = static_cast<size_t>(hidden_size) * dtype_size(weights.dtype());
  const int64_t kept = static_cast<int64_t>(pack.kept_hidden.size());
  const Tensor all = tape.activation({pack.hidden_rows() + kept, hidden_size}, weights.dtype());
  auto* to = static_cast<uint8_t*>(all.data);
  if (pack.num_tokens > 0) {
    const Tensor hidden = decode(tape, weights, pack, vision);
    if (!tape.dry()) tape.memory().copy(to, hidden.data, static_cast<size_t>(pack.hidden_rows()) * row_bytes);
  }
  for (int64_t row = 0; row < kept && !tape.dry(); ++row) {
    tape.memory().upload(to + static_cast<size_t>(pack.hidden_rows() + row) * row_bytes,
                         pack.kept_hidden[static_cast<size_t>(row)], row_bytes);
  }
  return all;
}

bool Architecture::tower_trains(const Weights& weights) const {
  for (int32_t i = 0; i < tower_parameters; ++i) {
    if (weights.parameter(i).trainable) return true;
  }
  return tower_adapted(weights);
}

bool Architecture::tower_adapted(const Weights& weights) const {
  for (int32_t i = 0; i < tower_parameters; ++i) {
    if (weights.parameter(i).lora_down >= 0) return true;
  }
  return false;
}

Status Architecture::add_image(const ImageInput&, VisionBatch*, std::vector<int32_t>*) const {
  return Status::error(Code::image_count_mismatch,
                       "Expected no images for a text-only model but received one. Load a vision-language checkpoint.");
}

Placeholders Architecture::placeholders(const ImageInput&) const { return {}; }

Status Architecture::positions(const GroupInput& group, std::span<const PlaceholderRun>, Positions* positions) const {
  const int32_t count = static_cast<int32_t>(group.prompt_tokens.size());
  for (int32_t axis = 0; axis < rope_axes; ++axis) {
    for (int32_t i = 0; i < count; ++i) positions->axes[axis].push_back(i);
  }
  positions->next = count;
  return Status::success();
}

Status Architecture::find_runs(const GroupInput& group, std::vector<PlaceholderRun>* runs) const {
  const auto& tokens = group.prompt_tokens;
  const auto& images = group.images;
  size_t image = 0;
  int32_t run = 0;
  for (size_t i = 0; i < tokens.size();) {
    if (!is_placeholder(tokens[i])) {
      ++i;
      continue;
    }
    if (image >= images.size()) {
      return Status::error(Code::image_count_mismatch,
                           "Expected placeholder tokens for " + std::to_string(images.size()) +
                               " images in the prompt but received more. Give every image that the prompt names.");
    }
    const bool video = images[image].video;
    const int32_t token = video ? video_token : image_token;
    const Placeholders want = placeholders(images[image]);
    if (tokens[i] != token) {
      return count_mismatch(video ? "the placeholder of a video" : "the placeholder of a picture", image,
                            "another kind's");
    }
    for (int32_t n = 0; n < want.tokens; ++n) {
      if (i + static_cast<size_t>(n) < tokens.size() && tokens[i + static_cast<size_t>(n)] == token) continue;
      return count_mismatch(std::to_string(want.tokens) + " placeholder tokens" +
                                (want.runs > 1 ? " for each of " + std::to_string(want.runs) + " frames" : ""),
                            image, std::to_string(n));
    }
    runs->push_back({static_cast<int32_t>(i), want.tokens, static_cast<int32_t>(image), run});
    i += static_cast<size_t>(want.tokens);
    if (++run == want.runs) {
      run = 0;
      ++image;
    }
  }
  if (run != 0) {
    return count_mismatch(std::to_string(placeholders(images[image]).runs) + " runs of placeholders, one a frame,",
                          image, std::to_string(run));
  }
  if (image != images.size()) {
    return Status::error(Code::image_count_mismatch,
                         "Expected placeholder tokens for " + std::to_string(images.size()) +
                             " images in the prompt but received those of " + std::to_string(image) +
                             ". Give the images that the prompt names and no others.");
  }
  return Status::success();
}

Status Architecture::check_length(int64_t positions) const {
  if (position_limit == 0 || positions <= position_limit) return Status::success();
  const std::string limit = std::to_string(position_limit), received = std::to_string(positions);
  if (!fixed_until_limit) {
    return Status::error(Code::prompt_too_long, "Expected at most " + limit +
                                                    " positions (`max_position_embeddings`) in a prompt and its "
                                                    "completion but received " +
                                                    received + ". Shorten one of them; nothing is ever cut.");
  }
  return Status::error(
      Code::prompt_too_long,
      "Expected at most " + limit + " positions in a prompt and its completion but received " + received +
          ": the rope scaling of this config changes every frequency with the length of the whole sequence, so beyond "
          "its original length a sampled log-prob could not equal the trained one. Shorten the sequence, or choose a "
          "checkpoint with YaRN, Llama 3 or linear rope scaling.");
}

}  // namespace gavel
