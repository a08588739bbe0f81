// gavel_cuda_bench: the card's ceilings, then every kernel of the plugin at real shapes, timed by the device's clock,
// then decoding and updates by the whole engine.
// Prints "skipped: no device (reason)" and ends well where there is none; with GAVEL_REQUIRE_CUDA set that is a
// failure.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>

#include "addon/cuda_plugin.h"
#include "bench/native/cuda/arguments.h"
#include "bench/native/cuda/cases.h"
#include "bench/native/cuda/device_clock.h"
#include "bench/native/cuda/engine_workloads.h"
#include "bench/native/cuda/makers.h"
#include "bench/native/cuda/vendor_product.h"

namespace gavel::bench {
namespace {

class Bench {
 public:
  Bench(const Arguments& arguments, const PluginBackend& backend, DeviceClock& clock, std::ostream& out)
      : arguments_(arguments),
        backend_(backend),
        clock_(clock),
        out_(out),
        machine_{clock.hardware(), clock.driver(), arguments.commit} {}

  void measure_ceilings() {
    const uint64_t size = arguments_.tiny ? uint64_t{16} << 20 : uint64_t{2} << 30;
    Timing timing;
    copy_ = bandwidth("peak copy", &DeviceClock::copy_bandwidth, size);
    read_ = bandwidth("peak read", &DeviceClock::read_bandwidth, size);
    std::string error;
    vendor_ = VendorProduct::load(arguments_.cublaslt, &error);
    if (vendor_ == nullptr) {
      std::printf("  cuBLASLt skipped: %s. Name the file with --cublaslt\n", error.c_str());
      return;
    }
    std::printf("  cuBLASLt %s\n", vendor_->version().c_str());
    const int64_t n = arguments_.tiny ? 256 : 8192;
    for (DType dtype : arguments_.dtypes) {
      Operands operands(backend_, arguments_.device);
      error.clear();
      const int64_t side = dtype == DType::bf16 ? n : n / 2;
      timing = vendor_->forward(side, side, side, dtype, operands, clock_, arguments_.seconds, &error);
      if (timing.runs == 0) {
        note("peak product", error);
        continue;
      }
      const double rate =
          2.0 * static_cast<double>(side) * static_cast<double>(side) * static_cast<double>(side) / timing.seconds;
      (dtype == DType::bf16 ? product_bf16_ : product_fp32_) = rate;
      peak("peak product", "cuBLASLt " + std::to_string(side) + "^3", dtype, rate / 1e9, "GFLOP/s", timing);
    }
  }

  void measure(const Spec& spec) {
    Operands operands(backend_, arguments_.device);
    const Case one = make_case(spec, operands);
    const std::string name = spec.workload + " " + one.shape;
    PluginStatus status = operands.status();
    PluginLaunch launch;
    launch.device = arguments_.device;
    if (status.ok()) launch.workspace_bytes = one.workspace(backend_, launch, &status);
    if (!status.ok()) return note(name, status.message);
    launch.workspace = operands.allocate(launch.workspace_bytes);
    status = operands.status();
    std::string error;
    Measured measured;
    const uint64_t served = backend_.library_products();
    if (status.ok())
      measured.timing = clock_.measure([&] { one.run(backend_, launch, &status); }, arguments_.seconds, &error);
    if (!status.ok() || measured.timing.runs == 0) return note(name, status.ok() ? error : status.message);
    measured.by_library = backend_.library_products() > served;
    limit(one, &measured);
    std::printf("%s\n", text_row(one, measured).c_str());
    std::fflush(stdout);
    out_ << json_row(one, measured, machine_) << std::endl;
    ++measured_;
    if (one.parts) measure_cost(one, launch, operands);
  }

