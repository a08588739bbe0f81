#include "bench/native/cuda/row.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "bench/native/cuda/makers.h"

namespace gavel::bench {
namespace {

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    if (static_cast<unsigned char>(c) >= 0x20) result += c;
  }
  return result + '"';
}

// JSON has no NaN.
std::string number(double value) { return std::isfinite(value) ? words("%.6g", value) : "null"; }
std::string size(int64_t value) { return value < 0 ? "null" : words("%ld", value); }
const char* name_of(DType dtype) { return dtype == DType::bf16 ? "bf16" : "fp32"; }

std::string now() {
  char text[32];
  const std::time_t time = std::time(nullptr);
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S.000Z", std::gmtime(&time));
  return text;
}

std::string where(const Machine& machine) {
  double load = 0;
  if (getloadavg(&load, 1) != 1) load = 0;
  return ",\"hardware\":" + quoted(machine.hardware) + ",\"driver\":" + quoted(machine.driver) +
         ",\"commit\":" + quoted(machine.commit) + words(",\"load\":%.2f", load) + ",\"date\":" + quoted(now()) + "}";
}

std::string clocked(const Timing& timing, const char* clock = "device") {
  return ",\"seconds\":" + number(timing.seconds) + ",\"secondsLow\":" + number(timing.low) +
         ",\"secondsHigh\":" + number(timing.high) + words(",\"runs\":%d", timing.runs) +
         ",\"clock\":" + quoted(clock) + ",\"device\":\"cuda\"";
}

double rate(const Case& one, double seconds) { return (counts_flop(one) ? one.flop : one.bytes) / seconds / 1e9; }
const char* unit(const Case& one) { return counts_flop(one) ? "GFLOP/s" : "GB/s"; }

}  // namespace

bool counts_flop(const Case& one) { return one.ceiling == Ceiling::product || one.ceiling == Ceiling::same_product; }

std::string json_row(const Case& one, const Measured& measured, const Machine& machine) {
  const double seconds = measured.timing.seconds;
  const std::string share = measured.limit > 0 ? number(measured.limit / seconds) : "null";
  std::string line =
      "{\"workload\":" + quoted(one.spec.workload) + ",\"P\":" + size(one.P) + ",\"C\":" + size(one.C) +
      ",\"G\":" + size(one.G) + ",\"V\":" + size(one.V) + ",\"dtype\":" + quoted(name_of(one.spec.dtype)) +
      ",\"threads\":null,\"loraRank\":null,\"shareOfLimit\":" + share + ",\"shape\":" + quoted(one.shape) +
      ",\"value\":" + number(rate(one, seconds)) + ",\"unit\":" + quoted(unit(one)) + ",\"flop\":" + number(one.flop) +
      ",\"bytes\":" + number(one.bytes);
  if (measured.limit > 0) line += ",\"limit\":" + quoted(measured.limit_name);
  if (measured.by_library) line += ",\"by\":\"cuBLASLt\"";
  if (one.goal > 0 && measured.limit > 0) line += ",\"goal\":" + number(one.goal) + ",\"goalOf\":\"share\"";
  return line + clocked(measured.timing) + where(machine);
}

std::string json_peak(const std::string& workload, const std::string& shape, DType dtype, double value,
                      const std::string& unit, const Timing& timing, const Machine& machine) {
  return "{\"workload\":" + quoted(workload) +
         ",\"P\":null,\"C\":null,\"G\":null,\"V\":null,\"dtype\":" + quoted(name_of(dtype)) +
         ",\"threads\":null,\"loraRank\":null,\"shareOfLimit\":null,\"shape\":" + quoted(shape) +
         ",\"value\":" + number(value) + ",\"unit\":" + quoted(unit) + clocked(timing) + where(machine);
}

std::vector<std::string> json_rows(const EngineSpec& spec, const EngineResult& result, double limit,
                                   const std::string& limit_name, const Machine& machine) {
  const auto line = [&](const std::string& workload, double value, const std::string& unit, const Timing& timing,
                        const std::string& share) {
    return "{\"workload\":" + quoted(workload) + ",\"P\":" + size(spec.prompt_tokens) +
           ",\"C\":" + size(spec.completion_tokens) + ",\"G\":" + size(spec.group) + ",\"V\":" + size(spec.vocabulary) +
           ",\"dtype\":\"bf16\",\"threads\":null,\"loraRank\":" + (spec.lora_rank > 0 ? size(spec.lora_rank) : "null") +
           share + ",\"shape\":" + quoted(shape_of(spec)) + ",\"value\":" + number(value) +
           ",\"unit\":" + quoted(unit) + clocked(timing, "host") + where(machine);
  };
  const std::string none = ",\"shareOfLimit\":null";
  const std::string share =
      limit > 0 ? ",\"shareOfLimit\":" + number(limit / result.seconds) + ",\"limit\":" + quoted(limit_name) : none;
  const bool decodes = spec.workload == "decode";
  const Timing timing{result.seconds, result.low, result.high, result.runs};
  std::vector<std::string> rows;
  if (decodes) {
    const double all = result.seconds + result.prefill_seconds;
    rows.push_back(line(spec.workload, result.tokens / all, "tokens/s", {all, all, all, result.runs}, none));
  }
  rows.push_back(line(decodes ? "decode after the prompts" : spec.workload, result.tokens / result.seconds,
                      decodes ? "tokens/s" : "completion tokens/s", timing, share));
  rows.push_back(
      line(spec.workload + " peak memory", static_cast<double>(result.device_bytes) / (1 << 20), "MiB", timing, none));
  return rows;
}

