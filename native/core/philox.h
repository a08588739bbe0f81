// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11). Counter-based: every draw is a
// pure function of (seed, item, sample, position), so order, batch and thread never matter.
#pragma once
#include <array>
#include <cstdint>

namespace gavel {

constexpr std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t low = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t high = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(high >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(high),
               static_cast<uint32_t>(low >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(low)};
    key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};
  }
  return counter;
}

// The four coordinates of a random number.
struct RandomKey {
  uint64_t seed = 0;
  uint64_t item = 0;
  uint32_t sample = 0;
  uint32_t position = 0;
};

constexpr std::array<uint32_t, 4> random_bits(const RandomKey& key) {
  return philox({key.position, key.sample, static_cast<uint32_t>(key.item), static_cast<uint32_t>(key.item >> 32)},
                {static_cast<uint32_t>(key.seed), static_cast<uint32_t>(key.seed >> 32)});
}

// Uniform in [0, 1) on the grid of 2^-24.
constexpr float random_uniform(const RandomKey& key) { return static_cast<float>(random_bits(key)[0] >> 8) * 0x1p-24f; }

}  // namespace gavel
