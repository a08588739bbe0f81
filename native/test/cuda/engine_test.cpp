// The engine on the device: all of its tensors lie there.
#include "core/device.h"
#include "test/cuda/device.h"
#include "test/cuda/plugin.h"

namespace gavel::test {

Device* TestDevice::device() {
  static Device* const device = new Device(device_backend(), 0);  // CUDA ends before statics do
  return device;
}

}  // namespace gavel::test

#include "test/cases/engine_cases.h"
#include "test/cases/engine_sampling_cases.h"
#include "test/cases/engine_state_cases.h"
