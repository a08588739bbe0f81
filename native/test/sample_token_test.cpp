#include "cpu/head_tile.h"
#include "cpu/kernels.h"
#include "cpu/sample_filter.h"
#include "reference/kernels.h"
#include "test/golden_file.h"
#include "test/op_test.h"

namespace gavel::test {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Batch {
  int32_t vocabulary;
  std::vector<float> logits;
  std::vector<float> log_normalizer;
  std::vector<SampleOptions> options;
  std::vector<int32_t> banned;

  int32_t rows() const { return static_cast<int32_t>(options.size()); }
  void add(const std::vector<float>& row, const SampleOptions& one) {
    double largest = -1e300, sum = 0;
    for (float value : row) largest = std::max<double>(largest, value);
    for (float value : row) sum += std::exp(value - largest);
    logits.insert(logits.end(), row.begin(), row.end());
    log_normalizer.push_back(static_cast<float>(largest + std::log(sum)));
    options.push_back(one);
  }
};

struct Drawn {
  GuardedArray<int32_t> tokens;
  GuardedArray<float> logprob, log_kept_mass;
};

Drawn run(void (*forward)(Context&, const SampleToken&), Context& context, const Batch& batch,
          const float* tile_sums = nullptr) {
  Drawn result{GuardedArray<int32_t>(batch.rows()), GuardedArray<float>(batch.rows()),
               GuardedArray<float>(batch.rows())};
  const GuardedArray<float> logits(batch.logits);
  SampleToken p;
  p.num_rows = batch.rows();
  p.vocabulary = batch.vocabulary;
  p.logits = logits;
  p.log_normalizer = batch.log_normalizer.data();
  p.tile_sums = tile_sums;
  p.options = batch.options.data();
  p.banned = batch.banned.data();
  p.num_banned = static_cast<int32_t>(batch.banned.size());
  p.tokens = result.tokens;
  p.logprob = result.logprob;
  p.log_kept_mass = result.log_kept_mass;
  forward(context, p);
  return result;
}

SampleOptions options_of(int32_t top_k, float top_p, float min_p, uint32_t position = 0, bool greedy = false) {
  SampleOptions options;
  options.key = {17, 3, 1, position};
  options.top_k = top_k;
  options.top_p = top_p;
  options.min_p = min_p;
  options.greedy = greedy;
  return options;
}

std::vector<float> random_row(int32_t vocabulary, uint64_t seed, double scale) {
  const std::vector<double> values = random_values(vocabulary, seed, scale);
  return {values.begin(), values.end()};
}

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

TEST("sample_token draws what the reference draws, with every filter, ban and path") {
  for (int32_t vocabulary : {1, 2, 48, 255, 256, 257, 1000, 5003}) {
    Batch batch{vocabulary, {}, {}, {}, {}};
    uint32_t position = 0;
    for (double scale : {0.0, 0.3, 4.0, 20.0}) {
      for (const auto& [top_k, top_p, min_p] : {std::tuple{0, 1.0f, 0.0f},
                                                {5, 1.0f, 0.0f},
                                                {0, 0.9f, 0.0f},
                                                {0, 0.2f, 0.0f},
                                                {0, 1.0f, 0.05f},
                                                {40, 0.95f, 0.01f},
                                                {700, 0.8f, 0.0f},
                                                {0, 0.7f, 0.1f}}) {
        for (bool greedy : {false, true}) {
          ++position;
          batch.add(random_row(vocabulary, position, scale), options_of(top_k, top_p, min_p, position, greedy));
        }
      }
    }
    for (bool bans : {false, true}) {
      if (bans && vocabulary < 48) continue;
      batch.banned = bans ? std::vector<int32_t>{0, 3, 17, 40, vocabulary - 1} : std::vector<int32_t>{};
      TestContext plain(1, Isa::generic);
      const Drawn expected = run(reference::sample_token_forward, plain, batch),
                  first = run(cpu::sample_token_forward, plain, batch);
      CHECK_MAX_ABS(first.log_kept_mass.doubles(), expected.log_kept_mass.doubles(), 2e-5);
      int32_t different = 0;
      for (int64_t row = 0; row < batch.rows(); ++row) {
        different += first.tokens[row] != expected.tokens[row] ? 1 : 0;
        CHECK(first.tokens[row] >= 0 && first.tokens[row] < vocabulary);
        CHECK(std::find(batch.banned.begin(), batch.banned.end(), first.tokens[row]) == batch.banned.end());
        CHECK_EQ(first.logprob[row], batch.logits[static_cast<size_t>(row * vocabulary + first.tokens[row])] -
                                         batch.log_normalizer[static_cast<size_t>(row)]);
      }
      // A uniform number within rounding of a token's edge would go either way; none does in this data.
      CHECK_EQ(different, 0);
      for (Isa isa : isas()) {
        for (int threads : {1, 2}) {
          TestContext context(threads, isa);
          const Drawn other = run(cpu::sample_token_forward, context, batch);
          CHECK(same_bits(first.tokens, other.tokens));
          CHECK(same_bits(first.logprob, other.logprob));
          CHECK(same_bits(first.log_kept_mass, other.log_kept_mass));
        }
      }
    }
  }
}

TEST("sample_token draws a row alike alone and in any batch") {
  const int32_t vocabulary = 3001;
  Batch batch{vocabulary, {}, {}, {}, {5, 900}};
  for (uint32_t row = 0; row < 12; ++row)
    batch.add(random_row(vocabulary, row, 5.0), options_of(row % 2 == 0 ? 0 : 50, row % 3 == 0 ? 1.0f : 0.9f, 0, row));
  TestContext context(2);
  const Drawn all = run(cpu::sample_token_forward, context, batch);
  for (uint32_t row = 0; row < 12; ++row) {
    Batch alone{vocabulary, {}, {}, {}, {5, 900}};
    alone.add({batch.logits.begin() + row * vocabulary, batch.logits.begin() + (row + 1) * vocabulary},
              batch.options[row]);
    const Drawn one = run(cpu::sample_token_forward, context, alone);
    CHECK_EQ(one.tokens[0], all.tokens[row]);
    CHECK_EQ(one.log_kept_mass[0], all.log_kept_mass[row]);
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

TEST("sample_token reports rows it cannot draw from and draws their neighbours") {
  for (int32_t vocabulary : {30, 700}) {
    for (bool greedy : {false, true}) {
      for (const auto& [top_k, top_p] : {std::pair{0, 1.0f}, {5, 1.0f}, {0, 0.9f}}) {
        Batch batch{vocabulary, {}, {}, {}, {2}};
        const std::vector<float> good = random_row(vocabulary, 1, 3.0);
        std::vector<float> nan = good, infinite = good, one_left(good.size(), -kInfinity), all_nan(good.size(), kNaN);
        nan[static_cast<size_t>(vocabulary - 2)] = kNaN;
        infinite[7] = kInfinity;
        const std::vector<float> none = one_left;
        one_left[11] = 2.0f;
        for (const std::vector<float>& row : {good, nan, infinite, all_nan, none, one_left, good})
          batch.add(row, options_of(top_k, top_p, 0, 4, greedy));
        for (float& value : batch.log_normalizer)
          value = batch.log_normalizer[0];  // even a finite normaliser must not hide it
        for (Isa isa : isas()) {
          TestContext context(2, isa);
          const Drawn drawn = run(cpu::sample_token_forward, context, batch);
          for (int row : {1, 2, 3, 4}) {
            CHECK_EQ(drawn.tokens[row], -1);
            CHECK(drawn.logprob[row] != drawn.logprob[row]);
            CHECK(drawn.log_kept_mass[row] != drawn.log_kept_mass[row]);
          }
          CHECK_EQ(drawn.tokens[5], 11);
          CHECK(drawn.tokens[0] >= 0 && drawn.tokens[0] == drawn.tokens[6]);
          batch.log_normalizer[0] = kNaN;
          CHECK_EQ(run(cpu::sample_token_forward, context, batch).tokens[0], -1);
          batch.log_normalizer[0] = batch.log_normalizer[1];
        }
      }
    }
  }
}

TEST("sample_token greedy takes the lowest id of equal logits and skips bans") {
  Batch batch{600, {}, {}, {}, {300}};
  std::vector<float> row(600, 0.0f);
  row[300] = 9;
  row[310] = row[450] = 7;
  batch.add(row, options_of(0, 1, 0, 0, true));
  for (Isa isa : isas()) {
    TestContext context(1, isa);
    CHECK_EQ(run(cpu::sample_token_forward, context, batch).tokens[0], 310);
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
