// Attention backward (Dao et al. 2022): p = exp(s - lse) is computed again block by block; with D = rowsum(dO * O),
// dV += p^T dO, dS = p * (dO V^T - D) * scale, dQ += dS K, dK += dS^T Q. A work item is (unit, key-value head): one
// thread walks the unit's rows in order, so dK and dV of a shared prompt are the same sum for any number of threads.
// All in fp32, but for bf16 on AMX tiles (attention_amx_backward.cpp).
#include <algorithm>
#include <cstring>

#include "cpu/attention_amx.h"
#include "cpu/attention_product.h"
#include "cpu/attention_units.h"
#include "cpu/kernels.h"

namespace gavel::cpu {
namespace {

constexpr int32_t kChunkQueries = 64;

struct Workspace {
  int64_t tile = 0;                          // floats of a [64, D] matrix
  float *packed = nullptr, *sums = nullptr;  // per block: K, K^T, V^T; dK, dV
  float* values = nullptr;                   // of the block being packed
  float *query = nullptr, *grad_out = nullptr, *grad_query = nullptr, *scores = nullptr, *gradients = nullptr;
  float *lse = nullptr, *mean = nullptr;
  int32_t *visible = nullptr, *first_place = nullptr;  // per query; per row of the unit

  // Lays the buffers out from `memory` on (counts only when it is null); returns the bytes taken.
  size_t lay_out(uint8_t* memory, int32_t blocks, int32_t rows, int32_t queries, int32_t head_dim) {
    size_t used = 0;
    const auto take = [&]<class T>(T*& pointer, int64_t count) {
      pointer = memory == nullptr ? nullptr : reinterpret_cast<T*>(memory + used);
      used += static_cast<size_t>(round_up(count * static_cast<int64_t>(sizeof(T)), 64));
    };
    tile = int64_t{kKeyBlock} * head_dim;
    take(packed, 3 * tile * blocks);
    take(sums, 2 * tile * blocks);
    take(values, tile);
    take(query, int64_t{queries} * head_dim);
    take(grad_out, int64_t{queries} * head_dim);
    take(grad_query, int64_t{queries} * head_dim);
    take(scores, int64_t{queries} * kKeyBlock);
    take(gradients, int64_t{queries} * kKeyBlock);
    take(lse, queries);
    take(mean, queries);
    take(visible, queries);
    take(first_place, rows);
    return used;
  }
  float* keys(int32_t place) const { return packed + 3 * tile * place; }
  float* keys_transposed(int32_t place) const { return keys(place) + tile; }
  float* values_transposed(int32_t place) const { return keys(place) + 2 * tile; }
  float* key_sums(int32_t place) const { return sums + 2 * tile * place; }
  float* value_sums(int32_t place) const { return key_sums(place) + tile; }
};

class UnitBackward {
 public:
  UnitBackward(const Attention& p, const UnitBlocks& blocks, const ProductKernels& kernels, const Workspace& work,
               int32_t unit, int32_t head)
      : p_(p),
        plan_(*p.plan),
        blocks_(blocks),
        kernels_(kernels),
        work_(work),
        unit_index_(unit),
        unit_(plan_.units[unit]),
        ids_(blocks.ids_of(unit)),
        num_ids_(blocks.count(unit)),
        head_(head),
        group_(p.query_heads / p.kv_heads) {}

  void run() {
    for (int32_t place = 0; place < num_ids_; ++place) pack(place);
    std::fill_n(work_.sums, 2 * work_.tile * num_ids_, 0.0f);
    const int32_t most = std::max(1, kChunkQueries / group_);
    for (int32_t i = unit_.tile_begin; i < unit_.tile_end; ++i) {
      const QueryTile& tile = plan_.tiles[i];
      const int32_t tile_end = tile.row_begin + tile.row_count;
      for (int32_t begin = tile.row_begin, end; begin < tile_end; begin = end) {
        for (end = begin + 1; end < std::min(tile_end, begin + most) && plan_.row_tail[end] == plan_.row_tail[begin];) {
          ++end;
        }
        walk(tile, begin, end);
      }
    }
    write_key_gradients(p_, blocks_, unit_index_, head_, {work_.sums, p_.head_dim, 1.0f}, work_.first_place);
  }

