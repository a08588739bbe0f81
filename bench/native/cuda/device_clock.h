// What only CUDA's runtime gives: the device's own clock, its name, and the speed of its memory.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bench/native/cuda/row.h"

namespace gavel::bench {

/// Times calls on the default stream by events. Before each, more than the whole second-level cache is written, so that
/// every operand comes from memory.
class DeviceClock {
 public:
  /// `error` says why there is none.
  static std::unique_ptr<DeviceClock> create(int32_t device, std::string* error);
  ~DeviceClock();
  DeviceClock(const DeviceClock&) = delete;
  DeviceClock& operator=(const DeviceClock&) = delete;

  /// Runs `call` three times unmeasured, then for about `seconds` of the device's time (10 to 200 times). `error` is
  /// set, and the timing has no runs, when the device reports one.
  Timing measure(const std::function<void()>& call, double seconds, std::string* error);
  /// The same of two calls that take turns: A B A B ...
  Paired measure_pairs(const std::function<void()>& first, const std::function<void()>& second, double seconds,
                       std::string* error);
  /// Bytes read and written a second by a copy, and read by a sum, of `size_bytes`.
  double copy_bandwidth(uint64_t size_bytes, double seconds, Timing* timing, std::string* error);
  double read_bandwidth(uint64_t size_bytes, double seconds, Timing* timing, std::string* error);

  const std::string& hardware() const { return hardware_; }
  const std::string& driver() const { return driver_; }
  int major() const { return major_; }
  int processors() const;

 private:
  DeviceClock() = default;
  double once(const std::function<void()>& call, std::string* error);
  // Seconds of each call, in turns.
  std::vector<std::vector<double>> turns(const std::vector<std::function<void()>>& calls, double seconds,
                                         std::string* error);
  struct State;
  std::unique_ptr<State> state_;
  std::string hardware_, driver_;
  int major_ = 0;
};

}  // namespace gavel::bench
