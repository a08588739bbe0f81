#include "model/patch_batch.h"

namespace gavel {

void PatchBatch::finish() {
  positions = heights;
  positions.insert(positions.end(), widths.begin(), widths.end());
  plan = plan_segments(bounds);
  view = plan.view();
}

Status check_pixels(const ImageInput& image, int64_t columns) {
  const int64_t patches = int64_t{image.grid[0]} * image.grid[1] * image.grid[2];
  if (static_cast<int64_t>(image.pixels.size()) == patches * columns) return Status::success();
  return Status::error(Code::bad_data, "Expected " + std::to_string(patches * columns) +
                                           " pixel values for a grid of " + std::to_string(patches) +
                                           " patches but received " + std::to_string(image.pixels.size()) +
                                           ". Prepare images with this checkpoint's processor.");
}

Status check_units(const ImageInput& image, int32_t merge) {
  const auto [time, height, width] = image.grid;
  if (time >= 1 && height >= 1 && width >= 1 && height % merge == 0 && width % merge == 0) return Status::success();
  return Status::error(Code::bad_data,
                       "Expected an image grid of whole " + std::to_string(merge) + "x" + std::to_string(merge) +
                           " units but received " + std::to_string(time) + "x" + std::to_string(height) + "x" +
                           std::to_string(width) +
                           " patches. Resize the picture as the image processor of the checkpoint does.");
}

Status check_kind(const ImageInput& image, const Architecture& architecture) {
  if (!image.video || architecture.video_token >= 0) return Status::success();
  return Status::error(Code::bad_data,
                       "Expected pictures only but received a video: the config names no `video_token_id`. Give its "
                       "frames as pictures.");
}

}  // namespace gavel
