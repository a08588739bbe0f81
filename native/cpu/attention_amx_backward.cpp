// The attention backward on AMX tiles. Scores are computed as keys x queries, so that p and dS come out as the left
// operands of dV = p^T dO and dK = dS^T Q, and, two keys to a word, as the right one of dQ^T = K^T dS^T: nothing is
// transposed between products. All widths are rounded up to 32, so one product of 32 x 32 serves.
#include <algorithm>
#include <cstring>

#include "cpu/attention_amx.h"
#include "cpu/attention_amx_buffers.h"
#include "cpu/attention_amx_product.h"

namespace gavel::cpu {

#if defined(__x86_64__)

namespace {

class AmxBackward {
 public:
  AmxBackward(const Attention& p, const UnitBlocks& blocks, int32_t unit, int32_t head, uint8_t* memory)
      : p_(p), plan_(*p.plan), blocks_(blocks), unit_(unit), head_(head), group_(p.query_heads / p.kv_heads) {
    work_.lay_out(memory, p, blocks);
    sums_ = {work_.sums, work_.width, p.scale};
  }

  GAVEL_TARGET_AMX void run() {
    const int32_t count = blocks_.count(unit_);
    for (int32_t place = 0; place < count; ++place) pack_block(place);
    std::fill_n(work_.sums, 2 * work_.tile * count, 0.0f);
    configure_squares();
    const AttentionUnit& unit = plan_.units[unit_];
    const int32_t most = std::max(1, kChunkQueries / group_);
    for (int32_t i = unit.tile_begin; i < unit.tile_end;) {
      const QueryTile& tile = plan_.tiles[i];
      // Tiles that go on where this one ends and read the same blocks are one.
      int32_t tile_end = tile.row_begin + tile.row_count;
      for (++i; i < unit.tile_end; ++i) {
        const QueryTile& next = plan_.tiles[i];
        if (next.row_begin != tile_end || next.shared_begin != tile.shared_begin) break;
        if (next.shared_count != tile.shared_count) break;
        tile_end += next.row_count;
      }
      for (int32_t begin = tile.row_begin, end; begin < tile_end; begin = end) {
        const int32_t limit = std::min(tile_end, begin + most);
        for (end = begin + 1; end < limit && plan_.row_tail[end] == plan_.row_tail[begin];) ++end;
        walk(tile, begin, end);
      }
    }
    release_tiles();
    write_key_gradients(p_, blocks_, unit_, head_, sums_, work_.first_place);
  }

 private:
  const bf16_t* query_row(int32_t row, int32_t head) const {
    return p_.qkv.bf16() + row * p_.qkv.cols() + int64_t{head} * p_.head_dim;
  }

  void pack_block(int32_t place) {
    const int32_t head_dim = p_.head_dim;
    const int64_t width = work_.width;
    bf16_t *keys = work_.keys(place), *values = work_.values(place);
    std::memset(keys, 0, static_cast<size_t>(3 * work_.tile) * sizeof(bf16_t));
    const int32_t* rows = plan_.block_rows + int64_t{blocks_.ids_of(unit_)[place]} * kKeyBlock;
    for (int32_t slot = 0; slot < kKeyBlock; ++slot) {
      if (rows[slot] < 0) continue;
      const bf16_t* key = query_row(rows[slot], p_.query_heads + head_);
      std::memcpy(keys + slot * width, key, static_cast<size_t>(head_dim) * 2);
      std::memcpy(values + slot * width, key + int64_t{p_.kv_heads} * head_dim, static_cast<size_t>(head_dim) * 2);
    }
    // Pairs of keys by dimension, then dimensions by pairs; the buffer of dQ is free.
    auto* const pairs = reinterpret_cast<uint32_t*>(work_.grad_query);
    interleave(keys, kKeyBlock, static_cast<int32_t>(width), pairs);
    for (int64_t d = 0; d < width; d += 32) {
      transpose(pairs + d * kKeyBlock / 2, kKeyBlock / 2, 32, work_.keys_transposed(place) + d * kKeyBlock);
    }
  }

