// What forward passes leave for later ones on the same weights: features of pictures, and keys, values and hidden rows
// of prompts. Found by content, bounded in bytes, the longest unused first to go. A row's bits depend on what it is
// computed from alone (docs/exactness.md), so an entry equals what would be computed again. Job thread only.
#pragma once
#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "core/spare_memory.h"
#include "model/architecture.h"

namespace gavel {

// 128 bits of what an entry was computed from, under a key of this process.
struct ContentKey {
  uint64_t first = 0, second = 0;
  auto operator<=>(const ContentKey&) const = default;
};

// Of a prompt: pages of keys and values, and the hidden rows that others read.
struct KeptPrompt {
  int32_t length = 0, next_position = 0, reward_tokens = 0;
  int64_t layer_bytes = 0, page_bytes = 0;
  std::vector<uint8_t> pages;   // [layers, pages, page]
  std::vector<uint8_t> hidden;  // [1 + reward_tokens, H]: the last row, then those of the reward tokens in their order
  const uint8_t* page(int32_t index) const { return pages.data() + index * page_bytes; }
};

class PromptCache final : public SpareMemory {
 public:
  PromptCache();

  // 0: nothing is kept.
  void set_budget(size_t bytes);
  size_t budget() const { return budget_; }
  size_t size_bytes() const { return bytes_; }

  // Entries used since are never put out for others of the same call: a set too large for the budget still gains what
  // fits.
  void begin_call() { ++call_; }
  std::shared_ptr<const KeptFeatures> features(const ContentKey& key);
  std::shared_ptr<const KeptPrompt> prompt(const ContentKey& key);
  // Whether so many bytes may be kept; makes the room.
  bool admits(size_t bytes);
  void keep(const ContentKey& key, std::shared_ptr<const KeptFeatures> features);
  void keep(const ContentKey& key, std::shared_ptr<const KeptPrompt> prompt);

  // Weights changed: the decoder's alone, or the tower's too.
  void drop_prompts();
  void drop_all();
  void give_back() override { drop_all(); }

  ContentKey key_of(const ImageInput& image, bool adapted) const;
  ContentKey key_of(const std::vector<int32_t>& tokens, const std::vector<ContentKey>& images, bool adapter_on) const;

 private:
  struct Entry {
    std::shared_ptr<const KeptFeatures> features;
    std::shared_ptr<const KeptPrompt> prompt;
    size_t bytes = 0;
    uint64_t used = 0;  // the call
  };
  void add(const ContentKey& key, Entry entry);
  Entry* find(const ContentKey& key);

  uint64_t secret_[4] = {};
  size_t budget_ = 0, bytes_ = 0;
  uint64_t call_ = 0;
  std::map<ContentKey, Entry> entries_;
};

}  // namespace gavel