namespace {

constexpr double kMostCost = 1.05;

std::string cost_fields(const Paired& paired, const char* clock) {
  return ",\"value\":" + number(paired.ratio.seconds) + ",\"unit\":\"exact / fastest\",\"goal\":" + number(kMostCost) +
         ",\"goalOf\":\"most\",\"ratioLow\":" + number(paired.ratio.low) +
         ",\"ratioHigh\":" + number(paired.ratio.high) + ",\"fastestSeconds\":" + number(paired.second.seconds) +
         clocked(paired.first, clock);
}

}  // namespace

std::string json_cost(const Case& one, const Paired& paired, int64_t parts, const Machine& machine) {
  const std::string shape = one.spec.workload + " " + one.shape + words(", %ld parts", parts);
  return "{\"workload\":\"exactness_cost\",\"P\":" + size(one.P) + ",\"C\":" + size(one.C) + ",\"G\":" + size(one.G) +
         ",\"V\":" + size(one.V) + ",\"dtype\":" + quoted(name_of(one.spec.dtype)) +
         ",\"threads\":null,\"loraRank\":null,\"shareOfLimit\":null,\"shape\":" + quoted(shape) +
         words(",\"parts\":%ld", parts) + cost_fields(paired, "device") + where(machine);
}

std::string json_cost(const EngineSpec& spec, const EngineResult& result, const Machine& machine) {
  const Timing exact{result.seconds, result.low, result.high, result.runs};
  const Paired paired{exact, {result.fastest_seconds}, {result.cost, result.cost_low, result.cost_high, result.runs}};
  return "{\"workload\":\"exactness_cost\",\"P\":" + size(spec.prompt_tokens) +
         ",\"C\":" + size(spec.completion_tokens) + ",\"G\":" + size(spec.group) + ",\"V\":" + size(spec.vocabulary) +
         ",\"dtype\":\"bf16\",\"threads\":null,\"loraRank\":" + (spec.lora_rank > 0 ? size(spec.lora_rank) : "null") +
         ",\"shareOfLimit\":null,\"shape\":" + quoted(spec.workload + " " + shape_of(spec)) +
         ",\"fastestDifference\":" + number(result.fastest_difference) + cost_fields(paired, "host") + where(machine);
}

std::string text_cost(const Paired& paired, int64_t parts) {
  return words("  %-18s %54s exact / fastest %.3f [%.3f, %.3f], %ld parts: %.1f us against %.1f us", "exactness_cost",
               "", paired.ratio.seconds, paired.ratio.low, paired.ratio.high, parts, 1e6 * paired.first.seconds,
               1e6 * paired.second.seconds);
}

std::string text_row(const EngineSpec& spec, const EngineResult& result, double limit) {
  std::string line = words("  %-18s bf16 %-46s G %-3ld %9.3f s %10.0f tokens/s, %.1f GiB", spec.workload.c_str(),
                           shape_of(spec).c_str(), static_cast<long>(spec.group), result.seconds,
                           result.tokens / result.seconds, static_cast<double>(result.device_bytes) / (1 << 30));
  line += words(", exact / fastest %.3f", result.cost);
  if (spec.workload == "decode")
    line += words(", prompts %.3f s, %.0f of %.0f steps by a kept graph", result.prefill_seconds, result.replayed_steps,
                  result.steps);
  if (limit > 0) line += words(", %.0f %% of its limit", 100 * limit / result.seconds);
  return line;
}

std::string text_row(const Case& one, const Measured& measured) {
  const Timing& t = measured.timing;
  std::string line =
      words("  %-18s %-4s %-58s %9.1f us [%.1f, %.1f] %9.1f %s", one.spec.workload.c_str(), name_of(one.spec.dtype),
            one.shape.c_str(), 1e6 * t.seconds, 1e6 * t.low, 1e6 * t.high, rate(one, t.seconds), unit(one));
  if (measured.by_library) line += " by cuBLASLt";
  if (measured.limit <= 0) return line;
  line += words(", %.0f %% of %s", 100 * measured.limit / t.seconds, measured.limit_name.c_str());
  if (one.goal > 0)
    line += measured.limit / t.seconds >= one.goal ? ", goal met" : words(", goal %.0f %%", 100 * one.goal);
  return line;
}

}  // namespace gavel::bench
