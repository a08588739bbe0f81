#include "test/cuda/staged.h"

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ops/operands.h"
#include "test/check.h"
#include "test/cuda/device.h"

namespace gavel::test {
namespace {

constexpr size_t kGuard = 256;
constexpr uint8_t kPattern = 0x5a;

std::string refusal;
size_t shift = 0;
Exactness exactness = Exactness::bitwise;
uint64_t last_workspace = 0;

void check(const PluginStatus& status) {
  if (!status.ok()) fail(__FILE__, __LINE__, status.message);
}

class Memory {
 public:
  explicit Memory(size_t size_bytes) : size_(size_bytes) {
    PluginStatus status;
    data_ = static_cast<uint8_t*>(device_backend().allocate(0, size_, &status));
    check(status);
  }
  ~Memory() {
    PluginStatus status;
    device_backend().release(0, data_, &status);
    check(status);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  size_t size_;
  uint8_t* data_ = nullptr;
};

// Host memory and its copy on the device.
struct Region {
  uint8_t* host;
  size_t size;
  bool written;
  std::unique_ptr<Memory> memory;

  size_t front = kGuard + shift;  // bytes before the operand

  std::vector<uint8_t> image() const {
    std::vector<uint8_t> bytes(front + size + kGuard, kPattern);
    std::memcpy(bytes.data() + front, host, size);
    return bytes;
  }
  void upload() {
    const std::vector<uint8_t> bytes = image();
    memory = std::make_unique<Memory>(bytes.size());
    const PluginLaunch launch;
    PluginStatus status;
    device_backend().copy_to_device(&launch, memory->data(), bytes.data(), bytes.size(), &status);
    check(status);
  }
  void download(const std::string& op) const {
    std::vector<uint8_t> bytes(front + size + kGuard);
    const PluginLaunch launch;
    PluginStatus status;
    device_backend().copy_to_host(&launch, bytes.data(), memory->data(), bytes.size(), &status);
    device_backend().synchronize(&launch, &status);
    check(status);
    const std::vector<uint8_t> before = image();
    const bool guards = std::memcmp(bytes.data(), before.data(), front) == 0 &&
                        std::memcmp(bytes.data() + front + size, before.data() + front + size, kGuard) == 0;
    if (!guards) fail(__FILE__, __LINE__, op + " wrote a guard byte around " + std::to_string(size) + " bytes");
    if (written) {
      std::memcpy(host, bytes.data() + front, size);
    } else if (bytes != before) {
      fail(__FILE__, __LINE__, op + " wrote an input of " + std::to_string(size) + " bytes");
    }
  }
};

// Collects the regions first, since two operands may share one, then puts the device's pointers into the struct.
class Stage {
 public:
  void tensor(Tensor& tensor, Access access) {
    place(tensor.data, static_cast<size_t>(count_of(tensor)) * dtype_size(tensor.dtype), access);
  }
  template <class T>
  void array(T*& pointer, int64_t count, Access access) {
    void* data = const_cast<void*>(static_cast<const void*>(pointer));
    place(data, static_cast<size_t>(count) * sizeof(T), access);
    pointer = static_cast<T*>(data);
  }
  template <class T>
  void memory(T*& pointer, int64_t count, Access access) {
    array(pointer, count, access);
  }
  void store(void*& pointer, int64_t size_bytes) { place(pointer, static_cast<size_t>(size_bytes), Access::write); }

  void upload() {
    for (auto& [host, region] : regions_) region.upload();
    replacing_ = true;
  }
  void download(const std::string& op) const {
    for (const auto& [host, region] : regions_) region.download(op);
  }

 private:
  void place(void*& data, size_t size, Access access) {
    if (data == nullptr || size == 0) return;
    if (replacing_) {
      const Region& region = regions_.at(data);
      data = region.memory->data() + region.front;
      return;
    }
    Region& region = regions_.try_emplace(data, Region{static_cast<uint8_t*>(data), 0, false, nullptr}).first->second;
    region.size = std::max(region.size, size);
    region.written = region.written || access == Access::write;
  }
  std::map<void*, Region> regions_;
  bool replacing_ = false;
};

// What a struct keeps outside itself, on the host.
template <class Struct>
struct Outside {
  void visit(Struct&, Stage&) {}
};
template <>
struct Outside<Attention> {
  AttentionPlan plan;
  void visit(Attention& p, Stage& stage) {
    plan = *p.plan;
    visit_plan(plan, p.qkv.rows(), stage);
  }
  void replace(Attention& p) { p.plan = &plan; }
};
template <>
struct Outside<GlobalNorm> {
  std::vector<const float*> grads;
  void visit(GlobalNorm& p, Stage& stage) {
    grads.assign(p.grads, p.grads + p.num_grads);
    for (int32_t i = 0; i < p.num_grads; ++i) stage.array(grads[static_cast<size_t>(i)], p.counts[i], Access::read);
  }
  void replace(GlobalNorm& p) { p.grads = grads.data(); }
};

template <class Struct>
void run(Op op, bool backward, Struct p) {
  const PluginKernel& kernel = device_backend().kernels[static_cast<int>(op)];
  PluginStatus status;
  Outside<Struct> outside;
  Stage stage;
  outside.visit(p, stage);
  visit_operands(p, stage);
  stage.upload();
  Struct staged = p;
  outside.visit(staged, stage);
  visit_operands(staged, stage);
  if constexpr (requires { outside.replace(staged); }) outside.replace(staged);

  PluginLaunch launch;
  launch.exactness = exactness;
  const uint64_t needed = last_workspace = kernel.workspace(&launch, &staged, backward, &status);
  if (!status.ok()) {
    refusal = status.message;
    return;
  }
  // Poisoned: a kernel that reads what it has not written shows.
  std::vector<uint8_t> poison(needed, 0xff);
  std::unique_ptr<Memory> workspace;
  if (needed > 0) {
    workspace = std::make_unique<Memory>(needed);
    device_backend().copy_to_device(&launch, workspace->data(), poison.data(), poison.size(), &status);
    launch.workspace = workspace->data();
    launch.workspace_bytes = needed;
  }
  (backward ? kernel.backward : kernel.forward)(&launch, &staged, &status);
  device_backend().synchronize(&launch, &status);
  check(status);
  stage.download(kernel.name);
}

}  // namespace

void shift_operands(size_t size_bytes) { shift = size_bytes; }

std::string device_refusal() {
  std::string text;
  text.swap(refusal);
  return text;
}

FastestMode::FastestMode(int processors) {
  exactness = Exactness::fastest;
  set_device_processors(processors);
}
FastestMode::~FastestMode() {
  exactness = Exactness::bitwise;
  set_device_processors(0);
}
uint64_t device_workspace() { return last_workspace; }

}  // namespace gavel::test

namespace gavel::device {

#define GAVEL_OP(name, Struct, backward)                                                    \
  void name##_forward(Context&, const Struct& p) { test::run<Struct>(Op::name, false, p); } \
  void name##_backward(Context&, const Struct& p) { test::run<Struct>(Op::name, true, p); }
GAVEL_OPS(GAVEL_OP)
#undef GAVEL_OP

}  // namespace gavel::device
