#include "bench/native/cuda/device_clock.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <vector>

namespace gavel::bench {
namespace {

bool failed(cudaError_t error, std::string* text) {
  if (error == cudaSuccess) return false;
  if (text->empty()) *text = std::string(cudaGetErrorString(error)) + " (" + cudaGetErrorName(error) + ")";
  return true;
}

// The kernel module's version, as the driver says it; empty where it says nothing.
std::string driver_version() {
  std::ifstream file("/proc/driver/nvidia/version");
  std::string word;
  while (file >> word) {
    const bool version =
        word.find('.') != std::string::npos && word.find_first_not_of("0123456789.") == std::string::npos;
    if (version) return word;
  }
  return {};
}

__global__ void __launch_bounds__(512) copy_kernel(uint4* to, const uint4* from, size_t count) {
  const size_t stride = size_t{gridDim.x} * 512 * 4;
  for (size_t i = size_t{blockIdx.x} * 512 * 4 + threadIdx.x; i < count; i += stride) {
    uint4 four[4];
#pragma unroll
    for (int j = 0; j < 4; ++j)
      if (i + j * 512 < count) four[j] = from[i + j * 512];
#pragma unroll
    for (int j = 0; j < 4; ++j)
      if (i + j * 512 < count) to[i + j * 512] = four[j];
  }
}

// The sum is written where it is a value that it never is, so that loads stay.
__global__ void __launch_bounds__(512) read_kernel(unsigned* to, const uint4* from, size_t count) {
  const size_t stride = size_t{gridDim.x} * 512 * 4;
  unsigned sum = 0;
  for (size_t i = size_t{blockIdx.x} * 512 * 4 + threadIdx.x; i < count; i += stride) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (i + j * 512 >= count) continue;
      const uint4 four = from[i + j * 512];
      sum |= four.x | four.y | four.z | four.w;
    }
  }
  if (sum == 0xdeadbeefu) *to = sum;
}

__global__ void fill_kernel(unsigned* to, size_t count) {
  const size_t stride = size_t{gridDim.x} * blockDim.x;
  for (size_t i = size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride)
    to[i] = static_cast<unsigned>(i) * 2654435761u >> 8;
}

}  // namespace

struct DeviceClock::State {
  int32_t device = 0;
  int processors = 1;
  void* flush = nullptr;
  size_t flush_bytes = 0;
  cudaEvent_t begin = nullptr, end = nullptr;

  ~State() {
    cudaFree(flush);
    if (begin != nullptr) cudaEventDestroy(begin);
    if (end != nullptr) cudaEventDestroy(end);
  }
};

DeviceClock::~DeviceClock() = default;

std::unique_ptr<DeviceClock> DeviceClock::create(int32_t device, std::string* error) {
  cudaDeviceProp properties;
  int runtime = 0, driver = 0;
  if (failed(cudaSetDevice(device), error) || failed(cudaGetDeviceProperties(&properties, device), error) ||
      failed(cudaRuntimeGetVersion(&runtime), error) || failed(cudaDriverGetVersion(&driver), error))
    return nullptr;
  std::unique_ptr<DeviceClock> made(new DeviceClock);
  made->state_ = std::make_unique<State>();
  State& state = *made->state_;
  state.device = device;
  state.processors = properties.multiProcessorCount;
  state.flush_bytes = std::max<size_t>(size_t{4} * static_cast<size_t>(properties.l2CacheSize), size_t{128} << 20);
  if (failed(cudaMalloc(&state.flush, state.flush_bytes), error) || failed(cudaEventCreate(&state.begin), error) ||
      failed(cudaEventCreate(&state.end), error))
    return nullptr;
  std::ostringstream text;
  text << properties.name << ", sm_" << properties.major << properties.minor << ", " << properties.multiProcessorCount
       << " multiprocessors, " << (properties.l2CacheSize >> 20) << " MiB L2, " << (properties.totalGlobalMem >> 30)
       << " GiB";
  made->hardware_ = text.str();
  const std::string module = driver_version();
  made->driver_ = (module.empty() ? "" : module + ", ") + "CUDA " + std::to_string(driver / 1000) + "." +
                  std::to_string(driver % 1000 / 10) + ", runtime " + std::to_string(runtime / 1000) + "." +
                  std::to_string(runtime % 1000 / 10);
  made->major_ = properties.major;
  return made;
}