 private:
  int64_t columns() const { return p_.qkv.cols(); }
  int64_t query_index(int32_t row, int32_t head) const { return row * columns() + int64_t{head} * p_.head_dim; }
  int64_t key_index(int32_t row) const { return query_index(row, p_.query_heads + head_); }
  int64_t value_index(int32_t row) const { return query_index(row, p_.query_heads + p_.kv_heads + head_); }
  const int32_t* rows_of(int32_t place) const { return plan_.block_rows + int64_t{ids_[place]} * kKeyBlock; }

  void pack(int32_t place) {
    const int32_t head_dim = p_.head_dim;
    float* keys = work_.keys(place);
    for (int32_t slot = 0; slot < kKeyBlock; ++slot) {
      const int32_t row = rows_of(place)[slot];
      float *key = keys + slot * head_dim, *value = work_.values + slot * head_dim;
      if (row >= 0) {
        widen(p_.qkv, key_index(row), head_dim, key);
        widen(p_.qkv, value_index(row), head_dim, value);
      } else {
        std::fill_n(key, head_dim, 0.0f);
        std::fill_n(value, head_dim, 0.0f);
      }
    }
    kernels_.transpose(keys, head_dim, work_.keys_transposed(place));
    kernels_.transpose(work_.values, head_dim, work_.values_transposed(place));
  }

  // Queries of rows [begin, end), which have one list of blocks, through all of it.
  void walk(const QueryTile& tile, int32_t begin, int32_t end) {
    const int32_t head_dim = p_.head_dim, queries = (end - begin) * group_;
    int32_t last = 0;
    for (int32_t row = begin; row < end; ++row) {
      last = std::max(last, plan_.row_keys[row]);
      for (int32_t i = 0; i < group_; ++i) load_query(row, head_ * group_ + i, (row - begin) * group_ + i);
    }
    std::fill_n(work_.grad_query, int64_t{queries} * head_dim, 0.0f);
    const int32_t blocks = (last + kKeyBlock - 1) / kKeyBlock;
    for (int32_t block = 0; block < blocks; ++block) {
      const int32_t id = block < tile.shared_count ? plan_.block_ids[tile.shared_begin + block]
                                                   : plan_.block_ids[plan_.row_tail[begin] + block - tile.shared_count];
      const int32_t base = block * kKeyBlock;
      for (int32_t row = begin; row < end; ++row) {
        std::fill_n(work_.visible + (row - begin) * group_, group_, plan_.row_keys[row] - base);
      }
      visit(blocks_.index[static_cast<size_t>(id)], queries, std::min(kKeyBlock, last - base));
    }
    for (int32_t row = begin; row < end; ++row) {
      for (int32_t i = 0; i < group_; ++i) {
        narrow(work_.grad_query + ((row - begin) * group_ + i) * head_dim, head_dim, p_.grad_qkv,
               query_index(row, head_ * group_ + i));
      }
    }
  }

  void load_query(int32_t row, int32_t head, int32_t query) {
    const int32_t head_dim = p_.head_dim;
    const int64_t out_index = (int64_t{row} * p_.query_heads + head) * head_dim;
    float* grad_out = work_.grad_out + query * head_dim;
    float out[kMaxHeadDim], lanes[16] = {};
    widen(p_.qkv, query_index(row, head), head_dim, work_.query + query * head_dim);
    widen(p_.grad_out, out_index, head_dim, grad_out);
    widen(p_.out, out_index, head_dim, out);
    for (int32_t d = 0; d < head_dim; d += 16) {
      for (int32_t lane = 0; lane < 16; ++lane) lanes[lane] += grad_out[d + lane] * out[d + lane];
    }
    float sum = 0.0f;
    for (float lane : lanes) sum += lane;
    work_.mean[query] = sum;
    work_.lse[query] = p_.lse.f32()[int64_t{row} * p_.query_heads + head];
  }