  // Queries of rows [begin, end), which have one list of blocks, through all of it.
  GAVEL_TARGET_AMX void walk(const QueryTile& tile, int32_t begin, int32_t end) {
    const int32_t last = load_queries(begin, end);
    const int32_t blocks = (last + kKeyBlock - 1) / kKeyBlock;
    for (int32_t block = 0; block < blocks; ++block) {
      const int32_t id = block < tile.shared_count ? plan_.block_ids[tile.shared_begin + block]
                                                   : plan_.block_ids[plan_.row_tail[begin] + block - tile.shared_count];
      visit(blocks_.index[static_cast<size_t>(id)], block * kKeyBlock, last);
    }
    later_.drain();
    store_queries(begin, end);
  }

  // Packs Q and dO of the rows; returns how many keys the last of them sees.
  GAVEL_TARGET_AMX int32_t load_queries(int32_t begin, int32_t end) {
    const int32_t head_dim = p_.head_dim, count = (end - begin) * group_, width = static_cast<int32_t>(work_.width);
    queries_ = static_cast<int32_t>(round_up(count, kGroup));
    std::memset(work_.query, 0, static_cast<size_t>(queries_) * work_.width * 2);
    std::memset(work_.grad_out, 0, static_cast<size_t>(queries_) * work_.width * 2);
    std::fill_n(work_.seen, queries_, 0);
    std::fill_n(work_.lse, queries_, 0.0f);
    std::fill_n(work_.mean, queries_, 0.0f);
    int32_t last = 0;
    for (int32_t row = begin, query = 0; row < end; ++row) {
      last = std::max(last, plan_.row_keys[row]);
      for (int32_t i = 0; i < group_; ++i, ++query) {
        const int32_t head = head_ * group_ + i;
        const int64_t out = (int64_t{row} * p_.query_heads + head) * head_dim;
        const bf16_t *grad_out = p_.grad_out.bf16() + out, *result = p_.out.bf16() + out;
        const auto bytes = static_cast<size_t>(head_dim) * sizeof(bf16_t);
        std::memcpy(work_.query + query * work_.width, query_row(row, head), bytes);
        std::memcpy(work_.grad_out + query * work_.width, grad_out, bytes);
        __m512 sum = _mm512_setzero_ps();
        for (int32_t d = 0; d < head_dim; d += 16)
          sum = _mm512_fmadd_ps(load_wide(grad_out + d), load_wide(result + d), sum);
        work_.mean[query] = _mm512_reduce_add_ps(sum);
        work_.lse[query] = p_.lse.f32()[int64_t{row} * p_.query_heads + head] * kLog2e;
        work_.seen[query] = plan_.row_keys[row];
      }
    }
    for (int64_t first = 0; first < queries_; first += kGroup) {
      transpose(work_.query + first * width, kGroup, width / 2, work_.query_words + first * width / 2);
      transpose(work_.grad_out + first * width, kGroup, width / 2, work_.grad_out_words + first * width / 2);
    }
    interleave(work_.query, queries_, width, work_.query_pairs);
    interleave(work_.grad_out, queries_, width, work_.grad_out_pairs);
    std::fill_n(work_.grad_query, queries_ * work_.width, 0.0f);
    return last;
  }

  GAVEL_TARGET_AMX GAVEL_INLINE static __m512 load_wide(const bf16_t* from) {
    const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
  }

