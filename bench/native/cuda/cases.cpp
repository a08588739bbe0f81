#include "bench/native/cuda/cases.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>

#include "bench/native/cuda/makers.h"

namespace gavel::bench {
namespace {

struct Workload {
  const char* name;
  Maker make;
  std::vector<int64_t> most;  // sizes that the emulation is given at most
};

const std::vector<Workload>& workloads() {
  static const std::vector<Workload> list = {
      {"linear", make_linear, {20, 72, 48}},
      {"head_logprob", make_head_logprob, {20, 600, 48, 1}},
      {"head_logits", make_head_logits, {20, 600, 48}},
      {"attention", make_attention, {70, 2, 9, 4, 2, 32}},
      {"attention_decode", make_attention_decode, {2, 2, 70, 9, 4, 2, 32}},
      {"attention_segments", make_attention_segments, {40, 16, 2, 2, 32}},
      {"rms_norm", make_rms_norm, {20, 96}},
      {"layer_norm", make_layer_norm, {20, 96}},
      {"head_norm", make_head_norm, {20, 4, 2, 32}},
      {"swiglu", make_swiglu, {20, 72}},
      {"gelu", make_gelu, {20, 72}},
      {"relu", make_relu, {20, 72}},
      {"rope_table", make_rope_table, {20, 32}},
      {"rope", make_rope, {20, 4, 2, 32}},
      {"embedding", make_embedding, {20, 600, 48}},
      {"patch_embedding", make_patch_embedding, {20, 72, 48}},
      {"gather_rows", make_gather_rows, {9, 20, 48}},
      {"row_mix", make_row_mix, {20, 12, 48, 4}},
      {"resize_heads", make_resize_heads, {20, 4, 72, 80}},
      {"dropout", make_dropout, {20, 48}},
      {"sample_token", make_sample_token, {3, 600, 50, 100}},
      {"adamw", make_adamw, {1000, 4, 1}},
      {"global_norm", make_global_norm, {64 * 5000}},
  };
  return list;
}

const Workload& workload_of(const Spec& spec) {
  return *std::find_if(workloads().begin(), workloads().end(),
                       [&](const Workload& one) { return spec.workload == one.name; });
}

// Hidden and intermediate sizes of a decoder's layer, and its heads.
struct Layer {
  int64_t h, f, q, k, d;
  int64_t qkv() const { return (q + 2 * k) * d; }
};
constexpr Layer kSmall{896, 4864, 14, 2, 64}, kMiddle{1536, 8960, 12, 2, 128}, kLarge{2048, 11008, 16, 2, 128};
constexpr int64_t kWords = 151936;
// A group of training: P 1500, G 8, C 512. Its targets are the completions' tokens.
constexpr int64_t kPrompt = 1500, kGroup = 8, kLength = 512, kRows = kPrompt + kGroup * kLength,
                  kTargets = kGroup * kLength;
// A picture of 896 x 1008 pixels as Qwen2.5-VL cuts it, and its tower.
constexpr int64_t kPatches = 4608, kTower = 1280;

class List {
 public:
  void both(const char* workload, DType dtype, std::vector<int64_t> sizes) {
    forward(workload, dtype, sizes);
    backward(workload, dtype, std::move(sizes));
  }
  void backward(const char* workload, DType dtype, std::vector<int64_t> sizes) {
    specs_.push_back({workload, dtype, std::move(sizes), true});
  }
  void forward(const char* workload, DType dtype, std::vector<int64_t> sizes) {
    specs_.push_back({workload, dtype, std::move(sizes), false});
  }
  std::vector<Spec> take() { return std::move(specs_); }

