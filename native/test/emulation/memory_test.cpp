// What the emulated device alone can show: a wall that host code runs into, and memory that ends.
#include <sys/wait.h>
#include <unistd.h>

#include "core/device.h"
#include "test/cuda/device.h"
#include "test/cuda/plugin.h"
#include "test/emulation/emulated_cuda.h"

#include "test/cases/sampling_fixture.h"

namespace gavel {
namespace {

// Whether `body` ends a child process by a signal.
bool dies(const std::function<void()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(2);
    body();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFSIGNALED(status);
}

void ignore(float*) {}

struct Pair {
  float* first;
  float* second;
};
void ignore_pair(Pair) {}

}  // namespace

TEST("emulation: host code that touches device memory dies") {
  const TensorMemory memory(test::TestDevice::device());
  uint8_t* data = nullptr;
  CHECK(memory.allocate(4096, "a test", "", &data).ok());
  float read = 1;
  memory.clear(data, 4096);
  memory.download(&read, data, sizeof(read));
  CHECK_EQ(read, 0.0f);
  CHECK(dies([&] { data[17] = 1; }));
  CHECK(dies([&] { read = *reinterpret_cast<volatile float*>(data); }));
  CHECK(!dies([&] { read = 2; }));
  memory.release(data, 4096);
}

TEST("emulation: a kernel that is given host memory dies") {
  const cudaLaunchConfig_t config{{1}, {1}};
  std::vector<float> host(4096);
  CHECK(dies([&] { cudaLaunchKernelEx(&config, ignore, host.data()); }));
  CHECK(dies([&] { cudaLaunchKernelEx(&config, ignore_pair, Pair{nullptr, host.data()}); }));
  CHECK(!dies([&] { cudaLaunchKernelEx(&config, ignore, static_cast<float*>(nullptr)); }));
}

TEST("emulation: a write past memory is seen when it is released") {
  const TensorMemory memory(test::TestDevice::device());
  CHECK(dies([&] {
    uint8_t* data = nullptr;
    CHECK(memory.allocate(256, "a test", "", &data).ok());
    memory.clear(data, 257);
    memory.release(data, 256);
  }));
}

TEST("emulation: work runs up to the mark that is waited for; pinned memory is read then, other memory at once") {
  Device& device = *test::TestDevice::device();
  auto* const data = static_cast<uint8_t*>(device.allocate(256));
  auto* const pinned = static_cast<uint8_t*>(device.allocate_host(256));
  uint8_t plain[2] = {1, 2};
  Device::Mark mark = nullptr;
  device.upload(data, plain, 2);
  plain[0] = 9;
  device.copy_out(pinned, data, 2);
  device.mark(mark);
  device.copy_out(pinned + 2, data, 2);
  CHECK_EQ(pinned[0], 0xff);
  device.wait(mark);
  CHECK_EQ(pinned[0], 1);
  CHECK_EQ(pinned[1], 2);
  CHECK_EQ(pinned[2], 0xff);
  pinned[0] = 5;
  device.upload(data, pinned, 1);
  pinned[0] = 6;
  device.download(std::vector<Device::Transfer>{{plain, data, 1}});
  CHECK_EQ(plain[0], 6);
  CHECK_EQ(pinned[3], 2);
  device.release_mark(mark);
  device.release_host(pinned);
  device.release(data);
}

TEST("emulation: captured work that names pageable memory dies; a graph runs as often as it is launched") {
  const PluginBackend& backend = test::device_backend();
  PluginStatus status;
  PluginLaunch plain, launch;
  auto* const data = static_cast<uint8_t*>(backend.allocate(0, 512, &status));
  uint8_t host[256] = {3};
  backend.copy_to_device(&plain, data, host, sizeof(host), &status);
  backend.begin_capture(&launch, &status);
  CHECK(launch.stream != nullptr);
  CHECK(dies([&] { backend.copy_to_device(&launch, data, host, sizeof(host), &status); }));
  CHECK(dies([&] { backend.copy_to_host(&launch, host, data, sizeof(host), &status); }));
  backend.copy(&launch, data + 256, data, 1, &status);
  void* const graph = backend.end_capture(&launch, &status);
  CHECK(graph != nullptr && launch.stream == nullptr && status.ok());
  for (const uint8_t value : {11, 12}) {
    host[0] = value;
    backend.copy_to_device(&plain, data, host, 1, &status);
    backend.launch_graph(&plain, graph, &status);
    backend.copy_to_host(&plain, host + 1, data + 256, 1, &status);
    if (value == 12) CHECK(dies([&] { backend.release_graph(0, graph, &status); }));
    backend.synchronize(&plain, &status);
    CHECK_EQ(host[1], value);
  }
  backend.release_graph(0, graph, &status);
  backend.release(0, data, &status);
}

TEST("device: a pass becomes a graph when it comes again, until memory goes back or others push it out") {
  Device device(test::device_backend(), 0);
  auto* const data = static_cast<uint8_t*>(device.allocate(1024));
  void* const other = device.allocate(256);
  uint8_t host[1024] = {};
  for (size_t i = 0; i < 64; ++i) host[i] = static_cast<uint8_t>(i);
  device.upload(data, host, sizeof(host));
  // Byte 512 + i takes the value of byte i, or is cleared.
  const auto pass = [&](size_t i, bool clears) {
    device.record();
    device.copy(data + 512 + i, data + i, 1);
    if (clears) device.clear(data + 512 + i, 1);
    device.submit();
  };
  const auto counts_are = [&](int64_t captured, int64_t replayed) {
    CHECK_EQ(device.counts().captured, captured);
    CHECK_EQ(device.counts().replayed, replayed);
  };
  pass(1, false);
  counts_are(0, 0);
  pass(1, false);
  counts_are(1, 0);
  pass(1, false);
  pass(1, true);
  pass(2, true);
  pass(1, false);
  counts_are(1, 2);
  device.release(other);
  pass(1, false);
  counts_are(1, 2);
  pass(1, false);
  pass(1, false);
  counts_are(2, 3);
  for (size_t i = 10; i < 30; ++i) pass(i, false);
  pass(1, false);
  counts_are(2, 3);
  device.download(std::vector<Device::Transfer>{{host, data, sizeof(host)}});
  for (size_t i = 0; i < 64; ++i) CHECK_EQ(host[512 + i], i == 1 || (i >= 10 && i < 30) ? i : 0);
  CHECK(device.finish().ok());
  device.release(data);
}

TEST("engine sampling: without graphs, and on a device that is never behind, completions are the same") {
  Engine engine(DType::bf16, 1);
  // A device that refused a capture is not asked again.
  Device own(test::device_backend(), 0);
  Engine refused(DType::bf16, 1, cpu_paths().front(), {}, &own);
  for (const auto& requests : {mixed_requests(3), steady_request(3, 20)}) {
    Completions expected, plain, eager;
    SampleStats stats, plain_stats, eager_stats;
    CHECK_EQ(sample_all(engine, requests, 4, &expected, &stats).message, std::string());
    emulation::refuse_captures(true);
    CHECK_EQ(sample_all(refused, requests, 4, &plain, &plain_stats).message, std::string());
    emulation::refuse_captures(false);
    emulation::set_eager(true);
    CHECK_EQ(sample_all(engine, requests, 4, &eager, &eager_stats).message, std::string());
    emulation::set_eager(false);
    CHECK(stats.replayed_steps > 0 && eager_stats.replayed_steps > 0);
    CHECK_EQ(plain_stats.replayed_steps + plain_stats.captured_graphs, 0);
    for (const Completions& actual : {plain, eager}) {
      CHECK_EQ(actual.size(), expected.size());
      for (const auto& [key, one] : expected) {
        CHECK_EQ(actual.at(key).tokens.size(), one.tokens.size());
        CHECK(same(actual.at(key), one, one.tokens.size()));
      }
    }
  }
}

TEST("engine sampling: the device still has a step to do when the host reads the one before") {
  Engine engine(DType::bf16, 1);
  std::vector<SampleRequest> requests = steady_request(2, 12);
  requests.push_back(requests.front());
  requests.back().max_new_tokens = 6;
  const std::atomic<bool> never{false};
  std::vector<size_t> waiting;
  SampleStats stats;
  const auto finished = [&](std::vector<Completion>) { waiting.push_back(emulation::waiting()); };
  CHECK(Sampler(*engine.model, engine.context).run(requests, {4, {kImageToken}}, never, finished, &stats).ok());
  CHECK_EQ(waiting.size(), size_t{2});
  CHECK(waiting[0] > 0);
  CHECK_EQ(waiting[1], size_t{0});
}

TEST("engine sampling: memory that runs out in the middle is a typed error, and the next call draws the same") {
  Engine engine(DType::bf16, 1);
  // The second prompt is computed when the first rows have finished, and takes more than the first.
  std::vector<SampleRequest> requests = steady_request(2, 5);
  requests.push_back(requests.front());
  requests.back().prompt_tokens = group_of(8, 400, false).prompt_tokens;
  Completions whole, cut, again;
  SampleStats stats;
  CHECK_EQ(sample_all(engine, requests, 2, &whole, &stats).message, std::string());
  engine.model->arena().give_back();
  const std::atomic<bool> never{false};
  const auto starve = [&](std::vector<Completion> finished) {
    for (Completion& one : finished) cut[{one.request, one.sample}] = std::move(one);
    emulation::set_total_bytes(emulation::total_bytes() - emulation::free_bytes());
  };
  const Status status = Sampler(*engine.model, engine.context).run(requests, {2, {kImageToken}}, never, starve, &stats);
  emulation::set_total_bytes(0);
  CHECK_EQ(code_name(status.code), std::string("out_of_memory"));
  CHECK_EQ(cut.size(), size_t{2});
  CHECK_EQ(sample_all(engine, requests, 2, &again, &stats).message, std::string());
  CHECK_EQ(again.size(), whole.size());
  for (const auto& [key, one] : again) CHECK(same(one, whole.at(key), whole.at(key).tokens.size()));
}

TEST("engine: memory of a device that runs out is a typed error, and the engine lives") {
  const auto field = [](const Status& status, const std::string& name) {
    for (const auto& [key, value] : status.fields) {
      if (key == name) return std::stoull(value);
    }
    return 0ull;
  };
  Engine engine(DType::bf16, 1);
  const std::atomic<bool> never{false};
  std::vector<GroupInput> groups{group_of(2, 70, false)};
  groups[0].completions.resize(1);
  groups[0].completions[0].tokens = {60, 61, 62};
  Trainer trainer(*engine.model, engine.context);
  StepResult result;
  emulation::set_total_bytes(emulation::total_bytes() - emulation::free_bytes() + (1 << 20));

  SampleRequest request;
  request.prompt_tokens = groups[0].prompt_tokens;
  request.count = 4096;
  request.max_new_tokens = 64;
  SampleStats stats;
  Status status = Sampler(*engine.model, engine.context)
                      .run(
                          {request}, {4096, {}}, never, [](std::vector<Completion>) {}, &stats);
  CHECK_EQ(code_name(status.code), std::string("out_of_memory"));
  CHECK(field(status, "requestedBytes") > field(status, "availableBytes") && field(status, "availableBytes") > 0);
  CHECK(status.message.find("maxRows") != std::string::npos);

  std::unique_ptr<Model> second;
  ModelConfig large = small_config(DType::f32);
  large.numbers["vocab_size"] = {30000};
  status = Model::create(large, engine.context.device, &second);
  CHECK_EQ(code_name(status.code), std::string("out_of_memory"));

  emulation::set_total_bytes(emulation::total_bytes() - emulation::free_bytes() + (1 << 16));
  status = trainer.forward_backward(groups, {Objective{}}, {}, never, &result);
  CHECK_EQ(code_name(status.code), std::string("out_of_memory"));
  status = trainer.logprobs(groups, {}, never, &result);
  CHECK_EQ(code_name(status.code), std::string("out_of_memory"));
  emulation::set_total_bytes(0);
  CHECK_EQ(trainer.forward_backward(groups, {Objective{}}, {}, never, &result).message, std::string());
  OptimizerResult step;
  CHECK_EQ(trainer.optimizer_step({}, &step).message, std::string());
  CHECK(step.applied);
  request.count = 2;
  request.max_new_tokens = 3;
  CHECK_EQ(Sampler(*engine.model, engine.context)
               .run(
                   {request}, {2, {}}, never, [](std::vector<Completion>) {}, &stats)
               .message,
           std::string());
}

}  // namespace gavel
