// The cases of bench/native/cuda at tiny sizes on the emulation: each is accepted by its kernel, writes all it should,
// and counts the work it says. On a card nothing is left to go wrong but the card.
#include <cmath>
#include <cstring>
#include <map>
#include <set>

#include "bench/native/cuda/arguments.h"
#include "bench/native/cuda/cases.h"
#include "bench/native/cuda/engine_workloads.h"
#include "bench/native/cuda/row.h"
#include "ops/all.h"
#include "test/check.h"
#include "test/cuda/device.h"

namespace gavel::test {
namespace {

using bench::Operands;
using bench::Spec;

double element(DType dtype) { return static_cast<double>(dtype_size(dtype)); }

// Every element of an output is finite: it was written, and from finite operands.
bool finite(Operands& operands, const Tensor& tensor) {
  std::vector<uint8_t> bytes(static_cast<size_t>(bench::stored_count(tensor)) * dtype_size(tensor.dtype));
  operands.read(bytes.data(), tensor.data, bytes.size());
  const size_t step = dtype_size(tensor.dtype);
  for (size_t i = 0; i < bytes.size(); i += step) {
    float value = 0;
    if (tensor.dtype == DType::bf16) {
      bf16_t half;
      std::memcpy(&half, &bytes[i], step);
      value = bf16_to_float(half);
    } else {
      std::memcpy(&value, &bytes[i], step);
    }
    if (!std::isfinite(value)) return false;
  }
  return !bytes.empty();
}

void check_case(const Spec& spec) {
  const PluginBackend& backend = device_backend();
  Operands operands(backend, 0);
  const bench::Case one = bench::make_case(spec, operands);
  const std::string name = spec.workload + " " + one.shape;
  const auto expect = [&](bool good, const std::string& what) {
    if (!good) fail(__FILE__, __LINE__, name + ": " + what);
  };
  PluginStatus status = operands.status();
  PluginLaunch launch;
  launch.workspace_bytes = one.workspace(backend, launch, &status);
  expect(status.ok(), status.message);
  if (!status.ok()) return;
  launch.workspace = operands.allocate(launch.workspace_bytes);
  one.run(backend, launch, &status);
  backend.synchronize(&launch, &status);
  expect(status.ok(), status.message);
  for (const Tensor& output : one.outputs) expect(finite(operands, output), "an output is not finite");
  if (one.parts) {
    launch.exactness = Exactness::fastest;
    launch.workspace_bytes = one.workspace(backend, launch, &status);
    launch.workspace = operands.allocate(launch.workspace_bytes);
    one.run(backend, launch, &status);
    backend.synchronize(&launch, &status);
    expect(status.ok() && one.parts(132) >= 1, "the fastest mode fails");
    for (const Tensor& output : one.outputs) expect(finite(operands, output), "a fastest output is not finite");
  }
  expect(one.bytes > 0 && (!bench::counts_flop(one) || one.flop > 0), "counts no work");
  expect(one.bytes <= 2.01 * static_cast<double>(operands.size_bytes()) || spec.workload == "adamw",
         "moves more than its operands twice");
}

bench::Case built(const std::string& workload, DType dtype, std::vector<int64_t> sizes, bool backward) {
  Operands operands(device_backend(), 0);
  return bench::make_case({workload, dtype, std::move(sizes), backward}, operands);
}

}  // namespace

TEST("cuda bench: every case runs at tiny sizes") {
  std::set<std::string> seen;
  for (const Spec& spec : bench::all_specs()) {
    const Spec small = bench::tiny(spec);
    std::ostringstream key;
    key << small.workload << small.backward << element(small.dtype);
    for (int64_t size : small.sizes) key << ' ' << size;
    if (seen.insert(key.str()).second) check_case(small);
  }
  std::set<std::string> names;
  for (const Spec& spec : bench::all_specs()) names.insert(spec.workload);
  CHECK_EQ(names.size(), bench::workload_names().size());
}

TEST("cuda bench: work and traffic as counted by hand") {
  for (DType dtype : {DType::f32, DType::bf16}) {
    const double e = element(dtype);
    // 33 outputs lie in two panels of 32, 5 inputs in 6.
    bench::Case one = built("linear", dtype, {3, 33, 5}, false);
    CHECK_EQ(one.flop, 2.0 * 3 * 33 * 5);
    CHECK_EQ(one.bytes, e * (3 * 5 + 64 * 6 + 3 * 33));
    one = built("linear", dtype, {3, 33, 5}, true);
    CHECK_EQ(one.flop, 4.0 * 3 * 33 * 5);
    CHECK_EQ(one.bytes, e * (2 * 3 * 5 + 64 * 6 + 3 * 33) + 8.0 * 64 * 6);
    one = built("rms_norm", dtype, {7, 24}, false);
    CHECK_EQ(one.bytes, e * (2 * 7 * 24 + 24) + 4 * 7);
    one = built("rms_norm", dtype, {7, 24}, true);
    CHECK_EQ(one.bytes, e * (3 * 7 * 24 + 24) + 4 * 7 + 8 * 24);
    CHECK_EQ(built("swiglu", dtype, {7, 24}, false).bytes, e * 3 * 7 * 24);
    CHECK_EQ(built("swiglu", dtype, {7, 24}, true).bytes, e * 5 * 7 * 24);
    // Read and written: two heads of four; angles once.
    CHECK_EQ(built("rope", dtype, {7, 1, 1, 16}, false).bytes, e * 2 * 7 * 32 + 4 * 2 * 7 * 8);
    CHECK_EQ(built("head_logprob", dtype, {4, 300, 8, 1}, false).flop, 2.0 * 4 * 300 * 8);
    CHECK_EQ(built("head_logprob", dtype, {4, 300, 8, 1}, true).flop, 4.0 * 4 * 300 * 8);
    CHECK_EQ(built("head_logprob", dtype, {4, 300, 8, 0}, true).flop, 2.0 * 4 * 300 * 8);
  }
  CHECK_EQ(built("adamw", DType::f32, {1000, 4, 0}, false).bytes, 1000.0 * (8 + 4 + 16));
  CHECK_EQ(built("adamw", DType::bf16, {1000, 4, 1}, false).bytes, 1000.0 * (2 + 8 + 4 + 16));
  CHECK_EQ(built("adamw", DType::bf16, {1000, 2, 0}, false).bytes, 1000.0 * (4 + 4 + 8));
  CHECK_EQ(built("adamw", DType::bf16, {1024, 1, 0}, false).bytes, 1024.0 * (4 + 4 + 4) + 4.0 * 4 * 4);
  CHECK_EQ(built("sample_token", DType::f32, {2, 300, 0, 100}, false).bytes,
           2.0 * (300 * 4 + 4 + sizeof(SampleOptions) + 12));
}

// Pairs of a query and a key it sees, by walking them.
TEST("cuda bench: attention counts the pairs of its ranges") {
  const auto pairs = [](int64_t prompt, int64_t group, int64_t length) {
    double count = 0;
    for (int64_t i = 0; i < prompt; ++i) count += static_cast<double>(i + 1);
    for (int64_t g = 0; g < group; ++g)
      for (int64_t i = 0; i < length; ++i) count += static_cast<double>(prompt + i + 1);
    return count;
  };
  for (bool backward : {false, true}) {
    const double each = (backward ? 10 : 4) * 4 * 32;
    CHECK_EQ(built("attention", DType::bf16, {70, 3, 9, 4, 2, 32}, backward).flop, each * pairs(70, 3, 9));
    CHECK_EQ(built("attention", DType::bf16, {70, 0, 0, 4, 2, 32}, backward).flop, each * pairs(70, 0, 0));
    CHECK_EQ(built("attention_segments", DType::bf16, {40, 16, 4, 2, 32}, backward).flop, each * (16 * 16 * 2 + 8 * 8));
  }
  // Two prompts of 70 in groups of 3, nine tokens drawn: a full page shared, six rows' own 6 + 9 keys.
  const bench::Case one = built("attention_decode", DType::bf16, {2, 3, 70, 9, 4, 2, 32}, false);
  CHECK_EQ(one.flop, 4.0 * 4 * 32 * 6 * 79);
  CHECK_EQ(one.bytes, 2.0 * (6 * (8 + 4) * 32 + (2 * 64 + 6 * 15) * 2 * 2 * 32));
}

TEST("cuda bench: the engine's workloads run at tiny sizes, exactly") {
  bench::EngineBench engine(device_backend(), 0);
  int pictures = 0;
  for (const bench::EngineSpec& spec : bench::engine_specs()) {
    const bench::EngineSpec cut = bench::tiny(spec);
    bench::EngineResult result;
    const Status status = engine.run(cut, &result);
    CHECK_EQ(status.message, std::string());
    CHECK_EQ(result.tokens, 12.0);
    CHECK_EQ(result.largest_difference, 0.0);
    CHECK(result.seconds > 0 && result.fastest_seconds > 0 && result.cost > 0);
    CHECK(result.fastest_difference < 0.05);
    const std::string cost = bench::json_cost(cut, result, {"card", "driver", "abc"});
    CHECK(cost.find("{\"workload\":\"exactness_cost\"") == 0 && cost.back() == '}');
    CHECK(result.device_bytes > 0);
    // 2 layers of 64 x 64 x 4 and 3 x 64 x 96, a head of 320 x 64.
    const double body = 2 * (4 * 64 * 64 + 3 * 64 * 96), head = 320 * 64;
    if (cut.workload == "decode") {
      // 2 layers of 2 heads of 32, keys and values, 2 bytes each; 140 positions of prompts, on average 1.5 of 4 rows.
      CHECK_EQ(result.bytes, 3 * (2 * (body + head) + (140 + 4 * 1.5) * 2 * 2 * 2 * 32 * 2));
    } else {
      const bool adapts = cut.lora_rank > 0;
      // 2 pictures of 144 patches of 24 numbers; 2 layers of 32 and 48; a merger of 128 by 128 and 64 by 128 once in
      // four patches.
      const double tower = 2 * (4 * 32 * 32 + 3 * 32 * 48) + (128 * 128 + 64 * 128) / 4, patch = 24 * 32;
      const double picture = 2 * 144 * ((adapts ? 2 : 6) * tower + (adapts ? 2 : 4) * patch);
      pictures += cut.vision.picture_side > 0;
      CHECK_EQ(result.flop, (adapts ? 4 : 6) * (152 * body + 12 * head) + (cut.vision.picture_side > 0 ? picture : 0));
    }
    for (const std::string& row : bench::json_rows(cut, result, 1e-6, "read", {"card", "driver", "abc"})) {
      CHECK_EQ(row.front(), '{');
      CHECK_EQ(row.back(), '}');
      CHECK(row.find("\"G\":2") != std::string::npos);
    }
  }
  CHECK_EQ(pictures, 2);
}

TEST("cuda bench: arguments, and what is refused") {
  const std::vector<std::string> names = bench::workload_names();
  bench::Arguments arguments;
  std::string message;
  CHECK(bench::parse_arguments(
      {"--only", "linear,rope", "--dtypes", "fp32", "--seconds", "0.5", "--commit", "abc", "--quick"}, names,
      &arguments, &message));
  CHECK(arguments.tiny && arguments.seconds == 0.5 && arguments.commit == "abc");
  CHECK(bench::selected(arguments, "rope", DType::f32));
  CHECK(!bench::selected(arguments, "rope", DType::bf16));
  CHECK(!bench::selected(arguments, "adamw", DType::f32));
  const std::map<std::string, std::vector<std::string>> wrong = {{"--frob", {"--frob"}},
                                                                 {"value after `--only`", {"--only"}},
                                                                 {"value after `--out`", {"--out", "--quick"}},
                                                                 {"'liner'", {"--only", "liner"}},
                                                                 {"'fp16'", {"--dtypes", "fp16"}},
                                                                 {"`--seconds`", {"--seconds", "1x"}},
                                                                 {"'-1'", {"--device", "-1"}}};
  for (const auto& [part, given] : wrong) {
    bench::Arguments ignored;
    message.clear();
    CHECK(!bench::parse_arguments(given, names, &ignored, &message));
    CHECK(message.rfind("Expected ", 0) == 0 && message.find(part) != std::string::npos);
  }
}

TEST("cuda bench: a row is JSON with its share and goal") {
  bench::Case one = built("rms_norm", DType::bf16, {7, 24}, false);
  const bench::Machine machine{"A \"card\"", "13.0", "abc"};
  const std::string line = bench::json_row(one, {{2e-6, 1e-6, 3e-6, 10}, 1e-6, "copy"}, machine);
  for (const char* part : {"{\"workload\":\"rms_norm\"", "\"P\":null", "\"dtype\":\"bf16\"", "\"shareOfLimit\":0.5",
                           "\"unit\":\"GB/s\"", "\"goal\":0.85,\"goalOf\":\"share\"", "\"hardware\":\"A \\\"card\\\"\"",
                           "\"clock\":\"device\"", "\"commit\":\"abc\""}) {
    if (line.find(part) == std::string::npos) fail(__FILE__, __LINE__, std::string("no ") + part + " in " + line);
  }
  CHECK(line.back() == '}');
  const std::string unknown = bench::json_row(one, {{2e-6, 1e-6, 3e-6, 10}, 0, ""}, machine);
  const std::string cost =
      bench::json_cost(one, {{3e-6, 3e-6, 3e-6, 10}, {2e-6, 2e-6, 2e-6, 10}, {1.5, 1.4, 1.6, 10}}, 8, machine);
  for (const char* part :
       {"{\"workload\":\"exactness_cost\"", "\"value\":1.5,\"unit\":\"exact / fastest\"",
        "\"goal\":1.05,\"goalOf\":\"most\"", "\"parts\":8", "forward, 8 parts\"", "\"fastestSeconds\":2e-06"}) {
    if (cost.find(part) == std::string::npos) fail(__FILE__, __LINE__, std::string("no ") + part + " in " + cost);
  }
  CHECK(unknown.find("\"shareOfLimit\":null") != std::string::npos && unknown.find("goal") == std::string::npos);
}

}  // namespace gavel::test
