// Exactness: a row's out and lse have the same bits in a pack, decoded token by token over a paged store, and alone
// with the prompt's end anywhere; for any tiles and threads. For the TestDevice that the includer names.
#pragma once
#include <algorithm>
#include <random>

#include "test/attention_case.h"
#include "test/gemm_path.h"

namespace gavel::test {
namespace {

using Random = std::mt19937;

int32_t draw(Random& random, int32_t low, int32_t high) {
  return std::uniform_int_distribution<int32_t>(low, high)(random);
}

// Normal values with zeros of both signs, tiny and large ones among them.
std::vector<double> hard_values(Random& random, int64_t count, bool hard) {
  std::vector<double> values = random_values(count, random(), 2.0);
  if (!hard) return values;
  const double odd[] = {0.0, -0.0, 1e-20, -1e-20, 1e-38, 30.0, -30.0};
  for (double& value : values) {
    if (draw(random, 0, 7) == 0) value = odd[draw(random, 0, 6)];
  }
  return values;
}

std::vector<uint8_t> row_bytes(const GuardedTensor& tensor, int64_t row) {
  const size_t size = tensor.memory().size() / static_cast<size_t>(tensor.tensor().rows());
  const uint8_t* begin = tensor.memory().data() + static_cast<size_t>(row) * size;
  return {begin, begin + size};
}

// out and lse of one row, as bytes.
std::vector<uint8_t> result(const AttentionCase& one, int64_t row) {
  std::vector<uint8_t> bytes = row_bytes(one.out, row), lse = row_bytes(one.lse, row);
  bytes.insert(bytes.end(), lse.begin(), lse.end());
  return bytes;
}

// A group with its rows' qkv and what one pack gives for them.
struct World {
  Heads heads;
  DType dtype;
  bool amx;
  GroupShape shape;
  AttentionCase gold;

  World(Random& random, Heads heads_in, DType dtype_in, bool amx_in, GroupShape shape_in, bool hard)
      : heads(heads_in),
        dtype(dtype_in),
        amx(amx_in),
        shape(std::move(shape_in)),
        gold(plan_of({shape}), heads, dtype, 1) {
    gold.qkv.assign(hard_values(random, gold.rows() * heads.columns(), hard));
    PathContext context(1, {detect_isa(), amx});
    TestDevice::attention_forward(context, gold.p);
  }
  // A path whose rows have the bits of this world's.
  PathCase path(Random& random) const {
    return {
        amx ? detect_isa() : TestDevice::isas()[static_cast<size_t>(draw(random, 0, 9)) % TestDevice::isas().size()],
        amx};
  }
  int32_t completion_begin(size_t index) const {
    int32_t row = shape.prompt;
    for (size_t i = 0; i < index; ++i) row += shape.completions[i];
    return row;
  }
  void copy_row(int64_t from, const AttentionCase& to, int64_t row) const {
    const std::vector<uint8_t> bytes = row_bytes(gold.qkv, from);
    std::memcpy(to.qkv.memory().data() + static_cast<size_t>(row) * bytes.size(), bytes.data(), bytes.size());
  }
};

World random_world(Random& random) {
  const Heads choices[] = {{4, 2, 16}, {3, 1, 32}, {7, 1, 64}, {2, 2, 80}, {3, 3, 96}, {6, 2, 128}};
  GroupShape shape{draw(random, 0, 3) == 0 ? 64 * draw(random, 1, 3) : draw(random, 1, 200), {}};
  const int32_t completions = draw(random, 1, 4);
  for (int32_t i = 0; i < completions; ++i) shape.completions.push_back(draw(random, 1, 150));
  const DType dtype = draw(random, 0, 1) == 0 ? DType::f32 : DType::bf16;
  const bool amx = dtype == DType::bf16 && detect_amx() && draw(random, 0, 2) > 0;
  return World(random, choices[draw(random, 0, 5)], dtype, amx, shape, draw(random, 0, 1) == 1);
}

// The same pack with other tiles (across completions too, in any order), dirty store, threads and instruction set.
int64_t different_repacked(Random& random, const World& world) {
  AttentionCase other(plan_of({world.shape}, draw(random, 1, 50)), world.heads, world.dtype, 1);
  const int32_t full = world.shape.prompt / kKeyBlock;
  if (draw(random, 0, 1) == 0) {
    other.plan.tiles.clear();
    for (int32_t row = 0; row < other.rows();) {
      const int32_t count = std::min(draw(random, 1, 90), static_cast<int32_t>(other.rows()) - row);
      other.plan.tiles.push_back({row, count, 0, full});
      row += count;
    }
  }
  std::shuffle(other.plan.tiles.begin(), other.plan.tiles.end(), random);
  other.view = other.plan.view();
  for (int64_t row = 0; row < other.rows(); ++row) world.copy_row(row, other, row);
  PathContext context(draw(random, 1, 2), world.path(random));
  TestDevice::attention_forward(context, other.p);
  int64_t different = 0;
  for (int64_t row = 0; row < other.rows(); ++row) different += result(other, row) != result(world.gold, row);
  return different;
}

// Completion `index` alone, the first `boundary` rows called the prompt.
int64_t different_alone(Random& random, const World& world, size_t index) {
  const int32_t length = world.shape.completions[index], total = world.shape.prompt + length;
  const int32_t boundary = draw(random, 0, total - 1);
  AttentionCase alone(plan_of({{boundary, {total - boundary}}}, draw(random, 1, 40)), world.heads, world.dtype, 1);
  const auto row_of = [&](int32_t position) {
    return position < world.shape.prompt ? position : world.completion_begin(index) + position - world.shape.prompt;
  };
  for (int32_t i = 0; i < total; ++i) world.copy_row(row_of(i), alone, i);
  PathContext context(draw(random, 1, 2), world.path(random));
  TestDevice::attention_forward(context, alone.p);
  int64_t different = 0;
  for (int32_t i = 0; i < total; ++i) different += result(alone, i) != result(world.gold, row_of(i));
  return different;
}

// Prefill in chunks, then decode: each step takes some of the unfinished rows, in any order.
class Decoder {
 public:
  Decoder(Random& random, const World& world)
      : random_(random),
        world_(world),
        store_(kPages, world.heads, world.dtype),
        context_(draw(random, 1, 2), world.path(random)) {
    for (int32_t i = 0; i < kPages; ++i) free_.push_back(i);
    std::shuffle(free_.begin(), free_.end(), random_);
  }