  GAVEL_TARGET_AMX void store_queries(int32_t begin, int32_t end) {
    const auto width = static_cast<int32_t>(work_.width);
    for (int64_t first = 0; first < queries_; first += kGroup) {
      transpose(work_.grad_query + first * width, width, kGroup, work_.grad_query_rows + first * width);
    }
    const __m512 scale = _mm512_set1_ps(p_.scale);
    for (int32_t row = begin, query = 0; row < end; ++row) {
      for (int32_t i = 0; i < group_; ++i, ++query) {
        const float* from = work_.grad_query_rows + query * work_.width;
        bf16_t* to = p_.grad_qkv.bf16() + row * p_.qkv.cols() + int64_t{head_ * group_ + i} * p_.head_dim;
        for (int32_t d = 0; d < p_.head_dim; d += 16) {
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + d),
                              bf16_lanes(_mm512_mul_ps(_mm512_loadu_ps(from + d), scale)));
        }
      }
    }
  }

  // All queries of the chunk meet the block at `place`, whose first key has position `base`.
  GAVEL_TARGET_AMX void visit(int32_t place, int32_t base, int32_t last) {
    const int32_t keys = last - base > kKeyBlock / 2 ? kKeyBlock : kKeyBlock / 2;
    int32_t begin = queries_, end = 0;
    for (int32_t first = 0; first < queries_; first += kGroup) {
      if (*std::max_element(work_.seen + first, work_.seen + first + kGroup) <= base) continue;
      begin = std::min(begin, first);
      end = first + kGroup;
    }
    turn_ ^= 1;
    push_scores(place, keys, begin, 0);
    for (int32_t first = begin, turn = 0; first < end; first += kGroup, turn ^= 1) {
      now_.drain();
      if (first + kGroup < end) push_scores(place, keys, first + kGroup, turn ^ 1);
      if (*std::min_element(work_.seen + first, work_.seen + first + kGroup) >= base + keys) {
        differentiate<false>(keys, base, first, turn);
      } else {
        differentiate<true>(keys, base, first, turn);
      }
    }
    // What is left of the block before this one: its operands are overwritten by the next.
    later_.drain();
    push_gradients(place, keys, begin, end);
  }

  // Raw scores and dP of 32 queries: [keys][32].
  void push_scores(int32_t place, int32_t keys, int32_t first, int32_t turn) {
    const auto row_bytes = static_cast<int32_t>(work_.width * 2), depth = static_cast<int32_t>(work_.width / 32);
    const int64_t column = first * work_.width / 2;
    for (int32_t key = 0; key < keys; key += 32) {
      const int64_t row = key * work_.width, at = (turn * kKeyBlock + key) * kGroup;
      now_.push({{work_.keys(place) + row, row_bytes, 64},
                 work_.query_words + column,
                 work_.scores + at,
                 kGroup * 4,
                 depth,
                 false});
      now_.push({{work_.values(place) + row, row_bytes, 64},
                 work_.grad_out_words + column,
                 work_.gradients + at,
                 kGroup * 4,
                 depth,
                 false});
    }
  }

  // dV and dK of the block, dQ of the queries, from p and dS of queries [begin, end).
  void push_gradients(int32_t place, int32_t keys, int32_t begin, int32_t end) {
    const auto width = static_cast<int32_t>(work_.width);
    const int64_t turn = int64_t{turn_} * kKeyBlock * queries_;
    const bf16_t *p = work_.p + turn + begin * kKeyBlock, *ds = work_.ds + turn + begin * kKeyBlock;
    const uint32_t* ds_pairs = work_.ds_pairs + turn / 2;
    constexpr int32_t kStep = kKeyBlock * 64;  // from 32 queries of p or dS to the next
    const int32_t depth = (end - begin) / 32;
    for (int32_t d = 0; d < width; d += 32) {
      const int64_t column = (int64_t{d} * queries_ + begin * 32) / 2;
      const auto add = [&](const bf16_t* rows, const uint32_t* right, float* sums) {
        for (int32_t key = 0; key < keys; key += 32) {
          float* const to = sums + key * work_.width + d;
          later_.push({{rows + key * 32, 64, kStep}, right + column, to, width * 4, depth, true});
        }
      };
      add(p, work_.grad_out_pairs, sums_.values(place));
      add(ds, work_.query_pairs, sums_.keys(place));
    }
    for (int32_t first = begin; first < end; first += kGroup) {
      for (int32_t d = 0; d < width; d += 32) {
        later_.push({{work_.keys_transposed(place) + d * kKeyBlock, kKeyBlock * 2, 64},
                     ds_pairs + first * kKeyBlock / 2,
                     work_.grad_query + (int64_t{first} * width + d * kGroup),
                     kGroup * 4,
                     keys / 32,
                     true});
      }
    }
  }

