#include "model/prompt_cache.h"

#include <unistd.h>

#include <cstring>
#include <utility>

#include "core/memory.h"

namespace gavel {
namespace {

// Memory that stays free beside what is kept, in times of an entry.
constexpr size_t kMargin = 4;

enum class Kind : uint64_t { features = 1, prompt };

uint64_t folded(uint64_t a, uint64_t b) {
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

// Two independent chains of folded products (as wyhash, Wang Yi 2019), keyed.
class Hash {
 public:
  explicit Hash(const uint64_t* secret, Kind kind) : secret_(secret) { add(static_cast<uint64_t>(kind)); }

  void add(uint64_t value) { mix(value, ~value); }
  void add(const ContentKey& key) { mix(key.first, key.second); }
  void add(const void* data, size_t bytes) {
    add(bytes);
    const auto* at = static_cast<const uint8_t*>(data);
    uint64_t words[2];
    for (; bytes >= sizeof words; at += sizeof words, bytes -= sizeof words) {
      std::memcpy(words, at, sizeof words);
      mix(words[0], words[1]);
    }
    words[0] = words[1] = 0;
    if (bytes > 0) std::memcpy(words, at, bytes);
    mix(words[0], words[1]);
  }
  ContentKey key() const { return {folded(a_ ^ secret_[0], secret_[1]), folded(b_ ^ secret_[2], secret_[3])}; }

 private:
  void mix(uint64_t x, uint64_t y) {
    a_ = folded(a_ ^ x ^ secret_[0], y ^ secret_[1]) + y;
    b_ = folded(b_ ^ y ^ secret_[2], x ^ secret_[3]) + x;
  }
  const uint64_t* secret_;
  uint64_t a_ = 0, b_ = 0;
};

}  // namespace

PromptCache::PromptCache() {
  const uint64_t odd[4] = {0xA0761D6478BD642Fu, 0xE7037ED1A0B428DBu, 0x8EBC6AF09C88C6E3u, 0x589965CC75374CC3u};
  uint64_t random[4] = {};
  // Without entropy the constants alone remain: keys are then foreseeable, not weaker against chance.
  if (getentropy(random, sizeof random) != 0) std::memset(random, 0, sizeof random);
  for (int i = 0; i < 4; ++i) secret_[i] = odd[i] ^ random[i];
}

void PromptCache::set_budget(size_t bytes) {
  budget_ = bytes;
  if (bytes_ > budget_) drop_all();
}

PromptCache::Entry* PromptCache::find(const ContentKey& key) {
  const auto found = entries_.find(key);
  if (found == entries_.end()) return nullptr;
  found->second.used = call_;
  return &found->second;
}

std::shared_ptr<const KeptFeatures> PromptCache::features(const ContentKey& key) {
  const Entry* entry = find(key);
  return entry == nullptr ? nullptr : entry->features;
}

std::shared_ptr<const KeptPrompt> PromptCache::prompt(const ContentKey& key) {
  const Entry* entry = find(key);
  return entry == nullptr ? nullptr : entry->prompt;
}

bool PromptCache::admits(size_t bytes) {
  if (bytes > budget_) return false;
  while (bytes_ + bytes > budget_) {
    auto oldest = entries_.end();
    for (auto it = entries_.begin(); it != entries_.end(); ++it) {
      if (it->second.used < call_ && (oldest == entries_.end() || it->second.used < oldest->second.used)) oldest = it;
    }
    if (oldest == entries_.end()) return false;
    bytes_ -= oldest->second.bytes;
    entries_.erase(oldest);
  }
  return available_memory() / kMargin >= bytes;
}

void PromptCache::keep(const ContentKey& key, std::shared_ptr<const KeptFeatures> features) {
  const size_t bytes = features->data.size();
  add(key, {std::move(features), nullptr, bytes, call_});
}

void PromptCache::keep(const ContentKey& key, std::shared_ptr<const KeptPrompt> prompt) {
  const size_t bytes = prompt->pages.size() + prompt->hidden.size();
  add(key, {nullptr, std::move(prompt), bytes, call_});
}

void PromptCache::add(const ContentKey& key, Entry entry) {
  const size_t bytes = entry.bytes;
  if (entries_.emplace(key, std::move(entry)).second) bytes_ += bytes;
  offer();
}

void PromptCache::drop_prompts() {
  std::erase_if(entries_, [&](const auto& one) {
    if (!one.second.prompt) return false;
    bytes_ -= one.second.bytes;
    return true;
  });
  if (entries_.empty()) withdraw();
}

void PromptCache::drop_all() {
  entries_.clear();
  bytes_ = 0;
  withdraw();
}

ContentKey PromptCache::key_of(const ImageInput& image, bool adapted) const {
  Hash hash(secret_, Kind::features);
  hash.add(adapted ? 1 : 0);
  hash.add(image.video ? 1 : 0);
  hash.add(image.grid.data(), sizeof image.grid);
  hash.add(image.size.data(), sizeof image.size);
  hash.add(&image.seconds_per_grid, sizeof image.seconds_per_grid);
  hash.add(image.pixels.data(), image.pixels.size() * sizeof(float));
  return hash.key();
}

ContentKey PromptCache::key_of(const std::vector<int32_t>& tokens, const std::vector<ContentKey>& images,
                               bool adapter_on) const {
  Hash hash(secret_, Kind::prompt);
  hash.add(adapter_on ? 1 : 0);
  hash.add(tokens.data(), tokens.size() * sizeof(int32_t));
  hash.add(images.size());
  for (const ContentKey& image : images) hash.add(image);
  return hash.key();
}

}  // namespace gavel
