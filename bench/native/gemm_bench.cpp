// Speed of the products: GFLOP/s and per cent of the peak of bare instructions, measured next to every figure because a
// shared machine's clock moves. Usage: gemm_bench [threads] [substring of a line]. Random data; best of repeated calls.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "core/arena.h"
#include "core/philox.h"
#include "cpu/kernels.h"
#include "cpu/vector_math.h"

namespace {

using namespace gavel;

double seconds(const std::function<void()>& body) {
  const auto begin = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

#if defined(__x86_64__)
template <DType kDtype>
GAVEL_TARGET_AVX512 __attribute__((noinline)) void spin(int64_t count) {
  __m512 acc[16];
  for (__m512& one : acc) one = _mm512_setzero_ps();
  const __m512i value = _mm512_set1_epi32(0x3f803f80);
  for (int64_t i = 0; i < count; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < 16; ++j) {
      if constexpr (kDtype == DType::bf16) {
        asm volatile("vdpbf16ps %1, %1, %0" : "+v"(acc[j]) : "v"(value));
      } else {
        asm volatile("vfmadd231ps %1, %1, %0" : "+v"(acc[j]) : "v"(value));
      }
    }
  }
}

// GFLOP/s of all threads together.
double probe(Context& context, DType dtype) {
  constexpr int64_t kCount = 200000;
  const int threads = context.pool->threads();
  const double time = seconds([&] {
    context.pool->parallel_for(threads, [&](int64_t, int) {
      dtype == DType::bf16 ? spin<DType::bf16>(kCount) : spin<DType::f32>(kCount);
    });
  });
  return threads * double{kCount} * 16 * (dtype == DType::bf16 ? 64 : 32) / time * 1e-9;
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

void report(Context& context, DType dtype, const std::string& name, double flop, double bytes,
            const std::function<void()>& body) {
  if (name.find(filter) == std::string::npos) return;
  body();
  double best = 1e30, peak = 0, spent = 0;
  for (int i = 0; i < 400 && (i < 3 || spent < 0.8); ++i) {
    const double time = seconds(body);
    best = std::min(best, time);
    spent += time;
    if (i % 8 == 0) peak = std::max(peak, probe(context, dtype));
  }
  std::printf("%-44s %10.1f us %8.1f GFLOP/s %5.1f %% of %6.1f %7.1f GB/s\n", name.c_str(), best * 1e6, flop / best * 1e-9,
              peak > 0 ? flop / best * 1e-7 / peak : 0.0, peak, bytes / best * 1e-9);
  std::fflush(stdout);
}

void bench_linear(Context& context, DType dtype, int64_t m, int64_t n, int64_t k) {
  const std::string shape = std::to_string(m) + "," + std::to_string(n) + "," + std::to_string(k) +
                            (dtype == DType::bf16 ? " bf16" : " f32");
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
  const int64_t bytes = panel_count(n, k) * static_cast<int64_t>(dtype_size(dtype));
  const int64_t copies = (int64_t{600} << 20) / bytes + 1;
  const Buffer x({m, k}, dtype), weights({n * copies, k}, dtype, Layout::panels), out({m, n}, dtype);
  int64_t turn = 0;
  report(context, dtype,
         "streamed " + std::to_string(m) + "," + std::to_string(n) + "," + std::to_string(k) +
             (dtype == DType::bf16 ? " bf16" : " f32"),
         2.0 * static_cast<double>(m * n) * static_cast<double>(k), static_cast<double>(bytes), [&] {
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
  if (("head " + shape).find(filter) == std::string::npos && std::strstr(filter, "head") == nullptr) return;
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
  report(context, dtype, "head backward frozen " + shape, 2 * flop, bytes, [&] { cpu::head_logprob_backward(context, p); });
  p.grad_weight = grad_weight.tensor;
  report(context, dtype, "head backward " + shape, 3 * flop, bytes, [&] { cpu::head_logprob_backward(context, p); });
}

}  // namespace

int main(int argc, char** argv) {
  ThreadPool pool(argc > 1 ? std::atoi(argv[1]) : 1);
  filter = argc > 2 ? argv[2] : "";
  Scratch scratch;
  Context context{&pool, &scratch, detect_isa()};
  std::printf("%s, %d threads\n", isa_name(context.isa), pool.threads());
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