  // p = 2^(s - lse) and dS / scale = p (dP - mean) of 32 queries, zero where hidden.
  template <bool kHidden>
  GAVEL_TARGET_AMX void differentiate(int32_t keys, int32_t base, int32_t first, int32_t turn) {
    const __m512 power = _mm512_set1_ps(p_.scale * kLog2e);
    const __m512 lse[2] = {_mm512_loadu_ps(work_.lse + first), _mm512_loadu_ps(work_.lse + first + 16)};
    const __m512 mean[2] = {_mm512_loadu_ps(work_.mean + first), _mm512_loadu_ps(work_.mean + first + 16)};
    const __m512i seen[2] = {_mm512_loadu_si512(work_.seen + first), _mm512_loadu_si512(work_.seen + first + 16)};
    const float* scores = work_.scores + turn * kKeyBlock * kGroup;
    const float* gradients = work_.gradients + turn * kKeyBlock * kGroup;
    const int64_t at = (int64_t{turn_} * queries_ + first) * kKeyBlock;
    bf16_t *p_rows = work_.p + at, *ds_rows = work_.ds + at;
    uint32_t* pairs = work_.ds_pairs + at / 2;
    for (int32_t key = 0; key < keys; key += 2, pairs += kGroup) {
      if (key % 4 == 0 && !now_.run_one()) later_.run_one();
      __m512i ds_pair[2];
      for (int i = 0; i < 2; ++i, scores += kGroup, gradients += kGroup, p_rows += kGroup, ds_rows += kGroup) {
        __m512 p[2], ds[2];
        for (int v = 0; v < 2; ++v) {
          p[v] = exp2_lanes(_mm512_fmsub_ps(_mm512_load_ps(scores + 16 * v), power, lse[v]));
          const __m512 difference = _mm512_sub_ps(_mm512_load_ps(gradients + 16 * v), mean[v]);
          if constexpr (kHidden) {
            const __mmask16 open = _mm512_cmpgt_epi32_mask(seen[v], _mm512_set1_epi32(base + key + i));
            p[v] = _mm512_maskz_mov_ps(open, p[v]);
            ds[v] = _mm512_maskz_mul_ps(open, p[v], difference);
          } else {
            ds[v] = _mm512_mul_ps(p[v], difference);
          }
        }
        _mm512_storeu_si512(p_rows, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(p[1], p[0])));
        ds_pair[i] = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(ds[1], ds[0]));
        _mm512_storeu_si512(ds_rows, ds_pair[i]);
      }
      store_pairs(ds_pair[0], ds_pair[1], pairs);
    }
  }

  const Attention& p_;
  const AttentionPlan& plan_;
  const UnitBlocks& blocks_;
  const int32_t unit_, head_, group_;
  AmxBuffers work_;
  BlockSums sums_{};
  ProductQueue now_, later_;
  int32_t queries_ = 0, turn_ = 0;
};

}  // namespace

size_t amx_backward_bytes(const Attention& p, const UnitBlocks& blocks) {
  return AmxBuffers().lay_out(nullptr, p, blocks);
}

void unit_backward_amx(const Attention& p, const UnitBlocks& blocks, int32_t unit, int32_t head, uint8_t* memory) {
  AmxBackward(p, blocks, unit, head, memory).run();
}

#else

size_t amx_backward_bytes(const Attention&, const UnitBlocks&) { return 0; }
void unit_backward_amx(const Attention&, const UnitBlocks&, int32_t, int32_t, uint8_t*) {}

#endif

}  // namespace gavel::cpu