 private:
  std::vector<Spec> specs_;
};

void add_products(List& list) {
  constexpr DType b = DType::bf16, f = DType::f32;
  for (const Layer& one : {kSmall, kMiddle, kLarge}) {
    list.both("linear", b, {kRows, one.qkv(), one.h});
    list.both("linear", b, {kRows, one.h, one.q * one.d});
    list.both("linear", b, {kRows, 2 * one.f, one.h});
    list.both("linear", b, {kRows, one.h, one.f});
  }
  list.both("linear", b, {8192, 8192, 8192});
  list.both("linear", f, {2048, 4096, 2048});
  for (int64_t rows : {1, 8, 16, 32, 64, 256}) {
    list.forward("linear", b, {rows, kLarge.qkv(), kLarge.h});
    list.forward("linear", b, {rows, kLarge.h, kLarge.h});
    list.forward("linear", b, {rows, 2 * kLarge.f, kLarge.h});
    list.forward("linear", b, {rows, kLarge.h, kLarge.f});
  }
  for (int64_t rows : {1, 64}) {
    list.forward("linear", b, {rows, 2 * kSmall.f, kSmall.h});
    list.forward("linear", b, {rows, 2 * kMiddle.f, kMiddle.h});
    list.forward("linear", f, {rows, 2 * kSmall.f, kSmall.h});
  }
  for (const Layer& one : {kSmall, kMiddle, kLarge}) {
    list.both("head_logprob", b, {kTargets, kWords, one.h, 1});
    for (int64_t rows : {1, 64, 256}) list.forward("head_logits", b, {rows, kWords, one.h});
  }
  list.both("head_logprob", f, {1024, kWords, kSmall.h, 1});
  list.backward("head_logprob", b, {kTargets, kWords, kLarge.h, 0});
}

void add_attention(List& list) {
  constexpr DType b = DType::bf16, f = DType::f32;
  for (const Layer& one : {kSmall, kMiddle, kLarge}) {
    list.both("attention", b, {kPrompt, kGroup, kLength, one.q, one.k, one.d});
    list.both("attention", b, {4096, 0, 0, one.q, one.k, one.d});
    for (int64_t group : {8, 16})
      list.forward("attention_decode", b, {256 / group, group, kPrompt, 256, one.q, one.k, one.d});
  }
  for (int64_t prompts : {1, 8})
    list.forward("attention_decode", b, {prompts, 8, kPrompt, 256, kLarge.q, kLarge.k, kLarge.d});
  list.both("attention", f, {512, 4, 256, kSmall.q, kSmall.k, kSmall.d});
  for (int64_t window : {int64_t{64}, kPatches}) list.both("attention_segments", b, {kPatches, window, 16, 16, 80});
}

void add_rows(List& list) {
  constexpr DType b = DType::bf16, f = DType::f32;
  for (const Layer& one : {kSmall, kMiddle, kLarge}) {
    list.both("rms_norm", b, {kRows, one.h});
    list.both("swiglu", b, {kRows, one.f});
    list.both("rope", b, {kRows, one.q, one.k, one.d});
    list.both("embedding", b, {kRows, kWords, one.h});
  }
  list.both("rms_norm", f, {kRows, kLarge.h});
  list.both("swiglu", f, {kRows, kLarge.f});
  for (int64_t rows : {1, 64, 256}) {
    list.forward("rms_norm", b, {rows, kLarge.h});
    list.forward("swiglu", b, {rows, kLarge.f});
    list.forward("rope", b, {rows, kLarge.q, kLarge.k, kLarge.d});
    list.forward("embedding", b, {rows, kWords, kLarge.h});
  }
  list.forward("rope_table", f, {kRows, 128});
  list.both("head_norm", b, {kRows, 16, 8, 128});
  list.both("layer_norm", b, {kPatches, 1152});
  list.both("gelu", b, {kPatches / 4, 4 * kTower});
  list.both("relu", b, {kPatches, kTower});
  list.both("patch_embedding", b, {kPatches, kTower, 1176});
  list.both("resize_heads", b, {kPatches, 16, 72, 80});
  list.both("row_mix", b, {kPatches, 2304, 1152, 4});
  list.both("gather_rows", b, {kGroup, kRows, kLarge.h});
  list.both("dropout", b, {kRows, kLarge.h});
}

void add_step(List& list) {
  constexpr DType b = DType::bf16, f = DType::f32;
  constexpr int64_t kMany = 128 << 20;
  list.forward("adamw", f, {kMany, 4, 0});
  list.forward("adamw", b, {kMany, 4, 1});
  list.forward("adamw", b, {kMany, 2, 0});
  list.forward("adamw", b, {kMany, 1, 0});
  list.forward("global_norm", f, {kMany});
  for (int64_t rows : {1, 64, 256}) {
    list.forward("sample_token", f, {rows, kWords, 0, 100});
    list.forward("sample_token", f, {rows, kWords, 50, 90});
  }
}

}  // namespace

std::string words(const char* format, ...) {
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  return text;
}

std::vector<Spec> all_specs() {
  List list;
  add_products(list);
  add_attention(list);
  add_rows(list);
  add_step(list);
  return list.take();
}

Spec tiny(const Spec& spec) {
  Spec small = spec;
  const std::vector<int64_t>& most = workload_of(spec).most;
  for (size_t i = 0; i < small.sizes.size(); ++i) small.sizes[i] = std::min(small.sizes[i], most[i]);
  return small;
}

std::vector<std::string> workload_names() {
  std::vector<std::string> names;
  for (const Workload& one : workloads()) names.push_back(one.name);
  return names;
}

Case make_case(const Spec& spec, Operands& operands) {
  Case made;
  made.spec = spec;
  workload_of(spec).make(spec, operands, &made);
  return made;
}

uint64_t Case::workspace(const PluginBackend& backend, const PluginLaunch& launch, PluginStatus* status) const {
  return backend.kernels[static_cast<int>(op)].workspace(&launch, parameters, spec.backward, status);
}

void Case::run(const PluginBackend& backend, const PluginLaunch& launch, PluginStatus* status) const {
  const PluginKernel& kernel = backend.kernels[static_cast<int>(op)];
  (spec.backward ? kernel.backward : kernel.forward)(&launch, parameters, status);
}

}  // namespace gavel::bench
