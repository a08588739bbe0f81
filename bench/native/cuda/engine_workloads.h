// Whole workloads on a device through the engine itself, at the text shapes of Qwen2.5 and at that of Qwen2.5-VL-3B
// with its vision tower, random weights: decoding of groups, and GRPO updates of an adapter or of all weights. Timed by
// the host: they wait for the device themselves.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/dtype.h"
#include "core/status.h"

namespace gavel::bench {

/// A vision tower and the picture of every prompt.
struct VisionSpec {
  int64_t depth = 0, hidden = 0, intermediate = 0, heads = 0;
  int64_t full_every = 1;    // the last of so many layers sees the whole picture, the others windows of 8 by 8 patches
  int64_t patch = 0;         // its side in pixels
  int64_t picture_side = 0;  // in patches; 0: no tower and no picture
  int64_t patches() const { return picture_side * picture_side; }
  int64_t patch_columns() const { return 3 * 2 * patch * patch; }
  int64_t tokens() const { return patches() / 4; }  // of a prompt's, after the merger
};

struct EngineSpec {
  std::string workload;  // "decode" or "grpo_update"
  std::string model;     // its name in the table
  int64_t vocabulary = 0, hidden = 0, intermediate = 0, layers = 0, heads = 0, kv_heads = 0;
  int64_t prompts = 0, group = 0, prompt_tokens = 0, completion_tokens = 0;
  int64_t lora_rank = 0;  // 0: all weights train, the tower's too; else it is frozen
  VisionSpec vision;
};

struct EngineResult {
  double tokens = 0;   // completion tokens of a run
  double seconds = 0;  // median; decoding after its prompts, or a whole update
  double low = 0, high = 0;
  int runs = 0;
  double bytes = 0;            // decoding: weights, and keys and values in use, read once a step
  double flop = 0;             // updates: products of what trains and of what gradients pass
  double prefill_seconds = 0;  // decoding
  double steps = 0;            // decoding: all, and those of one launch, of a graph that an earlier one left
  double replayed_steps = 0;
  uint64_t device_bytes = 0;      // taken of the device, model and all
  double largest_difference = 0;  // updates: between log-probs before the step and those it trained on; 0 is exact
  // The fastest mode, in turns with the exact one that all above is of.
  double fastest_seconds = 0;                    // median
  double cost = 0, cost_low = 0, cost_high = 0;  // exact by fastest, over pairs
  double fastest_difference = 0;                 // updates: as largest_difference
};

std::vector<EngineSpec> engine_specs();
/// The same with every size cut to what the emulation computes in a moment.
EngineSpec tiny(const EngineSpec& spec);
std::vector<std::string> engine_workload_names();
/// "32 prompts, 3.1B text, LoRA 32" or "2 prompts with a picture of 1024 tokens, 3.8B VL, all weights"
std::string shape_of(const EngineSpec& spec);

/// bf16. A model stays for the next workload of its shape, unless it has an adapter.
class EngineBench {
 public:
  EngineBench(const PluginBackend& backend, int32_t device);
  ~EngineBench();
  Status run(const EngineSpec& spec, EngineResult* result);

 private:
  struct Engine;
  Status make(const EngineSpec& spec);
  Status decode(const EngineSpec& spec, EngineResult* result);
  Status update(const EngineSpec& spec, EngineResult* result);
  Device device_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace gavel::bench
