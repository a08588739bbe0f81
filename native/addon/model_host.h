// A model with its trainer and sampler as one engine holds it, and the copies of its state that JavaScript may read at
// any time. `model`, `trainer` and `sampler` belong to the job thread; `memory` is guarded; the rest belongs to
// JavaScript.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/context.h"
#include "model/model.h"
#include "sample/sampler.h"
#include "train/trainer.h"

namespace gavel {

struct TensorRow {
  std::string name;
  Shape shape;
  int32_t parameter = 0;
  bool trainable = true, adapter = false;
  ParameterKind kind = ParameterKind::matrix;
  int64_t state_blocks = 0;  // of the parameter, at its first source; 0 at the others
  bool reward_head = false;
  DType dtype = DType::f32;
};

// The tensors of a model, in its order.
std::vector<TensorRow> tensor_rows(const Weights& weights);

struct ModelMemory {
  size_t weight_bytes = 0, gradient_bytes = 0, optimizer_bytes = 0, activation_bytes = 0, kv_bytes = 0,
         sampling_bytes = 0, prompt_cache_bytes = 0;
};

struct ModelHost {
  static Status create(const ModelConfig& config, Context& context, std::shared_ptr<ModelHost>* host);

  // Job thread.
  std::unique_ptr<Model> model;
  std::unique_ptr<Trainer> trainer;
  std::unique_ptr<Sampler> sampler;
  size_t kv_bytes = 0, sampling_bytes = 0;  // of the last sampling, its activations with the latter
  void release();
  void take_snapshot();
  ModelMemory memory();

  // JavaScript thread.
  std::string family;
  std::vector<TensorRow> tensors;
  DType dtype = DType::f32;
  TrainingState state;
  bool disposed = false;
  std::atomic<int64_t> step_count{0};

 private:
  std::mutex mutex_;
  ModelMemory memory_;
};

}  // namespace gavel