  void measure(const EngineSpec& spec, EngineBench& engine) {
    EngineResult result;
    const std::string name = spec.workload + " " + shape_of(spec);
    const Status status = engine.run(spec, &result);
    if (!status.ok()) return note(name, status.message);
    if (result.largest_difference != 0)
      return note(name, words("trained log-probs differ by %g from those scored", result.largest_difference));
    const bool decodes = spec.workload == "decode";
    const double ceiling = decodes ? read_ : product_bf16_;
    const double limit = ceiling > 0 ? (decodes ? result.bytes : result.flop) / ceiling : 0;
    std::printf("%s\n", text_row(spec, result, limit).c_str());
    std::fflush(stdout);
    for (const std::string& row : json_rows(spec, result, limit, decodes ? "read" : "product", machine_))
      out_ << row << std::endl;
    out_ << json_cost(spec, result, machine_) << std::endl;
    ++measured_;
  }

  int failed() const { return failed_; }
  int measured() const { return measured_; }

 private:
  // The exact and the fastest mode in turns.
  void measure_cost(const Case& one, const PluginLaunch& exact, Operands& operands) {
    PluginLaunch fastest = exact;
    fastest.exactness = Exactness::fastest;
    PluginStatus status;
    fastest.workspace_bytes = one.workspace(backend_, fastest, &status);
    fastest.workspace = operands.allocate(fastest.workspace_bytes);
    if (status.ok()) status = operands.status();
    std::string error;
    Paired paired;
    if (status.ok()) {
      paired = clock_.measure_pairs([&] { one.run(backend_, exact, &status); },
                                    [&] { one.run(backend_, fastest, &status); }, arguments_.seconds, &error);
    }
    if (!status.ok() || paired.ratio.runs == 0)
      return note("exactness_cost " + one.spec.workload + " " + one.shape, status.ok() ? error : status.message);
    const int64_t parts = one.parts(clock_.processors());
    std::printf("%s\n", text_cost(paired, parts).c_str());
    std::fflush(stdout);
    out_ << json_cost(one, paired, parts, machine_) << std::endl;
  }

  double bandwidth(const char* name, double (DeviceClock::*of)(uint64_t, double, Timing*, std::string*),
                   uint64_t size) {
    Timing timing;
    std::string error;
    const double value = (clock_.*of)(size, arguments_.seconds, &timing, &error);
    if (!error.empty()) {
      note(name, error);
      return 0;
    }
    peak(name, std::to_string(size >> 20) + " MiB", DType::f32, value / 1e9, "GB/s", timing);
    return value;
  }

  void peak(const std::string& name, const std::string& shape, DType dtype, double value, const char* unit,
            const Timing& timing) {
    std::printf("  %s %s: %.0f %s\n", name.c_str(), shape.c_str(), value, unit);
    out_ << json_peak(name, shape, dtype, value, unit, timing, machine_) << std::endl;
  }

  // The seconds that the case's ceiling allows.
  void limit(const Case& one, Measured* measured) {
    const auto set = [&](double seconds, const char* name) {
      measured->limit = seconds;
      measured->limit_name = name;
    };
    const double product = one.spec.dtype == DType::bf16 ? product_bf16_ : product_fp32_;
    switch (one.ceiling) {
      case Ceiling::copy:
        if (copy_ > 0) set(one.bytes / copy_, "copy");
        return;
      case Ceiling::read:
        if (read_ > 0) set(one.bytes / read_, "read");
        return;
      case Ceiling::product:
        if (product > 0) set(one.flop / product, "product");
        return;
      case Ceiling::same_product:
        break;
    }
    if (vendor_ == nullptr) return;
    Operands operands(backend_, arguments_.device);
    std::string error;
    const std::vector<int64_t>& s = one.spec.sizes;
    const auto pass = one.spec.backward ? &VendorProduct::backward : &VendorProduct::forward;
    const Timing theirs =
        (vendor_.get()->*pass)(s[0], s[1], s[2], one.spec.dtype, operands, clock_, arguments_.seconds, &error);
    if (theirs.runs == 0) return note("cuBLASLt " + one.shape, error);
    set(theirs.seconds, "cuBLASLt of the same shape");
  }

  void note(const std::string& name, const std::string& why) {
    ++failed_;
    std::printf("  failed: %s: %s\n", name.c_str(), why.c_str());
    std::fflush(stdout);
  }

