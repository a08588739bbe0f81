// Attention on one machine: GFLOP/s of the forward and backward of packed groups, and the time a decoding row spends on
// one block of 64 keys. Useful FLOP only: pairs the mask keeps, 4 D a pair forward and 10 D backward. Prints the fp32
// FMA and vdpbf16ps rates of the same run, because a share of peak means nothing without them.
//   attention_bench [threads = 1] [repeats = 7] [auto|vector (no AMX)] [part of a name] [f32|bf16]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/vector_math.h"
#include "model/attention_plan.h"

namespace {

using namespace gavel;

// One thread: its CPU time, so that a busy neighbour does not count. Several: wall time.
double now(int threads) {
  timespec time;
  clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double median(int threads, int repeats, const std::function<void()>& body) {
  body();
  std::vector<double> times;
  for (int i = 0; i < repeats; ++i) {
    const double start = now(threads);
    body();
    times.push_back(now(threads) - start);
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

float noise(uint64_t index) {
  uint64_t z = (index + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return static_cast<float>(z >> 40) * 0x1p-23f - 1.0f;
}

struct Memory {
  std::vector<uint8_t> bytes;
  Tensor tensor;
  Memory(Shape shape, DType dtype) : bytes(static_cast<size_t>(shape.count()) * dtype_size(dtype) + 64) {
    const auto address = reinterpret_cast<uintptr_t>(bytes.data());
    tensor.data = reinterpret_cast<void*>((address + 63) / 64 * 64);
    tensor.shape = shape;
    tensor.dtype = dtype;
    for (int64_t i = 0; i < shape.count(); ++i) {
      if (dtype == DType::f32) tensor.f32()[i] = noise(static_cast<uint64_t>(i));
      if (dtype == DType::bf16) tensor.bf16()[i] = float_to_bf16(noise(static_cast<uint64_t>(i)));
    }
  }
};

struct Setup {
  OwnedPlan owned;
  AttentionPlan plan;
  Memory store, qkv, out, lse, grad_out, grad_qkv;
  Attention p;
  Setup(OwnedPlan plan_in, int64_t blocks, int32_t query_heads, int32_t kv_heads, int32_t head_dim, DType dtype)
      : owned(std::move(plan_in)),
        plan(owned.view()),
        store({blocks * kv_heads * 2, kKeyBlock * head_dim}, dtype),
        qkv({rows(), (query_heads + 2 * kv_heads) * head_dim}, dtype),
        out({rows(), query_heads * head_dim}, dtype),
        lse({rows(), query_heads}, DType::f32),
        grad_out({rows(), query_heads * head_dim}, dtype),
        grad_qkv({rows(), (query_heads + 2 * kv_heads) * head_dim}, dtype) {
    p.out = out.tensor;
    p.lse = lse.tensor;
    p.qkv = qkv.tensor;
    p.grad_out = grad_out.tensor;
    p.grad_qkv = grad_qkv.tensor;
    p.store.data = store.tensor.data;
    p.plan = &plan;
    p.query_heads = query_heads;
    p.kv_heads = kv_heads;
    p.head_dim = head_dim;
    p.scale = 0.125f;
  }
  int64_t rows() const { return static_cast<int64_t>(owned.row_keys.size()); }
  double pairs() const {
    double total = 0;
    for (int32_t keys : owned.row_keys) total += keys;
    return total * p.query_heads;
  }
};

const char* name_of(DType dtype) { return dtype == DType::f32 ? "f32 " : "bf16"; }

#if defined(__x86_64__)
template <bool kBf16>
GAVEL_TARGET_AVX512 void probe(int64_t count) {
  __m512 sums[24];
  const __m512 half = _mm512_set1_ps(0.5f);
#pragma GCC unroll 24
  for (int i = 0; i < 24; ++i) sums[i] = half;
  for (int64_t n = 0; n < count; ++n) {
#pragma GCC unroll 24
    for (int i = 0; i < 24; ++i) {
      sums[i] = kBf16 ? _mm512_dpbf16_ps(sums[i], reinterpret_cast<__m512bh>(half), reinterpret_cast<__m512bh>(half))
                      : _mm512_fmadd_ps(sums[i], half, half);
    }
#pragma GCC unroll 24
    for (int i = 0; i < 24; ++i) asm volatile("" : "+v"(sums[i]));
  }
}

void print_peak(const ThreadPool& pool) {
  for (const bool bf16 : {false, true}) {
    constexpr int64_t kCount = 2000000;
    const double time = median(pool.threads(), 5, [&] {
      pool.parallel_for(pool.threads(), [&](int64_t, int) { (bf16 ? probe<true> : probe<false>)(kCount); });
    });
    std::printf("probe %s: %.0f GFLOP/s\n", bf16 ? "vdpbf16ps" : "fp32 FMA ",
                24.0 * kCount * (bf16 ? 64 : 32) * pool.threads() / time * 1e-9);
  }
}
#endif

OwnedPlan group_plan(int32_t prompt, int32_t completions, int32_t length, int32_t groups) {
  PlanBuilder builder(groups * (prompt + completions * length));
  int32_t row = 0;
  for (int32_t g = 0; g < groups; ++g) {
    const RowRange first{row, row + prompt};
    row += prompt;
    std::vector<RowRange> rows;
    for (int32_t i = 0; i < completions; ++i, row += length) rows.push_back({row, row + length});
    builder.add_group(first, rows);
  }
  return std::move(builder).finish();
}

OwnedPlan decode_plan(int32_t groups, int32_t group_size, int32_t shared_blocks, int32_t own_keys) {
  PlanBuilder builder(groups * group_size);
  int32_t next = 0;
  const auto pages = [&](int32_t count) {
    std::vector<int32_t> ids;
    while (count-- > 0) ids.push_back(next++);
    return ids;
  };
  for (int32_t g = 0; g < groups; ++g) {
    const std::vector<int32_t> shared = pages(shared_blocks);
    std::vector<std::vector<int32_t>> own;
    std::vector<DecodeRow> rows;
    for (int32_t i = 0; i < group_size; ++i) own.push_back(pages((own_keys + kKeyBlock - 1) / kKeyBlock));
    for (const std::vector<int32_t>& blocks : own) rows.push_back({blocks, shared_blocks * kKeyBlock + own_keys});
    builder.add_decode_rows(g * group_size, shared, rows);
  }
  return std::move(builder).finish();
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1, repeats = argc > 2 ? std::atoi(argv[2]) : 7;
  ThreadPool pool(threads);
  Scratch scratch;
  Context context;
  context.pool = &pool;
  context.scratch = &scratch;
  context.isa = detect_isa();
  context.amx = detect_amx() && (argc <= 3 || std::string(argv[3]) != "vector");
  std::printf("%s%s, %d threads, medians of %d\n", isa_name(context.isa), context.amx ? " and amx" : "", threads,
              repeats);
  const std::string wanted = argc > 4 ? argv[4] : "";
  const std::string wanted_dtype = argc > 5 ? argv[5] : "";
  const auto skipped = [&](const char* name, DType dtype) {
    return std::string(name).find(wanted) == std::string::npos ||
           std::string(name_of(dtype)).find(wanted_dtype) == std::string::npos;
  };
#if defined(__x86_64__)
  if (context.isa == Isa::avx512_bf16) print_peak(pool);
#endif

  struct Shape4 {
    const char* name;
    int32_t query_heads, kv_heads, head_dim, prompt, completions, length, groups;
  };
  const Shape4 shapes[] = {{"T 2048, 14:14 heads of 64", 14, 14, 64, 2048, 0, 0, 1},
                           {"T 2048, 14:2 heads of 64", 14, 2, 64, 2048, 0, 0, 1},
                           {"T 512, 6:2 heads of 64", 6, 2, 64, 512, 0, 0, 1},
                           {"T 1000, 8:2 heads of 128", 8, 2, 128, 1000, 0, 0, 1},
                           {"P 1000 G 8 C 256, 14:2 of 64", 14, 2, 64, 1000, 8, 256, 1},
                           {"32 x (P 30 G 8 C 25), 8:4 of 32", 8, 4, 32, 30, 8, 25, 32}};
  for (const Shape4& shape : shapes) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      if (skipped(shape.name, dtype)) continue;
      OwnedPlan plan = group_plan(shape.prompt, shape.completions, shape.length, shape.groups);
      const int64_t blocks = plan.num_blocks;
      Setup setup(std::move(plan), blocks, shape.query_heads, shape.kv_heads, shape.head_dim, dtype);
      const double forward = median(threads, repeats, [&] { cpu::attention_forward(context, setup.p); });
      const double backward = median(threads, repeats, [&] { cpu::attention_backward(context, setup.p); });
      const double flop = setup.pairs() * shape.head_dim;
      std::printf("%-32s %s forward %7.2f ms %6.1f GFLOP/s   backward %7.2f ms %6.1f GFLOP/s\n", shape.name,
                  name_of(dtype), forward * 1e3, 4 * flop / forward * 1e-9, backward * 1e3,
                  10 * flop / backward * 1e-9);
    }
  }

  struct Decode {
    const char* name;
    int32_t query_heads, kv_heads, groups, group_size, shared_blocks, own_keys;
  };
  const Decode decodes[] = {{"1 row, 1:1 heads of 64, 16 blocks", 1, 1, 1, 1, 0, 1024},
                            {"8 x G 8, 14:14 of 64, 8 + 2 blocks", 14, 14, 8, 8, 8, 128},
                            {"8 x G 8, 4:2 of 64, 4 + 1 blocks", 4, 2, 8, 8, 4, 64},
                            {"1 row, 14:2 heads of 64, 16 blocks", 14, 2, 1, 1, 0, 1024},
                            {"8 x G 8, 14:2 of 64, 8 + 2 blocks", 14, 2, 8, 8, 8, 128}};
  for (const Decode& shape : decodes) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      if (skipped(shape.name, dtype)) continue;
      OwnedPlan plan = decode_plan(shape.groups, shape.group_size, shape.shared_blocks, shape.own_keys);
      Setup setup(std::move(plan), 1024 * 4, shape.query_heads, shape.kv_heads, 64, dtype);
      const double time = median(threads, repeats * 5, [&] { cpu::attention_forward(context, setup.p); });
      const double visits = setup.pairs() / kKeyBlock;  // of one query and head
      std::printf("%-36s %s %8.1f us, %6.1f ns a query, head and block\n", shape.name, name_of(dtype), time * 1e6,
                  time * 1e9 / visits);
    }
  }
  return 0;
}
