// What a model will take, before any of it is taken: the work of a step and of sampling runs on a pool that runs
// nothing, over reserved memory that is never touched, so every buffer has the size it will have. Job thread only.
#pragma once
#include <vector>

#include "addon/model_host.h"
#include "core/context.h"
#include "model/model.h"
#include "train/trainer.h"

namespace gavel {

// Groups of one shape.
struct PlannedWork {
  int32_t prompt_tokens = 1;       // those of pictures included
  std::vector<ImageInput> images;  // without pixels
  int32_t groups = 1;
  size_t prompt_cache_bytes = 0;
  // Training and scoring.
  bool trains = false, scores = false;
  int32_t completions = 1, completion_tokens = 1;
  StepOptions step;
  // Sampling; max_new_tokens 0: none.
  int32_t samples = 1, max_new_tokens = 0, max_rows = 1;
};

struct MemoryPlan {
  ModelMemory held;
  size_t scratch_bytes = 0;
};

// `model` was made for planning. `context` says the threads and instruction set of the real run. Errors: those of the
// work itself (prompt_too_long, image_count_mismatch ...), invalid_argument when the pictures alone exceed the prompt.
Status plan_memory(Model& model, const Context& context, const PlannedWork& work, MemoryPlan* plan);

}  // namespace gavel
