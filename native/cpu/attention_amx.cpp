#include "cpu/attention_amx.h"

#include <algorithm>
#include <cstring>

#include "cpu/attention_amx_stages.h"
#include "cpu/attention_walk.h"

namespace gavel::cpu {

#if defined(__x86_64__)

namespace {

class AmxWalk {
 public:
  AmxWalk(const StoreLayout& layout, const QueryTile& tile, int32_t head, float* workspace)
      : layout_(layout),
        tile_(tile),
        head_(head),
        head_dim_(layout.p.head_dim),
        queries_(tile.row_count * layout.group),
        padded_(static_cast<int32_t>(round_up(queries_, kRows))) {
    states_ = {workspace, workspace + padded_, workspace + 2 * padded_};
    float* rest = states_.out + int64_t{padded_} * head_dim_;
    packed_ = reinterpret_cast<bf16_t*>(rest);
  }

  GAVEL_TARGET_AMX void run() {
    pack();
    walk_blocks(*layout_.p.plan, tile_,
                [&](int32_t begin, int32_t end, int32_t block, int32_t id) { return visit(begin, end, block, id); });
    flush();
    release_tiles();
    finish();
  }

 private:
  void pack() {
    std::fill_n(states_.top, padded_, kNone);
    std::fill_n(states_.sum, padded_, 0.0f);
    std::fill_n(states_.out, int64_t{padded_} * head_dim_, 0.0f);
    const auto row_bytes = static_cast<size_t>(layout_.group * head_dim_) * sizeof(bf16_t);
    for (int32_t row = 0; row < tile_.row_count; ++row) {
      std::memcpy(packed_ + int64_t{row} * layout_.group * head_dim_,
                  layout_.row_data(tile_.row_begin + row) + static_cast<size_t>(head_) * row_bytes, row_bytes);
    }
    std::fill_n(packed_ + int64_t{queries_} * head_dim_, int64_t{padded_ - queries_} * head_dim_, bf16_t{0});
  }

  GAVEL_TARGET_AMX bool visit(int32_t begin, int32_t end, int32_t block, int32_t id) {
    const int32_t base = block * kKeyBlock, group = layout_.group;
    const int32_t* keys = layout_.p.plan->row_keys + tile_.row_begin;
    int32_t most = 0, least = kKeyBlock;
    for (int32_t row = begin; row < end; ++row) {
      most = std::max(most, keys[row] - base);
      least = std::min(least, keys[row] - base);
    }
    if (most <= 0) return false;
    const int32_t first = begin * group, last = end * group;
    // Even shares; rows of padding only behind the tile's last query, where they are nobody's.
    const int32_t visits = (last - first + kRows - 1) / kRows, share = (last - first + visits - 1) / visits;
    const int32_t limit = last == queries_ ? padded_ : last;
    Visit next;
    next.keys = reinterpret_cast<const uint32_t*>(layout_.key_tile(id, head_));
    next.values = reinterpret_cast<const uint32_t*>(layout_.value_tile(id, head_));
    next.hidden = least < kKeyBlock;
    for (next.first = first; next.first < last; next.first += share) {
      next.rows = std::min(share, limit - next.first);
      if (next.hidden) {
        most = 0;
        for (int32_t i = next.first / group; i <= (std::min(next.first + next.rows, last) - 1) / group; ++i) {
          most = std::max(most, keys[i] - base);
        }
        if (most <= 0) continue;
        // Keys that no query sees are masked whatever they hold: they need not be computed.
        next.tiles = most > kKeyBlock / 2 ? 4 : 2;
      }
      push(next, base);
    }
    return true;
  }

  GAVEL_TARGET_AMX void push(const Visit& next, int32_t base) {
    if (next.rows != configured_) {
      flush();
      configure_rows(configured_ = next.rows);
    }
    if (next.hidden) see(next, base);
    advance(next);
  }

  GAVEL_TARGET_AMX void flush() {
    advance({});
    advance({});
  }

