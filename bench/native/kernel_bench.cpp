// One kernel as a measuring session: builds the operands of one case, says "ready", and for every line read from stdin
// runs the kernel for at least 0.15 s and answers with seconds per call. The driver interleaves such sessions with
// peers'.
//   kernel_bench THREADS auto|vector OP DTYPE SIZES...      operands are random, outputs start as NaN
// `vector` leaves AMX out. Sizes: linear M N K pass(0 forward, 1 backward) | attention P G C Q K D | head_logprob T V H
// calls(1, 2) | rms_norm T H | swiglu T F | adamw N [bytes of a moment (4, 2, 1), master (1, 0)] | sample_token B
// V top_p_percent | peak | read MiB
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "core/arena.h"
#include "cpu/gemm.h"
#include "cpu/kernels.h"
#include "cpu/vector_math.h"
#include "model/attention_plan.h"

namespace {

using namespace gavel;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

double now(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Uniform in [-1, 1) from a counter: the same operands in every run.
float noise(uint64_t index) {
  uint64_t z = (index + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return static_cast<float>(z >> 40) * 0x1p-23f - 1.0f;
}

struct Case {
  double flop = 0, bytes = 0;  // of one call: what the algorithm needs, not what a kernel recomputes
  std::string path;
  std::function<void()> body;
  std::vector<std::shared_ptr<void>> held;

  Tensor tensor(Shape shape, DType dtype, const std::function<float(int64_t)>& value, Layout layout = Layout::rows) {
    const int64_t count = layout == Layout::panels ? panel_count(shape[0], shape[1]) : shape.count();
    const size_t size = static_cast<size_t>(count) * dtype_size(dtype) + 128;
    void* data = allocate_pages(size);
    if (data == nullptr) std::exit(1);
    held.push_back(std::shared_ptr<void>(data, [size](void* memory) { free_pages(memory, size); }));
    Tensor made;
    made.data = data;
    made.shape = shape;
    made.dtype = dtype;
    made.layout = layout;
    for (int64_t i = 0; i < count; ++i) {
      if (dtype == DType::bf16) {
        made.bf16()[i] = float_to_bf16(value(i));
      } else {
        made.f32()[i] = value(i);
      }
    }
    return made;
  }
  Tensor random(Shape shape, DType dtype, float scale = 1.0f, Layout layout = Layout::rows) {
    const uint64_t seed = held.size() << 40;
    return tensor(
        shape, dtype, [=](int64_t i) { return scale * noise(seed + static_cast<uint64_t>(i)); }, layout);
  }
  Tensor poisoned(Shape shape, DType dtype) {
    return tensor(shape, dtype, [](int64_t) { return kNan; });
  }
  // Gradients, which are added to. Touched, so that a kernel's own memory is what grows after "ready".
  Tensor zeros(Shape shape, DType dtype = DType::f32) {
    return tensor(shape, dtype, [](int64_t) { return 0.0f; });
  }
  template <class Element>
  Element* array(std::vector<Element> values) {
    auto made = std::make_shared<std::vector<Element>>(std::move(values));
    held.push_back(made);
    return made->data();
  }
};

Case linear(Context& context, DType dtype, const std::vector<int64_t>& sizes) {
  const int64_t m = sizes.at(0), n = sizes.at(1), k = sizes.at(2);
  Case made;
  Linear p;
  p.x = made.random({m, k}, dtype);
  p.weight = made.random({n, k}, dtype, 1 / std::sqrt(static_cast<float>(k)), Layout::panels);
  p.out = made.poisoned({m, n}, dtype);
  const double flop = 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  made.bytes = static_cast<double>(static_cast<size_t>(n * k + m * k + m * n) * dtype_size(dtype));
  if (sizes.at(3) == 0) {
    made.flop = flop;
    made.body = [&context, p] { cpu::linear_forward(context, p); };
    return made;
  }
  p.grad_out = made.random({m, n}, dtype);
  p.grad_x = made.poisoned({m, k}, dtype);
  p.grad_weight = made.zeros({round_up(n, kPanel), round_up(k, 2)});
  made.flop = 2 * flop;
  made.body = [&context, p] { cpu::linear_backward(context, p); };
  return made;
}

Case attention(Context& context, DType dtype, const std::vector<int64_t>& sizes) {
  const int32_t prompt = static_cast<int32_t>(sizes.at(0)), group = static_cast<int32_t>(sizes.at(1)),
                length = static_cast<int32_t>(sizes.at(2)), rows = prompt + group * length;
  PlanBuilder builder(rows);
  std::vector<RowRange> completions;
  for (int32_t i = 0; i < group; ++i) completions.push_back({prompt + i * length, prompt + (i + 1) * length});
  builder.add_group({0, prompt}, completions);
  auto owned = std::make_shared<OwnedPlan>(std::move(builder).finish());
  auto plan = std::make_shared<AttentionPlan>(owned->view());
  Case made;
  Attention p;
  p.query_heads = static_cast<int32_t>(sizes.at(3));
  p.kv_heads = static_cast<int32_t>(sizes.at(4));
  p.head_dim = static_cast<int32_t>(sizes.at(5));
  p.scale = 1.0f / std::sqrt(static_cast<float>(p.head_dim));
  const int64_t width = int64_t{p.query_heads + 2 * p.kv_heads} * p.head_dim;
  const int64_t columns = int64_t{p.query_heads} * p.head_dim;
  p.qkv = made.random({rows, width}, dtype);
  p.out = made.poisoned({rows, columns}, dtype);
  p.lse = made.poisoned({rows, p.query_heads}, DType::f32);
  p.grad_out = made.random({rows, columns}, dtype);
  p.grad_qkv = made.poisoned({rows, width}, dtype);
  p.store.data = made.zeros({owned->store_elements(p.kv_heads, p.head_dim)}, dtype).data;
  p.plan = plan.get();
  double pairs = 0;
  for (int32_t keys : owned->row_keys) pairs += keys;
  made.flop = 14 * pairs * static_cast<double>(columns);
  made.bytes = static_cast<double>(rows * (2 * width + 2 * columns)) * static_cast<double>(dtype_size(dtype));
  made.held.push_back(owned);
  made.held.push_back(plan);
  made.body = [&context, p] {
    cpu::attention_forward(context, p);
    cpu::attention_backward(context, p);
  };
  return made;
}

struct ClippedObjective {
  const float *logprob, *advantage;
  float* coefficients;
  float old, share;
  static void fill(void* objective, int32_t begin, int32_t end) {
    const ClippedObjective& o = *static_cast<ClippedObjective*>(objective);
    for (int32_t i = begin; i < end; ++i) {
      const float ratio = std::exp(o.logprob[i] - o.old), a = o.advantage[i];
      const bool clipped = (a > 0 && ratio > 1.2f) || (a < 0 && ratio < 0.8f);
      o.coefficients[i] = clipped ? 0.0f : -ratio * a * o.share;
    }
  }
};

// Log-probs, the clipped GRPO gradient of each, and back through the head: what stands between hidden states and loss.
Case head_logprob(Context& context, DType dtype, const std::vector<int64_t>& sizes) {
  const int64_t t = sizes.at(0), v = sizes.at(1), h = sizes.at(2);
  const size_t count = static_cast<size_t>(t);
  Case made;
  HeadLogprob p;
  p.hidden = made.random({t, h}, dtype);
  p.weight = made.random({v, h}, dtype, 1 / std::sqrt(static_cast<float>(h)), Layout::panels);
  p.num_targets = static_cast<int32_t>(t);
  std::vector<int32_t> rows(count), tokens(count);
  std::vector<float> advantages(count);
  for (size_t i = 0; i < count; ++i) {
    rows[i] = static_cast<int32_t>(i);
    tokens[i] = static_cast<int32_t>(static_cast<int64_t>(i) * 7919 % v);
    advantages[i] = noise(i);
  }
  p.rows = made.array(std::move(rows));
  p.tokens = made.array(std::move(tokens));
  p.inverse_temperature = made.array(std::vector<float>(count, 1.0f));
  p.logprob = made.array(std::vector<float>(count, kNan));
  p.log_normalizer = made.array(std::vector<float>(count, kNan));
  float* coefficients = made.array(std::vector<float>(count, kNan));
  p.grad_logprob = coefficients;
  p.grad_hidden = made.poisoned({t, h}, dtype);
  p.grad_weight = made.zeros({round_up(v, kPanel), round_up(h, 2)});
  const float* advantage = made.array(std::move(advantages));
  made.flop = 6.0 * static_cast<double>(t) * static_cast<double>(v) * static_cast<double>(h);
  made.bytes = static_cast<double>(v * h) * static_cast<double>(dtype_size(dtype) + 4);
  auto objective = std::make_shared<ClippedObjective>(ClippedObjective{
      p.logprob, advantage, coefficients, -std::log(static_cast<float>(v)), 1 / static_cast<float>(t)});
  made.held.push_back(objective);
  if (sizes.at(3) == 1) {
    p.coefficients = {objective.get(), ClippedObjective::fill};
    made.body = [&context, p] { cpu::head_logprob_backward(context, p); };
    return made;
  }
  made.body = [&context, p, objective] {
    cpu::head_logprob_forward(context, p);
    ClippedObjective::fill(objective.get(), 0, p.num_targets);
    cpu::head_logprob_backward(context, p);
  };
  return made;
}

Case rms_norm(Context& context, DType dtype, const std::vector<int64_t>& sizes) {
  const int64_t t = sizes.at(0), h = sizes.at(1);
  Case made;
  RmsNorm p;
  p.x = made.random({t, h}, dtype);
  p.weight = made.random({h}, dtype);
  p.out = made.poisoned({t, h}, dtype);
  p.inverse_rms = made.poisoned({t}, DType::f32);
  p.grad_out = made.random({t, h}, dtype);
  p.grad_x = made.poisoned({t, h}, dtype);
  p.grad_weight = made.zeros({h});
  made.bytes = 5.0 * static_cast<double>(t * h) * static_cast<double>(dtype_size(dtype));
  made.body = [&context, p] {
    cpu::rms_norm_forward(context, p);
    cpu::rms_norm_backward(context, p);
  };
  return made;
}

Case swiglu(Context& context, DType dtype, const std::vector<int64_t>& sizes) {
  const int64_t t = sizes.at(0), f = sizes.at(1);
  Case made;
  Swiglu p;
  p.x = made.random({t, 2 * f}, dtype);
  p.out = made.poisoned({t, f}, dtype);
  p.grad_out = made.random({t, f}, dtype);
  p.grad_x = made.poisoned({t, 2 * f}, dtype);
  made.bytes = 8.0 * static_cast<double>(t * f) * static_cast<double>(dtype_size(dtype));
  made.body = [&context, p] {
    cpu::swiglu_forward(context, p);
    cpu::swiglu_backward(context, p);
  };
  return made;
}

Case adamw(Context& context, DType dtype, const std::vector<int64_t>& sizes) {
  const int64_t count = sizes.at(0), moment_bytes = sizes.size() > 1 ? sizes[1] : 4;
  const bool master = dtype == DType::bf16 && (sizes.size() < 3 || sizes[2] == 1);
  Case made;
  AdamW p;
  p.value = made.random({count}, dtype);
  if (master) p.master = made.random({count}, DType::f32);
  p.grad = made.random({count}, DType::f32).f32();
  p.moment1 = made.random({count}, DType::f32);
  p.moment2 = made.tensor({count}, DType::f32, [](int64_t i) { return std::abs(noise(static_cast<uint64_t>(i))); });
  if (moment_bytes < 4) {
    const DType narrow = moment_bytes == 2 ? DType::bf16 : DType::u8;
    for (Tensor* moment : {&p.moment1, &p.moment2}) {
      *moment = made.tensor({(count * moment_bytes + 3) / 4}, DType::f32, [](int64_t) { return 0.0f; });
      moment->dtype = narrow;
    }
    p.scales1 = made.random({state_blocks(count)}, DType::f32).f32();
    p.scales2 = made.random({state_blocks(count)}, DType::f32).f32();
  }
  p.count = count;
  p.learning_rate = 1e-6;
  p.step = 100;
  const int64_t value_bytes = dtype == DType::f32 ? 8 : master ? 10 : 4;
  made.bytes = static_cast<double>(count * (value_bytes + 4 + 4 * moment_bytes));
  made.body = [&context, p] { cpu::adamw_forward(context, p); };
  return made;
}

Case sample_token(Context& context, DType, const std::vector<int64_t>& sizes) {
  const int64_t b = sizes.at(0), v = sizes.at(1);
  const size_t rows = static_cast<size_t>(b);
  Case made;
  SampleToken p;
  p.num_rows = static_cast<int32_t>(b);
  p.vocabulary = static_cast<int32_t>(v);
  const Tensor logits = made.random({b, v}, DType::f32, 8.0f);
  std::vector<float> normalizers;
  for (int64_t row = 0; row < b; ++row) {
    double sum = 0;
    for (int64_t i = 0; i < v; ++i) sum += std::exp(static_cast<double>(logits.f32()[row * v + i]));
    normalizers.push_back(static_cast<float>(std::log(sum)));
  }
  p.logits = logits.f32();
  p.log_normalizer = made.array(std::move(normalizers));
  std::vector<SampleOptions> options(rows);
  for (size_t row = 0; row < rows; ++row) {
    options[row].key.item = row;
    options[row].top_p = static_cast<float>(sizes.at(2)) / 100.0f;
  }
  p.options = made.array(std::move(options));
  p.tokens = made.array(std::vector<int32_t>(rows, -1));
  p.logprob = made.array(std::vector<float>(rows, kNan));
  p.log_kept_mass = made.array(std::vector<float>(rows, kNan));
  made.bytes = 4.0 * static_cast<double>(b * v);
  made.body = [&context, p] { cpu::sample_token_forward(context, p); };
  return made;
}

#if defined(__x86_64__)
// Sixteen independent chains in registers; written out, because a compiler may keep an array of them in memory.
#define GAVEL_CHAINS(OP)                                                                                           \
  OP "0\n" OP "1\n" OP "2\n" OP "3\n" OP "4\n" OP "5\n" OP "6\n" OP "7\n" OP "8\n" OP "9\n" OP "10\n" OP "11\n" OP \
     "12\n" OP "13\n" OP "14\n" OP "15\n"
#define GAVEL_SPIN(OP)                                                                                             \
  asm volatile("1:\n" GAVEL_CHAINS(OP) "dec %0\njnz 1b"                                                            \
               : "+r"(count)                                                                                       \
               :                                                                                                   \
               : "zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9", "zmm10", "zmm11", \
                 "zmm12", "zmm13", "zmm14", "zmm15", "zmm31", "cc")

GAVEL_TARGET_AVX512 __attribute__((noinline)) void spin_bf16(int64_t count) {
  GAVEL_SPIN("vdpbf16ps %%zmm31, %%zmm31, %%zmm");
}
GAVEL_TARGET_AVX512 __attribute__((noinline)) void spin_f32(int64_t count) {
  GAVEL_SPIN("vfmadd231ps %%zmm31, %%zmm31, %%zmm");
}
__attribute__((noinline, target("avx512f,amx-tile,amx-bf16"))) void spin_amx(int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
}
// Four streams at once: one alone does not keep enough lines in flight to reach what memory can give.
GAVEL_TARGET_AVX512 __attribute__((noinline)) float sum_lines(const float* data, int64_t count) {
  const int64_t stream = count / 4;
  __m512 sums[8];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  for (int64_t i = 0; i + 32 <= stream; i += 32) {
    for (int lane = 0; lane < 8; ++lane) {
      sums[lane] = _mm512_add_ps(sums[lane], _mm512_loadu_ps(data + lane / 2 * stream + i + lane % 2 * 16));
    }
  }
  for (int lane = 1; lane < 8; ++lane) sums[0] = _mm512_add_ps(sums[0], sums[lane]);
  return _mm512_reduce_add_ps(sums[0]);
}

// Bare instructions of the path that products of this dtype take.
void spin(const cpu::GemmPath& path) {
  constexpr int64_t kCount = 100000, kTiles = 20000;
  if (path.amx) {
    const cpu::TileScope scope(path, 16);
    return spin_amx(kTiles);
  }
  path.dtype == DType::bf16 ? spin_bf16(kCount) : spin_f32(kCount);
}
double spin_flop(const cpu::GemmPath& path) {
  return path.amx ? 20000.0 * 4 * 2 * 16 * 16 * 32 : 100000.0 * 16 * (path.dtype == DType::bf16 ? 64 : 32);
}
#else
void spin(const cpu::GemmPath&) {}
double spin_flop(const cpu::GemmPath&) { return 0; }
float sum_lines(const float* data, int64_t count) {
  float sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += data[i];
  return sum;
}
#endif

Case peak(Context& context, DType dtype, const std::vector<int64_t>&) {
  const cpu::GemmPath path(context, dtype);
  Case made;
  if (context.isa != Isa::avx512_bf16) return made;
  made.flop = spin_flop(path) * context.pool->threads();
  made.body = [&context, path] {
    context.pool->parallel_for(context.pool->threads(), [&](int64_t, int) { spin(path); });
  };
  return made;
}

Case read(Context& context, DType, const std::vector<int64_t>& sizes) {
  const int64_t count = sizes.at(0) << 18;
  Case made;
  const Tensor data = made.tensor({count}, DType::f32, [](int64_t i) { return static_cast<float>(i & 255); });
  float* sums = made.array(std::vector<float>(4096, 0.0f));
  made.bytes = 4.0 * static_cast<double>(count);
  made.body = [&context, data, sums, count] {
    const int64_t pieces = 64;
    context.pool->parallel_for(pieces, [&](int64_t piece, int) {
      sums[piece * 16] = sum_lines(data.f32() + piece * (count / pieces), count / pieces);
    });
  };
  return made;
}

struct Named {
  const char* name;
  Case (*make)(Context&, DType, const std::vector<int64_t>&);
};
constexpr Named kCases[] = {
    {"linear", linear}, {"attention", attention}, {"head_logprob", head_logprob}, {"rms_norm", rms_norm},
    {"swiglu", swiglu}, {"adamw", adamw},         {"sample_token", sample_token}, {"peak", peak},
    {"read", read}};

// Of this program alone: what getrusage says starts at what the parent held when it forked.
double peak_memory_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmHWM:", 0) == 0) return std::atof(line.c_str() + 6) * 1024;
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    std::fprintf(stderr, "Expected THREADS auto|vector OP DTYPE SIZES.\n");
    return 2;
  }
  ThreadPool pool(std::atoi(argv[1]));
  Scratch scratch;
  Context context{&pool, &scratch, detect_isa(), std::strcmp(argv[2], "auto") == 0 && detect_amx()};
  const FlushDenormals flush;
  const DType dtype = std::strcmp(argv[4], "bf16") == 0 ? DType::bf16 : DType::f32;
  std::vector<int64_t> sizes;
  for (int i = 5; i < argc; ++i) sizes.push_back(std::atoll(argv[i]));
  Case made;
  for (const Named& named : kCases) {
    if (std::strcmp(named.name, argv[3]) == 0) made = named.make(context, dtype, sizes);
  }
  if (!made.body) {
    std::fprintf(stderr, "Expected an op with a case here but received %s.\n", argv[3]);
    return 2;
  }
  const bool tiles = cpu::GemmPath(context, dtype).amx;
  std::printf("{\"ready\":true,\"flop\":%.17g,\"bytes\":%.17g,\"path\":\"%s\",\"memoryBytes\":%.0f}\n", made.flop,
              made.bytes, tiles ? "amx" : isa_name(context.isa), peak_memory_bytes());
  std::fflush(stdout);
  for (int c = std::getchar(); c != EOF; c = std::getchar()) {
    if (c != '\n') continue;
    const double wall = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    int calls = 0;
    do {
      made.body();
      ++calls;
    } while (now(CLOCK_MONOTONIC) - wall < 0.15);
    std::printf("{\"wall\":%.9g,\"cpu\":%.9g,\"calls\":%d,\"memoryBytes\":%.0f}\n",
                (now(CLOCK_MONOTONIC) - wall) / calls, (now(CLOCK_PROCESS_CPUTIME_ID) - cpu) / calls, calls,
                peak_memory_bytes());
    std::fflush(stdout);
  }
  return 0;
}
