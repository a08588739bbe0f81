#include "addon/cuda_plugin.h"
#include "test/cuda/device.h"

namespace gavel::test {

const PluginBackend& device_backend() {
  Status status;
  return *cuda_backend(&status);
}

bool device_is_emulated() { return false; }
void set_device_processors(int) {}

}  // namespace gavel::test
