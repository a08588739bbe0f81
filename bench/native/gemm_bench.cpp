// Speed of the products: GFLOP/s and per cent of the peak of bare instructions, measured next to every figure because a
// shared machine's clock moves. GAVEL_ISA=avx512-bf16 leaves AMX out. Usage: gemm_bench [threads] [substring of a
// line]. Random data; best of repeated calls.
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#include "core/arena.h"
#include "core/philox.h"
#include "cpu/gemm.h"
#include "cpu/kernels.h"
#include "cpu/vector_math.h"

namespace {

using namespace gavel;

double now(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// One thread is timed by its own processor time, which other processes on the machine do not lengthen.
clockid_t clock_of_run = CLOCK_MONOTONIC;

double seconds(const std::function<void()>& body) {
  const double begin = now(clock_of_run);
  body();
  return now(clock_of_run) - begin;
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

// GFLOP/s of all threads together.
double probe(Context& context, DType dtype) {
  constexpr int64_t kCount = 100000, kTiles = 20000;
  const int threads = context.pool->threads();
  const cpu::GemmPath path(context, dtype);
  const double time = seconds([&] {
    context.pool->parallel_for(threads, [&](int64_t, int) {
      if (!path.amx) return dtype == DType::bf16 ? spin_bf16(kCount) : spin_f32(kCount);
      const cpu::TileScope scope(path, 16);
      spin_amx(kTiles);
    });
  });
  const double flop =
      path.amx ? double{kTiles} * 4 * 2 * 16 * 16 * 32 : double{kCount} * 16 * (dtype == DType::bf16 ? 64 : 32);
  return threads * flop / time * 1e-9;
}
#else
double probe(Context&, DType) { return 0; }
#endif

struct Buffer {
  Tensor tensor;
  size_t size;
  Buffer(Shape shape, DType dtype, Layout layout = Layout::rows) {
    const int64_t count = layout == Layout::panels ? panel_count(shape[0], shape[1]) : shape.count();
    size = static_cast<size_t>(count) * dtype_size(dtype);
    tensor.data = allocate_pages(size);
    if (tensor.data == nullptr) std::exit(1);
    tensor.shape = shape;
    tensor.dtype = dtype;
    tensor.layout = layout;
    for (int64_t i = 0; i < count; ++i) {
      const float value = random_uniform({1, static_cast<uint64_t>(i), 0, 0}) - 0.5f;
      if (dtype == DType::bf16) {
        tensor.bf16()[i] = float_to_bf16(value);
      } else {
        tensor.f32()[i] = value;
      }
    }
  }
  ~Buffer() { free_pages(tensor.data, size); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
};

const char* filter = "";

bool wanted(const std::string& name) { return name.find(filter) != std::string::npos; }

void report(Context& context, DType dtype, const std::string& name, double flop, double bytes,
            const std::function<void()>& body) {
  if (!wanted(name)) return;
  body();
  double best = 1e30, peak = 0, spent = 0;
  for (int i = 0; i < 400 && (i < 3 || spent < 0.4); ++i) {
    const double time = seconds(body);
    best = std::min(best, time);
    spent += time;
    if (i % 8 == 0) peak = std::max(peak, probe(context, dtype));
  }
  std::printf("%-44s %10.1f us %8.1f GFLOP/s %5.1f %% of %6.1f %7.1f GB/s\n", name.c_str(), best * 1e6,
              flop / best * 1e-9, peak > 0 ? flop / best * 1e-7 / peak : 0.0, peak, bytes / best * 1e-9);
  std::fflush(stdout);
}

void bench_linear(Context& context, DType dtype, int64_t m, int64_t n, int64_t k) {
  const std::string shape =
      std::to_string(m) + "," + std::to_string(n) + "," + std::to_string(k) + (dtype == DType::bf16 ? " bf16" : " f32");
  if (!wanted("forward " + shape) && !wanted("grad_x " + shape) && !wanted("grad_weight " + shape)) return;
  const Buffer x({m, k}, dtype), weight({n, k}, dtype, Layout::panels), out({m, n}, dtype);
  const double flop = 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  const double bytes = static_cast<double>(weight.size);
  Linear p;
  p.x = x.tensor;
  p.weight = weight.tensor;
  p.out = out.tensor;
  report(context, dtype, "forward " + shape, flop, bytes, [&] { cpu::linear_forward(context, p); });
  if (m < 64) return;
  const Buffer grad_x({m, k}, dtype), grad_weight({round_up(n, 32), round_up(k, 2)}, DType::f32);
  Linear dx = p, dw = p;
  dx.grad_out = dw.grad_out = out.tensor;
  dx.grad_x = grad_x.tensor;
  dw.grad_weight = grad_weight.tensor;
  report(context, dtype, "grad_x " + shape, flop, bytes, [&] { cpu::linear_backward(context, dx); });
  report(context, dtype, "grad_weight " + shape, flop, bytes, [&] { cpu::linear_backward(context, dw); });
}

// Rotates over copies of the weight larger together than any cache.
void bench_streamed(Context& context, DType dtype, int64_t m, int64_t n, int64_t k) {
  const std::string name = "streamed " + std::to_string(m) + "," + std::to_string(n) + "," + std::to_string(k) +
                           (dtype == DType::bf16 ? " bf16" : " f32");
  if (!wanted(name)) return;
  const int64_t bytes = panel_count(n, k) * static_cast<int64_t>(dtype_size(dtype));
  const int64_t copies = (int64_t{600} << 20) / bytes + 1;
  const Buffer x({m, k}, dtype), weights({n * copies, k}, dtype, Layout::panels), out({m, n}, dtype);
  int64_t turn = 0;
  report(context, dtype, name, 2.0 * static_cast<double>(m * n) * static_cast<double>(k), static_cast<double>(bytes),
         [&] {
           Linear p;
           p.x = x.tensor;
           p.weight = weights.tensor;
           p.weight.shape = {n, k};
           p.weight.data = static_cast<uint8_t*>(weights.tensor.data) + turn * bytes;
           p.out = out.tensor;
           cpu::linear_forward(context, p);
           turn = (turn + 1) % copies;
         });
}

void bench_head(Context& context, DType dtype, int64_t targets, int64_t vocabulary, int64_t hidden) {
  const std::string shape = std::to_string(targets) + "," + std::to_string(vocabulary) + "," + std::to_string(hidden) +
                            (dtype == DType::bf16 ? " bf16" : " f32");
  if (!wanted("head forward " + shape) && !wanted("head backward frozen " + shape) && !wanted("head backward " + shape))
    return;
  const Buffer x({targets, hidden}, dtype), weight({vocabulary, hidden}, dtype, Layout::panels);
  const Buffer grad_hidden({targets, hidden}, dtype), grad_weight({round_up(vocabulary, 32), hidden}, DType::f32);
  std::vector<int32_t> rows, tokens;
  for (int64_t i = 0; i < targets; ++i) {
    rows.push_back(static_cast<int32_t>(i));
    tokens.push_back(static_cast<int32_t>(i * 7919 % vocabulary));
  }
  std::vector<float> one(rows.size(), 1.0f), logprob(rows.size()), log_normalizer(rows.size());
  HeadLogprob p;
  p.hidden = x.tensor;
  p.weight = weight.tensor;
  p.num_targets = static_cast<int32_t>(targets);
  p.rows = rows.data();
  p.tokens = tokens.data();
  p.inverse_temperature = one.data();
  p.logprob = logprob.data();
  p.log_normalizer = log_normalizer.data();
  p.grad_logprob = one.data();
  const double flop = 2.0 * static_cast<double>(targets * vocabulary) * static_cast<double>(hidden);
  const double bytes = static_cast<double>(weight.size);
  report(context, dtype, "head forward " + shape, flop, bytes, [&] { cpu::head_logprob_forward(context, p); });
  if (targets < 64) return;
  p.grad_hidden = grad_hidden.tensor;
  report(context, dtype, "head backward frozen " + shape, 2 * flop, bytes,
         [&] { cpu::head_logprob_backward(context, p); });
  p.grad_weight = grad_weight.tensor;
  report(context, dtype, "head backward " + shape, 3 * flop, bytes, [&] { cpu::head_logprob_backward(context, p); });
}

}  // namespace

int main(int argc, char** argv) {
  ThreadPool pool(argc > 1 ? std::atoi(argv[1]) : 1);
  if (pool.threads() == 1) clock_of_run = CLOCK_THREAD_CPUTIME_ID;
  filter = argc > 2 ? argv[2] : "";
  Scratch scratch;
  Context context{&pool, &scratch, detect_isa(), detect_amx()};
  std::printf("%s%s, %d threads\n", isa_name(context.isa), context.amx ? " and AMX" : "", pool.threads());
  for (DType dtype : {DType::bf16, DType::f32}) {
    bench_linear(context, dtype, 256, 576, 576);
    bench_linear(context, dtype, 1024, 1536, 576);
    bench_linear(context, dtype, 1024, 576, 1536);
    bench_linear(context, dtype, 2048, 2048, 2048);
    bench_linear(context, dtype, 64, 896, 4864);
    bench_linear(context, dtype, 8, 2048, 2048);
    bench_linear(context, dtype, 1, 576, 576);
    bench_linear(context, dtype, 1, 4096, 4096);
    bench_streamed(context, dtype, 1, 4096, 4096);
    bench_streamed(context, dtype, 8, 2048, 2048);
    bench_head(context, dtype, 512, 49152, 576);
    bench_head(context, dtype, 8, 49152, 576);
  }
  return 0;
}