  void visit(int32_t place, int32_t queries, int32_t keys) {
    const int32_t head_dim = p_.head_dim;
    const auto lanes = static_cast<int32_t>(round_up(keys, 16));
    kernels_.multiply({work_.query, head_dim, 1, work_.keys_transposed(place), kKeyBlock, work_.scores, kKeyBlock,
                       queries, lanes, head_dim, false});
    kernels_.multiply({work_.grad_out, head_dim, 1, work_.values_transposed(place), kKeyBlock, work_.gradients,
                       kKeyBlock, queries, lanes, head_dim, false});
    kernels_.score_gradient(
        {work_.scores, work_.gradients, work_.lse, work_.mean, work_.visible, queries, lanes, p_.scale});
    kernels_.multiply({work_.scores, 1, kKeyBlock, work_.grad_out, head_dim, work_.value_sums(place), head_dim, keys,
                       head_dim, queries, true});
    kernels_.multiply({work_.gradients, 1, kKeyBlock, work_.query, head_dim, work_.key_sums(place), head_dim, keys,
                       head_dim, queries, true});
    kernels_.multiply({work_.gradients, kKeyBlock, 1, work_.keys(place), head_dim, work_.grad_query, head_dim, queries,
                       head_dim, keys, true});
  }

  static constexpr int32_t kMaxHeadDim = 256;
  const Attention& p_;
  const AttentionPlan& plan_;
  const UnitBlocks& blocks_;
  const ProductKernels& kernels_;
  const Workspace work_;
  const int32_t unit_index_;
  const AttentionUnit unit_;
  const int32_t* const ids_;
  const int32_t num_ids_, head_, group_;
};

}  // namespace

void attention_backward(Context& context, const Attention& p) {
  const AttentionPlan& plan = *p.plan;
  const UnitBlocks blocks(plan, p.grad_qkv.rows());
  const bool amx = context.amx && p.qkv.dtype == DType::bf16;
  const int32_t queries = std::max(kChunkQueries, p.query_heads / p.kv_heads);
  const size_t bytes = amx ? amx_backward_bytes(p, blocks)
                           : Workspace().lay_out(nullptr, blocks.most, blocks.most_rows, queries, p.head_dim);
  size_t stride = 0;
  uint8_t* scratch = context.scratch->workers(context.pool->threads(), bytes, &stride);
  const ProductKernels kernels = product_kernels(context.isa);

  // What no tile and no block names gets zero; the rest is written by the units.
  for (int64_t row = 0; row < p.grad_qkv.rows(); ++row) {
    if (blocks.covered[static_cast<size_t>(row)] == 3) continue;
    const size_t row_bytes = static_cast<size_t>(p.grad_qkv.cols()) * dtype_size(p.grad_qkv.dtype);
    std::memset(static_cast<uint8_t*>(p.grad_qkv.data) + static_cast<size_t>(row) * row_bytes, 0, row_bytes);
  }
  context.pool->parallel_for(int64_t{plan.num_units} * p.kv_heads, [&](int64_t index, int worker) {
    uint8_t* const memory = scratch + static_cast<size_t>(worker) * stride;
    const auto unit = static_cast<int32_t>(index / p.kv_heads), head = static_cast<int32_t>(index % p.kv_heads);
    if (amx) return unit_backward_amx(p, blocks, unit, head, memory);
    Workspace work;
    work.lay_out(memory, blocks.most, blocks.most_rows, queries, p.head_dim);
    UnitBackward(p, blocks, kernels, work, unit, head).run();
  });
}

}  // namespace gavel::cpu
