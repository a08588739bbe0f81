// Runs the device tests: gavel_cuda_tests. Prints "N passed, N failed", or "skipped: no device (reason)" and exit code
// 0 where the plugin finds none; with GAVEL_REQUIRE_CUDA set that is a failure.
#include <cstdio>
#include <cstdlib>

#include "addon/cuda_plugin.h"
#include "test/check.h"

int main(int argc, char** argv) {
  const gavel::CudaProbe probe = gavel::probe_cuda();
  if (!probe.status.ok()) {
    std::printf("skipped: no device (%s)\n", probe.status.message.c_str());
    return std::getenv("GAVEL_REQUIRE_CUDA") == nullptr ? 0 : 1;
  }
  for (const gavel::PluginDevice& device : probe.devices) {
    std::printf("device: %s, %.0f GiB, sm_%d%d\n", device.name, static_cast<double>(device.memory_bytes) / (1 << 30),
                device.major, device.minor);
  }
  return gavel::test::run_cases(argc, argv);
}
