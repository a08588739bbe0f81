#include "cpu/attention_store.h"

#include <algorithm>
#include <cstring>

#include "cpu/transpose.h"

namespace gavel::cpu {
namespace {

constexpr int32_t kRun = 16;

// Up to 16 rows that go to consecutive slots of one block.
struct Run {
  const uint8_t* keys[kRun];
  const uint8_t* values[kRun];
  int32_t count = 0, slot = 0, head_dim = 0;
};

// K is transposed so that 64 keys lie side by side for each 32-bit word: a dimension, or in bf16 a pair of them.
void write_keys(const Run& run, uint32_t* tile, int32_t words) {
  for (int32_t i = 0; i < run.count; ++i) {
    for (int32_t w = 0; w < words; ++w) std::memcpy(tile + w * kKeyBlock + run.slot + i, run.keys[i] + 4 * w, 4);
  }
}

#if defined(__x86_64__)
GAVEL_TARGET_AVX512 void write_keys_avx512(const Run& run, uint32_t* tile, int32_t words) {
  if (run.count < kRun) return write_keys(run, tile, words);
  const uint32_t* rows[kRun];
  for (int32_t i = 0; i < kRun; ++i) rows[i] = reinterpret_cast<const uint32_t*>(run.keys[i]);
  transpose_rows(rows, words, tile + run.slot, kKeyBlock);
}
#endif

void write_values_f32(const Run& run, float* tile) {
  const auto bytes = static_cast<size_t>(run.head_dim) * sizeof(float);
  for (int32_t i = 0; i < run.count; ++i) std::memcpy(tile + (run.slot + i) * run.head_dim, run.values[i], bytes);
}

// Pairs of keys lie side by side; both halves of a pair are written at once where the run has both.
void write_values_bf16(const Run& run, bf16_t* tile) {
  const int32_t head_dim = run.head_dim;
  for (int32_t i = 0; i < run.count;) {
    const int32_t slot = run.slot + i;
    bf16_t* out = tile + (slot / 2) * 2 * head_dim;
    const auto* value = reinterpret_cast<const bf16_t*>(run.values[i]);
    if (slot % 2 == 0 && i + 1 < run.count) {
      const auto* next = reinterpret_cast<const bf16_t*>(run.values[i + 1]);
      for (int32_t d = 0; d < head_dim; ++d) {
        out[2 * d] = value[d];
        out[2 * d + 1] = next[d];
      }
      i += 2;
    } else {
      for (int32_t d = 0; d < head_dim; ++d) out[2 * d + slot % 2] = value[d];
      ++i;
    }
  }
}

void write_run(Isa isa, const StoreLayout& layout, const KvWrite* writes, int32_t count) {
  const Attention& p = layout.p;
  const bool bf16 = p.qkv.dtype == DType::bf16;
  const int64_t head_bytes = p.head_dim * layout.element;
  Run run;
  run.count = count;
  run.slot = writes[0].slot;
  run.head_dim = p.head_dim;
  for (int32_t head = 0; head < p.kv_heads; ++head) {
    for (int32_t i = 0; i < count; ++i) {
      run.keys[i] = layout.row_data(writes[i].row) + (p.query_heads + head) * head_bytes;
      run.values[i] = run.keys[i] + p.kv_heads * head_bytes;
    }
    auto* keys = reinterpret_cast<uint32_t*>(layout.key_tile(writes[0].block, head));
    const int32_t words = bf16 ? p.head_dim / 2 : p.head_dim;
#if defined(__x86_64__)
    (has_avx512(isa) ? write_keys_avx512 : write_keys)(run, keys, words);
#else
    static_cast<void>(isa);
    write_keys(run, keys, words);
#endif
    uint8_t* values = layout.value_tile(writes[0].block, head);
    if (bf16) {
      write_values_bf16(run, reinterpret_cast<bf16_t*>(values));
    } else {
      write_values_f32(run, reinterpret_cast<float*>(values));
    }
  }
}

}  // namespace

void fill_store(Context& context, const StoreLayout& layout) {
  const Attention& p = layout.p;
  const AttentionPlan& plan = *p.plan;
  // Scores of free slots are masked whatever K holds, and no visit reads values past the last key that one of its
  // queries sees, but for the other half of a bf16 pair: only that must be finite.
  const auto tile_bytes = static_cast<size_t>(layout.tile * layout.element);
  context.pool->parallel_for(p.qkv.dtype == DType::bf16 ? plan.num_fresh : 0, [&](int64_t i, int) {
    const int32_t block = plan.fresh_blocks[i];
    for (int32_t head = 0; block >= 0 && head < p.kv_heads; ++head)
      std::memset(layout.value_tile(block, head), 0, tile_bytes);
  });
  const auto block_bytes = static_cast<size_t>(layout.block * layout.element);
  context.pool->parallel_for(plan.num_copies, [&](int64_t i, int) {
    const KvCopy& copy = plan.copies[i];
    if (copy.to >= 0) std::memcpy(layout.block_data(copy.to), layout.block_data(copy.from), block_bytes);
  });
  constexpr int32_t kChunk = 64;
  context.pool->parallel_for((plan.num_writes + kChunk - 1) / kChunk, [&](int64_t chunk, int) {
    const auto chunk_begin = static_cast<int32_t>(chunk) * kChunk;
    const int32_t chunk_end = std::min(chunk_begin + kChunk, plan.num_writes);
    for (int32_t begin = chunk_begin, end; begin < chunk_end; begin = end) {
      const KvWrite& first = plan.writes[begin];
      for (end = begin + 1; end < chunk_end && end - begin < kRun; ++end) {
        const KvWrite& next = plan.writes[end];
        if (next.block != first.block || next.slot != first.slot + end - begin) break;
      }
      if (first.block >= 0) write_run(context.isa, layout, plan.writes + begin, end - begin);
    }
  });
}

}  // namespace gavel::cpu
