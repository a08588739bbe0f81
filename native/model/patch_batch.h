// What the vision towers' batches have in common: patches in the order the tower visits them, and the segments that see
// one another.
#pragma once
#include "model/architecture.h"
#include "model/attention_plan.h"

namespace gavel {

class PatchBatch : public VisionBatch {
 public:
  std::vector<float> pixels;             // [patches, columns], pictures one after the other
  std::vector<int32_t> heights, widths;  // [patches] of a tower with rotary positions
  std::vector<int32_t> bounds{0};        // cumulative patches of the segments
  int32_t num_patches = 0, num_features = 0;
  // Made by finish().
  std::vector<int32_t> positions;  // [2, patches]
  OwnedPlan plan;
  AttentionPlan view;

  void finish();
};

// Refuses a picture whose pixels do not fill its grid with rows of `columns` values.
Status check_pixels(const ImageInput& image, int64_t columns);
// Refuses a grid that is not made of whole merge x merge units.
Status check_units(const ImageInput& image, int32_t merge);
// Refuses a video when the family's config has no token for it.
Status check_kind(const ImageInput& image, const Architecture& architecture);

}  // namespace gavel
