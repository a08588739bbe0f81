#include "test/processor.h"
// The device comes first.
#include "cpu/head_tile.h"
#include "cpu/sample_filter.h"
#include "test/cases/sample_token_cases.h"
#include "test/golden_file.h"

namespace gavel::test {
namespace {

// The kept set of one row as 0 and 1.
std::vector<double> keep_mask(Isa isa, const std::vector<float>& logits, const SampleOptions& options,
                              const std::vector<int32_t>& banned = {}) {
  const int64_t vocabulary = static_cast<int64_t>(logits.size());
  const GuardedMemory memory(cpu::SampleMemory::size_bytes(vocabulary));
  cpu::RowView view;
  view.logits = logits.data();
  view.vocabulary = vocabulary;
  view.banned = banned.data();
  view.num_banned = static_cast<int32_t>(banned.size());
  cpu::KeptTokens kept(isa, view, cpu::SampleMemory::at(memory.data(), vocabulary));
  CHECK(kept.open());
  kept.filter(options);
  std::vector<double> mask;
  for (int32_t id = 0; id < vocabulary; ++id) mask.push_back(kept.keeps(id) ? 1 : 0);
  return mask;
}

double total(const std::vector<double>& values) {
  double sum = 0;
  for (double value : values) sum += value;
  return sum;
}

}  // namespace

TEST("sample_token keeps exactly the tokens of Hugging Face's warpers") {
  const GoldenFile golden("sampling");
  struct Setting {
    const char* name;
    float temperature;
    SampleOptions options;
  };
  const std::vector<Setting> settings = {
      {"temperature0.7", 0.7f, options_of(0, 1, 0)},
      {"top_k5", 1, options_of(5, 1, 0)},
      {"top_k100_over_vocab", 1, options_of(5000, 1, 0)},
      {"top_p0.9", 1, options_of(0, 0.9f, 0)},
      {"top_p0.1", 1, options_of(0, 0.1f, 0)},
      {"min_p0.1", 1, options_of(0, 1, 0.1f)},
      {"min_p0.02", 1, options_of(0, 1, 0.02f)},
      {"temperature0.6_top_k20_top_p0.95_min_p0.01", 0.6f, options_of(20, 0.95f, 0.01f)}};
  for (const char* table : {"small", "wide"}) {
    const std::vector<double> logits = golden.values(table);
    const size_t columns = table[0] == 's' ? 48 : 1000;
    for (const Setting& setting : settings) {
      const std::vector<double> masks = golden.values(std::string(table) + "." + setting.name + ".keep");
      for (Isa isa : isas()) {
        for (size_t row = 0; row * columns < logits.size(); ++row) {
          std::vector<float> scaled;
          for (size_t i = 0; i < columns; ++i)
            scaled.push_back(static_cast<float>(logits[row * columns + i]) * (1.0f / setting.temperature));
          const std::vector<double> expected(masks.begin() + static_cast<int64_t>(row * columns),
                                             masks.begin() + static_cast<int64_t>((row + 1) * columns));
          const std::vector<double> mask = keep_mask(isa, scaled, setting.options);
          // Rows 2 and 3 of `small` hold ties, which torch's sort orders as it likes: there top-p is compared by count.
          const bool ties = table[0] == 's' && (row == 2 || row == 3) && setting.options.top_p < 1;
          CHECK(ties ? total(mask) == total(expected) : mask == expected);
        }
      }
    }
  }
}

TEST("sample_token keeps the lower ids of equal logits under top-p and all ties under top-k") {
  const std::vector<float> logits{1, 3, 3, 3, 3, 0};
  for (Isa isa : isas()) {
    CHECK(keep_mask(isa, logits, options_of(2, 1, 0)) == (std::vector<double>{0, 1, 1, 1, 1, 0}));
    CHECK(keep_mask(isa, logits, options_of(0, 0.4f, 0)) == (std::vector<double>{0, 1, 1, 0, 0, 0}));
    CHECK(keep_mask(isa, logits, options_of(2, 0.3f, 0)) == (std::vector<double>{0, 1, 1, 0, 0, 0}));
    CHECK(keep_mask(isa, logits, options_of(0, 0.0f, 0)) == (std::vector<double>{0, 1, 0, 0, 0, 0}));
    CHECK(keep_mask(isa, logits, options_of(0, 1, 1.0f)) == (std::vector<double>{0, 1, 1, 1, 1, 0}));
    CHECK(keep_mask(isa, logits, options_of(0, 0.4f, 0), {1}) == (std::vector<double>{0, 0, 1, 1, 0, 0}));
    CHECK(keep_mask(isa, logits, options_of(1, 1, 0), {1, 2, 3, 4}) == (std::vector<double>{1, 0, 0, 0, 0, 0}));
  }
}

TEST("sample_token draws by the distribution: chi-square over positions, plain and filtered") {
  const int32_t vocabulary = 40, draws = 40000;
  const std::vector<float> row = random_row(vocabulary, 77, 2.0);
  for (const SampleOptions& base : {options_of(0, 1, 0), options_of(12, 0.9f, 0), options_of(0, 1, 0.1f)}) {
    Batch batch{vocabulary, {}, {}, {}, {4, 9}};
    for (int32_t i = 0; i < draws; ++i) {
      SampleOptions options = base;
      options.key.position = static_cast<uint32_t>(i % 500);
      options.key.sample = static_cast<uint32_t>(i / 500);
      batch.add(row, options);
    }
    TestContext context(2);
    const Drawn drawn = run(cpu::sample_token_forward, context, batch);
    const std::vector<double> mask = keep_mask(Isa::generic, row, base, {4, 9});
    std::vector<double> expected, counts(static_cast<size_t>(vocabulary), 0.0);
    for (size_t i = 0; i < mask.size(); ++i) expected.push_back(mask[i] * std::exp(row[i]));
    for (int32_t i = 0; i < draws; ++i) counts[static_cast<size_t>(drawn.tokens[i])] += 1;
    const double sum = total(expected);
    double chi = 0, cells = -1;
    for (size_t i = 0; i < expected.size(); ++i) {
      if (expected[i] == 0) {
        CHECK_EQ(counts[i], 0.0);
        continue;
      }
      const double wanted = expected[i] / sum * draws;
      chi += (counts[i] - wanted) * (counts[i] - wanted) / wanted;
      cells += 1;
    }
    // Mean `cells`, variance 2 cells: five standard deviations.
    CHECK_LE(chi, cells + 5 * std::sqrt(2 * cells));
    CHECK(chi > cells - 5 * std::sqrt(2 * cells));
    CHECK_NEAR(drawn.log_kept_mass[0], std::log(sum) - batch.log_normalizer[0], 1e-5);
  }
}

TEST("sample_token draws the same bits with the head's tile sums and without, and unfiltered rows keep all mass") {
  const int32_t vocabulary = 1500, tiles = 6;
  Batch batch{vocabulary, {}, {}, {}, {}};
  for (uint32_t row = 0; row < 8; ++row) {
    batch.add(random_row(vocabulary, row, 6.0), options_of(row < 4 ? 0 : 30, row < 4 ? 1.0f : 0.9f, 0, row));
  }
  for (Isa isa : isas()) {
    TestContext context(1, isa);
    std::vector<float> sums;
    for (int32_t item = 0; item < batch.rows() * tiles; ++item) {
      const int32_t begin = item % tiles * 256, count = std::min(256, vocabulary - begin);
      const GuardedArray<float> tile(256);
      const float* logits = batch.logits.data() + item / tiles * vocabulary + begin;
      std::copy(logits, logits + count, tile.data());
      const cpu::TileSums one = cpu::head_tile_sums(isa, tile, count, 1.0f, false);
      sums.push_back(one.max);
      sums.push_back(one.sum);
    }
    for (bool bans : {false, true}) {
      batch.banned = bans ? std::vector<int32_t>{300, 1499} : std::vector<int32_t>{};
      const Drawn with = run(cpu::sample_token_forward, context, batch, sums.data());
      const Drawn without = run(cpu::sample_token_forward, context, batch);
      CHECK(same_bits(with.tokens, without.tokens));
      CHECK(same_bits(with.log_kept_mass, without.log_kept_mass));
      for (int64_t row = 0; row < 4 && !bans; ++row) CHECK_EQ(with.log_kept_mass[row], 0.0f);
    }
  }
}

}  // namespace gavel::test
