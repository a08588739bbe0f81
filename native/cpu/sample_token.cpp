// One row, one worker: the draw depends on the row's logits, options and key alone. A row with a NaN or +inf logit, or
// with no token left, is reported as token -1 with NaN log-probabilities; it is never drawn from.
#include <cmath>
#include <limits>

#include "cpu/dispatch.h"
#include "cpu/kernels.h"
#include "cpu/sample_filter.h"

namespace gavel::cpu {
namespace {

void sample_row(Isa isa, const SampleToken& p, int64_t row, const SampleMemory& memory) {
  const int64_t tiles = num_pieces(p.vocabulary, kSampleTile);
  RowView view;
  view.logits = p.logits + row * p.vocabulary;
  view.tile_sums = p.tile_sums == nullptr ? nullptr : p.tile_sums + row * tiles * 2;
  view.vocabulary = p.vocabulary;
  view.banned = p.banned;
  view.num_banned = p.num_banned;
  const SampleOptions& options = p.options[row];
  const float normalizer = p.log_normalizer[row];

  KeptTokens kept(isa, view, memory);
  int32_t token = -1;
  float log_kept_mass = std::numeric_limits<float>::quiet_NaN();
  if (std::isfinite(normalizer) && kept.open()) {
    if (!options.greedy) kept.filter(options);
    token = options.greedy ? kept.greedy() : kept.draw(random_uniform(options.key));
    // Exactly 0 when nothing was taken away; rounding must not report more than everything either.
    const double log_mass = static_cast<double>(kept.largest_logit()) + std::log(kept.mass()) - normalizer;
    log_kept_mass = kept.filtered() || p.num_banned > 0 ? static_cast<float>(std::min(0.0, log_mass)) : 0.0f;
  }
  p.tokens[row] = token;
  p.logprob[row] = token < 0 ? std::numeric_limits<float>::quiet_NaN() : view.logits[token] - normalizer;
  p.log_kept_mass[row] = log_kept_mass;
}

}  // namespace

void sample_token_forward(Context& context, const SampleToken& p) {
  size_t stride = 0;
  uint8_t* memory = context.scratch->workers(context.pool->threads(), SampleMemory::size_bytes(p.vocabulary), &stride);
  context.pool->parallel_for(p.num_rows, [&](int64_t row, int worker) {
    sample_row(context.isa, p, row, SampleMemory::at(memory + static_cast<size_t>(worker) * stride, p.vocabulary));
  });
}

}  // namespace gavel::cpu
