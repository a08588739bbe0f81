// The registry's ops on context.device: tensors lie there already, lists that the host made are copied there before the
// kernel and those that it writes are copied back after it (ops/operands.h says which is which). A list that lies there
// stays as it is. In a recorded pass lists travel with all others, and what is written must lie there.
#include <type_traits>
#include <vector>

#include "core/device.h"
#include "ops/operands.h"
#include "ops/registry.h"

namespace gavel {
namespace {

// Finds the arrays of a struct, gives each a place in the device's staging memory, and moves them.
class Arrays {
 public:
  explicit Arrays(Device& device) : device_(device) {}

  void tensor(Tensor&, Access) {}
  template <class T>
  void memory(T*&, int64_t, Access) {}
  void store(void*&, int64_t) {}
  template <class T>
  void array(T*& pointer, int64_t count, Access access) {
    if (pointer == nullptr || count == 0 || device_.holds(pointer)) return;
    if (device_.recording()) return place(pointer, static_cast<uint64_t>(count) * sizeof(T), access);
    if (base_ != nullptr) {
      pointer = reinterpret_cast<T*>(base_ + items_[next_++].offset);
      return;
    }
    const uint64_t size = static_cast<uint64_t>(count) * sizeof(T);
    items_.push_back({const_cast<void*>(static_cast<const void*>(pointer)), size, used_, access});
    used_ = (used_ + size + 255) / 256 * 256;
  }

  void measure() { device_.staging(used_); }
  // From here on a second visit of the same struct puts the device's pointers in.
  void upload() {
    base_ = used_ > 0 ? device_.staging(used_) : nullptr;
    if (base_ == nullptr) return;
    for (const Item& item : items_) device_.upload(base_ + item.offset, item.host, item.size);
  }
  void download() {
    std::vector<Device::Transfer> transfers;
    for (const Item& item : items_) {
      if (item.access == Access::write) transfers.push_back({item.host, base_ + item.offset, item.size});
    }
    if (!transfers.empty()) device_.download(transfers);
  }

 private:
  struct Item {
    void* host;
    uint64_t size, offset;
    Access access;
  };
  template <class T>
  void place(T*& pointer, uint64_t size, Access access) {
    if (access == Access::write && !device_.measuring())
      device_.failure().set(Code::internal, "Expected what a recorded pass writes to lie on the device.");
    void* const there = device_.list(pointer, size);
    if (there != nullptr) pointer = static_cast<T*>(there);
  }

  Device& device_;
  std::vector<Item> items_;
  uint64_t used_ = 0;
  uint8_t* base_ = nullptr;
  size_t next_ = 0;
};

// A struct as it is given to a kernel, and as the bytes of a recorded call. The attention plan stays a struct of the
// host; its lists go with the arrays.
template <class Struct>
struct Call {
  Struct p;
  void visit(Arrays& arrays) { visit_operands(p, arrays); }
  void attach() {}
  static constexpr void (*kAttach)(void*) = nullptr;
};
template <>
struct Call<Attention> {
  Attention p;
  AttentionPlan plan;
  void visit(Arrays& arrays) {
    plan = *p.plan;
    visit_plan(plan, p.qkv.rows(), arrays);
    visit_operands(p, arrays);
  }
  void attach() { p.plan = &plan; }
  static void attach_copy(void* copy) { static_cast<Call*>(copy)->attach(); }
  static constexpr void (*kAttach)(void*) = attach_copy;
};

// Gaps between fields hold anything: blank, equal calls are equal bytes.
template <class T>
void blank_gaps([[maybe_unused]] T& value) {
#if defined(__has_builtin)
#if __has_builtin(__builtin_clear_padding)
  __builtin_clear_padding(&value);
#endif
#endif
}

template <class Struct>
void run(Context& context, Op op, bool backward, Struct p) {
  Device& device = *context.device;
  if (!device.ok()) return;
  if constexpr (std::is_same_v<Struct, HeadLogprob>) {
    // The objective is the host's: forward, its coefficients for all targets, then the backward alone.
    if (backward && p.coefficients.fill != nullptr) {
      const HeadCoefficients coefficients = p.coefficients;
      p.coefficients = {};
      run(context, op, false, p);
      if (device.ok() && p.num_targets > 0 && !device.measuring())
        coefficients.fill(coefficients.objective, 0, p.num_targets);
      return run(context, op, true, p);
    }
  }
  const PluginKernel& kernel = device.backend().kernels[static_cast<int>(op)];
  const auto function = backward ? kernel.backward : kernel.forward;
  Arrays arrays(device);
  Call<Struct> call;
  call.p = p;
  call.visit(arrays);
  if (device.measuring()) {
    arrays.measure();
    device.launch(device.workspace_of(kernel, &call, backward));
    return;
  }
  if (device.recording()) {
    call.attach();
    device.launch(device.workspace_of(kernel, &call, backward));
    if constexpr (std::is_same_v<Struct, Attention>) call.p.plan = nullptr;
    blank_gaps(call);
    if (device.ok()) device.record_kernel(function, &call, sizeof(call), Call<Struct>::kAttach);
    return;
  }
  arrays.upload();
  if (!device.ok()) return;
  call.visit(arrays);
  call.attach();
  const PluginLaunch& launch = device.launch(device.workspace_of(kernel, &call, backward));
  if (!device.ok()) return;
  function(&launch, &call, &device.failure());
  arrays.download();
}

#define GAVEL_BACKWARD_true(name, Struct) \
  [](Context& context, const void* p) { run<Struct>(context, Op::name, true, *static_cast<const Struct*>(p)); }
#define GAVEL_BACKWARD_false(name, Struct) nullptr

const OpTable kTable = {"cuda",
                        {
#define GAVEL_OP(name, Struct, backward)                                                                           \
  {#name,                                                                                                          \
   [](Context& context, const void* p) { run<Struct>(context, Op::name, false, *static_cast<const Struct*>(p)); }, \
   GAVEL_BACKWARD_##backward(name, Struct)},
                            GAVEL_OPS(GAVEL_OP)
#undef GAVEL_OP
                        }};

}  // namespace

const OpTable& device_ops() { return kTable; }

}  // namespace gavel