namespace {

Timing timing_of(std::vector<double> samples) {
  std::sort(samples.begin(), samples.end());
  const auto at = [&](double share) {
    return samples[static_cast<size_t>(share * static_cast<double>(samples.size() - 1))];
  };
  return {at(0.5), at(0.1), at(0.9), static_cast<int>(samples.size())};
}

}  // namespace

int DeviceClock::processors() const { return state_->processors; }

double DeviceClock::once(const std::function<void()>& call, std::string* error) {
  State& state = *state_;
  float milliseconds = 0;
  // Writing the flushed bytes also keeps the device busy while the host enqueues what is measured.
  if (failed(cudaMemsetAsync(state.flush, 0, state.flush_bytes), error) || failed(cudaEventRecord(state.begin), error))
    return 0;
  call();
  if (failed(cudaEventRecord(state.end), error) || failed(cudaEventSynchronize(state.end), error) ||
      failed(cudaGetLastError(), error) || failed(cudaEventElapsedTime(&milliseconds, state.begin, state.end), error))
    return 0;
  return 1e-3 * static_cast<double>(milliseconds);
}

std::vector<std::vector<double>> DeviceClock::turns(const std::vector<std::function<void()>>& calls, double seconds,
                                                    std::string* error) {
  double last = 0;
  for (int i = 0; i < 3; ++i)
    for (const auto& call : calls) last = once(call, error);
  std::vector<std::vector<double>> samples(calls.size());
  if (!error->empty()) return {};
  const int runs = static_cast<int>(std::clamp(seconds / std::max(last, 1e-6), 10.0, 200.0));
  for (int i = 0; i < runs && error->empty(); ++i)
    for (size_t c = 0; c < calls.size(); ++c) samples[c].push_back(once(calls[c], error));
  return error->empty() ? samples : std::vector<std::vector<double>>{};
}

Timing DeviceClock::measure(const std::function<void()>& call, double seconds, std::string* error) {
  const auto samples = turns({call}, seconds, error);
  return samples.empty() ? Timing{} : timing_of(samples[0]);
}

Paired DeviceClock::measure_pairs(const std::function<void()>& first, const std::function<void()>& second,
                                  double seconds, std::string* error) {
  const auto samples = turns({first, second}, seconds, error);
  if (samples.empty()) return {};
  std::vector<double> ratios;
  for (size_t i = 0; i < samples[0].size(); ++i) ratios.push_back(samples[0][i] / std::max(samples[1][i], 1e-9));
  return {timing_of(samples[0]), timing_of(samples[1]), timing_of(ratios)};
}

double DeviceClock::copy_bandwidth(uint64_t size_bytes, double seconds, Timing* timing, std::string* error) {
  const size_t count = size_bytes / 16;
  void *from = nullptr, *to = nullptr;
  if (failed(cudaMalloc(&from, count * 16), error) || failed(cudaMalloc(&to, count * 16), error)) {
    cudaFree(from);
    return 0;
  }
  fill_kernel<<<4096, 256>>>(static_cast<unsigned*>(from), count * 4);
  const unsigned blocks = static_cast<unsigned>(state_->processors) * 8;
  // The faster of ours and the runtime's own copy is the ceiling.
  const Timing ours =
      measure([&] { copy_kernel<<<blocks, 512>>>(static_cast<uint4*>(to), static_cast<const uint4*>(from), count); },
              seconds, error);
  const Timing runtime =
      measure([&] { cudaMemcpyAsync(to, from, count * 16, cudaMemcpyDeviceToDevice); }, seconds, error);
  cudaFree(from);
  cudaFree(to);
  if (!error->empty()) return 0;
  *timing = ours.seconds < runtime.seconds ? ours : runtime;
  return 2.0 * static_cast<double>(count * 16) / timing->seconds;
}

double DeviceClock::read_bandwidth(uint64_t size_bytes, double seconds, Timing* timing, std::string* error) {
  const size_t count = size_bytes / 16;
  void *from = nullptr, *to = nullptr;
  if (failed(cudaMalloc(&from, count * 16), error) || failed(cudaMalloc(&to, 16), error)) {
    cudaFree(from);
    return 0;
  }
  fill_kernel<<<4096, 256>>>(static_cast<unsigned*>(from), count * 4);
  const unsigned blocks = static_cast<unsigned>(state_->processors) * 8;
  *timing =
      measure([&] { read_kernel<<<blocks, 512>>>(static_cast<unsigned*>(to), static_cast<const uint4*>(from), count); },
              seconds, error);
  cudaFree(from);
  cudaFree(to);
  return error->empty() ? static_cast<double>(count * 16) / timing->seconds : 0;
}

}  // namespace gavel::bench