  int64_t different() {
    const int32_t prompt = world_.shape.prompt;
    for (int32_t i = 0; i < prompt; i += kKeyBlock) prompt_pages_.push_back(take());
    for (int32_t done = 0; done < prompt;) {
      const int32_t count = std::min(draw(random_, 1, 100), prompt - done);
      PlanBuilder builder(count, draw(random_, 1, 40));
      builder.add_prefill({0, count}, prompt_pages_, done);
      std::vector<int32_t> rows;
      for (int32_t i = 0; i < count; ++i) rows.push_back(done + i);
      step(std::move(builder), rows);
      done += count;
    }
    const size_t completions = world_.shape.completions.size();
    own_.resize(completions);
    progress_.assign(completions, 0);
    for (;;) {
      std::vector<size_t> chosen;
      bool unfinished = false;
      for (size_t i = 0; i < completions; ++i) {
        if (progress_[i] == world_.shape.completions[i]) continue;
        unfinished = true;
        if (draw(random_, 0, 4) > 0) chosen.push_back(i);
      }
      if (!unfinished) return different_;
      std::shuffle(chosen.begin(), chosen.end(), random_);
      if (!chosen.empty()) decode(chosen);
    }
  }

 private:
  static constexpr int32_t kPages = 40;

  int32_t take() {
    const int32_t page = free_.back();
    free_.pop_back();
    return page;
  }

  void decode(const std::vector<size_t>& chosen) {
    const int32_t prompt = world_.shape.prompt, full = prompt / kKeyBlock;
    PlanBuilder builder(static_cast<int32_t>(chosen.size()), draw(random_, 1, 8));
    std::vector<int32_t> rows;
    for (size_t i : chosen) {
      if (progress_[i] == 0 && prompt % kKeyBlock != 0) {
        own_[i].push_back(take());
        builder.add_copy(prompt_pages_.back(), own_[i].back());
      }
      if ((prompt + progress_[i]) % kKeyBlock == 0) own_[i].push_back(take());
      rows.push_back(world_.completion_begin(i) + progress_[i]);
      ++progress_[i];
    }
    std::vector<DecodeRow> decode_rows;
    for (size_t i : chosen) decode_rows.push_back({own_[i], prompt + progress_[i]});
    builder.add_decode_rows(0, std::span(prompt_pages_).first(static_cast<size_t>(full)), decode_rows);
    step(std::move(builder), rows);
  }

  void step(PlanBuilder builder, const std::vector<int32_t>& rows) {
    AttentionCase one(std::move(builder).finish(), world_.heads, world_.dtype, 1);
    one.p.store = store_.view();
    for (size_t i = 0; i < rows.size(); ++i) world_.copy_row(rows[i], one, static_cast<int64_t>(i));
    TestDevice::attention_forward(context_, one.p);
    for (size_t i = 0; i < rows.size(); ++i) {
      different_ += result(one, static_cast<int64_t>(i)) != result(world_.gold, rows[i]);
    }
  }

  Random& random_;
  const World& world_;
  Store store_;
  PathContext context_;
  std::vector<int32_t> free_, prompt_pages_;
  std::vector<std::vector<int32_t>> own_;
  std::vector<int32_t> progress_;
  int64_t different_ = 0;
};

}  // namespace

TEST("attention bits: packed, repacked, alone at any prompt boundary and decoded rows are equal") {
  Random random(20240607);
  for (int round = 0; round < TestDevice::kRounds; ++round) {
    const World world = random_world(random);
    CHECK_EQ(different_repacked(random, world), 0);
    for (size_t i = 0; i < world.shape.completions.size(); ++i) CHECK_EQ(different_alone(random, world, i), 0);
    CHECK_EQ(Decoder(random, world).different(), 0);
  }
}

}  // namespace gavel::test