  const Arguments& arguments_;
  const PluginBackend& backend_;
  DeviceClock& clock_;
  std::ostream& out_;
  Machine machine_;
  std::unique_ptr<VendorProduct> vendor_;
  double copy_ = 0, read_ = 0, product_bf16_ = 0, product_fp32_ = 0;
  int failed_ = 0, measured_ = 0;
};

int skip(const std::string& reason) {
  std::printf("skipped: no device (%s)\n", reason.c_str());
  return std::getenv("GAVEL_REQUIRE_CUDA") == nullptr ? 0 : 1;
}

int run(const Arguments& arguments) {
  std::vector<Spec> specs;
  for (const Spec& spec : all_specs())
    if (selected(arguments, spec.workload, spec.dtype)) specs.push_back(arguments.tiny ? tiny(spec) : spec);
  std::vector<EngineSpec> engine_specs;
  for (const EngineSpec& spec : bench::engine_specs())
    if (selected(arguments, spec.workload, DType::bf16)) engine_specs.push_back(arguments.tiny ? tiny(spec) : spec);
  if (arguments.list) {
    for (const Spec& spec : specs) {
      std::printf("%s %s%s", spec.workload.c_str(), spec.dtype == DType::bf16 ? "bf16" : "fp32",
                  spec.backward ? " backward" : "");
      for (int64_t size : spec.sizes) std::printf(" %ld", static_cast<long>(size));
      std::printf("\n");
    }
    for (const EngineSpec& spec : engine_specs)
      std::printf("%s bf16 %s G %ld\n", spec.workload.c_str(), shape_of(spec).c_str(), static_cast<long>(spec.group));
    return 0;
  }
  // The engine under test finds the library where the bench was told it is.
  if (!arguments.cublaslt.empty()) setenv("GAVEL_CUBLASLT", arguments.cublaslt.c_str(), 0);
  const CudaProbe probe = probe_cuda();
  if (!probe.status.ok()) return skip(probe.status.message);
  if (arguments.device >= static_cast<int32_t>(probe.devices.size())) {
    std::fprintf(stderr, "Expected `--device` below %zu but received %d.\n", probe.devices.size(), arguments.device);
    return 2;
  }
  Status status;
  const PluginBackend* backend = cuda_backend(&status);
  std::string error;
  const std::unique_ptr<DeviceClock> clock = DeviceClock::create(arguments.device, &error);
  if (clock == nullptr) return skip(error);
  std::ofstream file;
  if (!arguments.out.empty()) {
    file.open(arguments.out, std::ios::app);
    if (!file) {
      std::fprintf(stderr, "Expected to write `--out` %s but cannot.\n", arguments.out.c_str());
      return 2;
    }
  }
  std::printf("%s; driver %s; commit %s\n%zu cases\n", clock->hardware().c_str(), clock->driver().c_str(),
              arguments.commit.c_str(), specs.size() + engine_specs.size());
  Bench bench(arguments, *backend, *clock, arguments.out.empty() ? std::cout : file);
  bench.measure_ceilings();
  for (const Spec& spec : specs) bench.measure(spec);
  EngineBench engine(*backend, arguments.device);
  for (const EngineSpec& spec : engine_specs) bench.measure(spec, engine);
  std::printf("%d measured, %d failed\n", bench.measured(), bench.failed());
  return bench.failed() == 0 ? 0 : 1;
}

}  // namespace
}  // namespace gavel::bench

int main(int argc, char** argv) {
  using namespace gavel::bench;
  Arguments arguments;
  std::string message;
  std::vector<std::string> names = workload_names();
  for (const std::string& name : engine_workload_names()) names.push_back(name);
  if (!parse_arguments({argv + 1, argv + argc}, names, &arguments, &message)) {
    std::fprintf(stderr, "%s\n%s", message.c_str(), usage(names).c_str());
    return 2;
  }
  if (arguments.help) {
    std::printf("%s", usage(names).c_str());
    return 0;
  }
  return run(arguments);
}
