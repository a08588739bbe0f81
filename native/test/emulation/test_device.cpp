// The emulated device as the one that tests run on.
#include <cstdlib>

#include "core/build_id.h"
#include "test/cuda/device.h"
#include "test/emulation/device_memory.h"

extern "C" bool gavel_plugin_init(const gavel::PluginHost* host, gavel::PluginBackend* backend,
                                  gavel::PluginStatus* status);

namespace gavel::test {

const PluginBackend& device_backend() {
  static const PluginBackend backend = [] {
    PluginHost host;
    host.build_id = build_id();
    PluginBackend made;
    PluginStatus status;
    if (!gavel_plugin_init(&host, &made, &status)) std::abort();
    return made;
  }();
  return backend;
}

bool device_is_emulated() { return true; }
void set_device_processors(int count) { emulation::set_processors(count); }

}  // namespace gavel::test