  // A visit goes through three stages: its scores, their softmax, the product with V. A stage would wait for what the
  // one before has just stored, and vectors and tiles work beside one another: so the softmax of a visit is interleaved
  // with the products of the next and of the last. Stages of one query keep their order.
  GAVEL_TARGET_AMX void advance(const Visit& next) {
    float* out = states_.out + int64_t{weighed_.first} * head_dim_;
    if (weighed_.rows > 0) rescale(weighed_, factors_[turn_], head_dim_, out);
    const auto quarter = [&](int32_t index) GAVEL_TARGET_AMX {
      if (index < 2) {
        if (next.rows > 0) score(next, index == 1);
      } else if (weighed_.rows > 0) {
        add_half(index == 3, p_[turn_], weighed_.tiles / 2, weighed_.values, head_dim_, out);
      }
    };
    if (scored_.rows > 0) {
      weigh(scored_, quarter);
    } else {
      for (int32_t i = 0; i < 4; ++i) quarter(i);
    }
    weighed_ = scored_;
    scored_ = next;
    turn_ ^= 1;
  }

  void see(const Visit& next, int32_t base) {
    int32_t* visible = visible_[turn_];
    for (int32_t i = 0; i < next.rows; ++i) {
      const int32_t query = next.first + i;
      visible[i] = query < queries_ ? layout_.p.plan->row_keys[tile_.row_begin + query / layout_.group] - base : 0;
    }
  }

  // The visit being scored and the one two before it have the buffers of turn_, the one between them the others.
  GAVEL_TARGET_AMX void score(const Visit& visit, bool second) {
    const bf16_t* queries = packed_ + int64_t{visit.first} * head_dim_;
    if (visit.tiles == 4) {
      score_half<4>(second, queries, head_dim_, visit.keys, scores_[turn_]);
    } else {
      score_half<2>(second, queries, head_dim_, visit.keys, scores_[turn_]);
    }
  }

  template <class Quarter>
  GAVEL_TARGET_AMX void weigh(const Visit& visit, const Quarter& quarter) {
    const int32_t turn = turn_ ^ 1;
    const float power = layout_.p.scale * kLog2e;
    float *scores = scores_[turn], *factors = factors_[turn];
    if (!visit.hidden) {
      weigh_keys<4, false>(visit, states_, nullptr, power, scores, p_[turn], factors, quarter);
    } else if (visit.tiles == 4) {
      weigh_keys<4, true>(visit, states_, visible_[turn], power, scores, p_[turn], factors, quarter);
    } else {
      weigh_keys<2, true>(visit, states_, visible_[turn], power, scores, p_[turn], factors, quarter);
    }
  }

  GAVEL_TARGET_AMX void finish() {
    const Attention& p = layout_.p;
    const __m512 zero = _mm512_setzero_ps();
    for (int32_t query = 0; query < queries_; ++query) {
      const int64_t row = tile_.row_begin + query / layout_.group;
      const int64_t index = row * p.query_heads + head_ * layout_.group + query % layout_.group;
      const float sum = states_.sum[query];
      const bool empty = sum == 0.0f;  // false for NaN, which must be seen
      const __m512 inverse = _mm512_set1_ps(empty ? 0.0f : 1.0f / sum);
      const float* from = states_.out + int64_t{query} * head_dim_;
      bf16_t* to = p.out.bf16() + index * head_dim_;
      for (int32_t d = 0; d < head_dim_; d += 16) {
        // + 0 turns -0 into +0.
        const __m512 value = _mm512_add_ps(_mm512_mul_ps(_mm512_load_ps(from + d), inverse), zero);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + d), bf16_lanes(value));
      }
      if (p.lse) p.lse.f32()[index] = empty ? kNone : __builtin_fmaf(states_.top[query], kLn2, log_one(sum));
    }
  }

  static constexpr float kLn2 = 0.693147180559945309f;
  const StoreLayout& layout_;
  const QueryTile tile_;
  const int32_t head_, head_dim_, queries_, padded_;
  States states_;
  bf16_t* packed_;
  Visit scored_, weighed_;
  int32_t configured_ = 0, turn_ = 0;
  alignas(64) float scores_[2][kRows * kKeyBlock];
  alignas(64) bf16_t p_[2][kRows * kKeyBlock];
  alignas(64) float factors_[2][kRows];
  int32_t visible_[2][kRows];
};

}  // namespace

int64_t amx_workspace_floats(int32_t queries, int32_t head_dim) {
  const int64_t padded = round_up(queries, kRows);
  return padded * (2 + head_dim + head_dim / 2);
}

void attend_amx(const StoreLayout& layout, const QueryTile& tile, int32_t head, float* workspace) {
  AmxWalk(layout, tile, head, workspace).run();
}

#else

int64_t amx_workspace_floats(int32_t, int32_t) { return 0; }
void attend_amx(const StoreLayout&, const QueryTile&, int32_t, float*) {}

#endif

}  // namespace gavel::cpu
