// The device that the tests of native/test/cuda run on: the plugin's, or the processor in its place (test/emulation).
#pragma once
#include "core/plugin.h"

namespace gavel::test {

/// The table of the backend under test; never null once main() runs the cases.
const PluginBackend& device_backend();

/// True where kernels run on the processor: cases that would take minutes there are smaller.
bool device_is_emulated();

/// Multiprocessors that the emulation says it has from here on, 0: as before; a card has what it has.
void set_device_processors(int count);

}  // namespace gavel::test
