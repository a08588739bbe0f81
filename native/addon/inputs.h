// The contract's argument objects (src/binding/contract.ts) as the structs of the rings below: checked and copied.
#pragma once
#include <string>
#include <vector>

#include "addon/arguments.h"
#include "addon/memory_plan.h"
#include "model/input.h"
#include "model/tensor_file.h"
#include "sample/sampler.h"
#include "train/trainer.h"

namespace gavel {

ModelConfig model_config_from(const Argument& spec);
// `may_be_bare`: without completions, for its reward tokens alone.
GroupInput group_from(const Argument& group, bool may_be_bare = false);
PlannedWork planned_work_from(const Argument& work);
std::vector<GroupInput> groups_from(const Argument& groups, bool may_be_bare = false);
std::vector<SampleRequest> sample_requests_from(const Argument& requests);
SampleSettings sample_settings_from(const Argument& options);
std::vector<Objective> objectives_from(const Argument& objectives);
StepOptions step_options_from(const Argument& options);
AdapterOptions adapter_options_from(const Argument& options);
OptimizerOptions optimizer_options_from(const Argument& options);
TensorKind tensor_kind_from(const Argument& kind);
std::vector<TensorRead> tensor_reads_from(const Argument& sources);
std::vector<TensorWrite> tensor_writes_from(const Argument& sinks);
// Pixels are checked on the job thread: there may be many.
Status check_pixels(const std::vector<ImageInput>& images);
std::vector<std::string> texts_from(const Argument& texts);

}  // namespace gavel
