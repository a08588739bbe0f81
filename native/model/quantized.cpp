#include "model/quantized.h"

#include <bit>
#include <cstring>

#include "core/context.h"
#include "core/dtype.h"
#include "cpu/vector_math.h"

namespace gavel {
namespace {

constexpr int64_t kBlock = 32, kSuperBlock = 256;

uint16_t load_u16(const uint8_t* bytes) {
  uint16_t value;
  std::memcpy(&value, bytes, 2);
  return value;
}

// The computing threads flush denormals; a half's denormals are normal floats. NaN becomes quiet.
float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t rest = half & 0x7fffu;
  const uint32_t normal = (rest << 13) + (112u << 23);
  const uint32_t special = (rest >= 0x7c00u ? 112u << 23 : 0u) | (rest > 0x7c00u ? 1u << 22 : 0u);
  // 2^-14 (1 + f) - 2^-14 is exact and no operand of it is denormal.
  const float small = std::bit_cast<float>((rest << 13) + (113u << 23)) - std::bit_cast<float>(113u << 23);
  const uint32_t bits =
      rest < 0x400u ? std::bit_cast<uint32_t>(small) : (normal + (special & 0x7f800000u)) | (special & 0x400000u);
  return std::bit_cast<float>(sign | bits);
}

#if defined(__x86_64__)
// The conversion instruction knows no denormal mode.
GAVEL_TARGET_AVX512 void decode_halves_wide(const uint8_t* bytes, int64_t count, float* out) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    _mm512_storeu_ps(out + i, _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes + 2 * i))));
  }
  for (; i < count; ++i) out[i] = half_to_float(load_u16(bytes + 2 * i));
}
#endif

void decode_halves(const uint8_t* bytes, int64_t count, float* out) {
#if defined(__x86_64__)
  static const bool wide = has_avx512(detect_isa());
  if (wide) return decode_halves_wide(bytes, count, out);
#endif
  for (int64_t i = 0; i < count; ++i) out[i] = half_to_float(load_u16(bytes + 2 * i));
}

// A block of 32: scale, then signed bytes.
void decode_q8_0(const uint8_t* block, float* out) {
  const float scale = half_to_float(load_u16(block));
  for (int64_t i = 0; i < kBlock; ++i) out[i] = scale * static_cast<float>(static_cast<int8_t>(block[2 + i]));
}

// 16 bytes hold 32 numbers of 4 bits: the low halves are the first 16.
void decode_q4_0(const uint8_t* block, float* out) {
  const float scale = half_to_float(load_u16(block));
  const uint8_t* nibbles = block + 2;
  for (int64_t i = 0; i < kBlock / 2; ++i) {
    out[i] = scale * static_cast<float>((nibbles[i] & 15) - 8);
    out[i + kBlock / 2] = scale * static_cast<float>((nibbles[i] >> 4) - 8);
  }
}

void decode_q4_1(const uint8_t* block, float* out) {
  const float scale = half_to_float(load_u16(block)), low = half_to_float(load_u16(block + 2));
  const uint8_t* nibbles = block + 4;
  for (int64_t i = 0; i < kBlock / 2; ++i) {
    out[i] = scale * static_cast<float>(nibbles[i] & 15) + low;
    out[i + kBlock / 2] = scale * static_cast<float>(nibbles[i] >> 4) + low;
  }
}

// 256 numbers in 8 groups, each with a scale and a minimum of 6 bits: four bytes of scales, four of minima, and four
// that hold the low halves of the last four of both, whose top two bits lie above the first four.
void decode_q4_k(const uint8_t* block, float* out) {
  const float scale = half_to_float(load_u16(block)), low = half_to_float(load_u16(block + 2));
  const uint8_t *packed = block + 4, *nibbles = block + 16;
  for (int group = 0; group < 8; ++group) {
    int steps = packed[group % 4] & 63, minimum = packed[4 + group % 4] & 63;
    if (group >= 4) {
      steps = (packed[4 + group] & 15) | (packed[group - 4] >> 6 << 4);
      minimum = (packed[4 + group] >> 4) | (packed[group] >> 6 << 4);
    }
    const float d = scale * static_cast<float>(steps), m = low * static_cast<float>(minimum);
    const uint8_t* bytes = nibbles + group / 2 * 32;
    const int shift = group % 2 * 4;
    for (int i = 0; i < 32; ++i) out[group * 32 + i] = d * static_cast<float>((bytes[i] >> shift) & 15) - m;
  }
}

// 256 numbers of 6 bits: 128 bytes of low halves, 64 of upper pairs, 16 signed scales, one scale above them.
void decode_q6_k(const uint8_t* block, float* out) {
  const float scale = half_to_float(load_u16(block + 208));
  const auto* steps = reinterpret_cast<const int8_t*>(block + 192);
  for (int half = 0; half < 2; ++half) {
    const uint8_t *low = block + half * 64, *high = block + 128 + half * 32;
    for (int quarter = 0; quarter < 4; ++quarter) {
      for (int i = 0; i < 32; ++i) {
        const int four = (low[quarter % 2 * 32 + i] >> (quarter / 2 * 4)) & 15;
        const int two = (high[i] >> (quarter * 2)) & 3;
        const float d = scale * static_cast<float>(steps[half * 8 + quarter * 2 + i / 16]);
        out[half * 128 + quarter * 32 + i] = d * static_cast<float>((four | two << 4) - 32);
      }
    }
  }
}

template <auto decode>
void decode_blocks(const uint8_t* bytes, int64_t count, BlockSize size, float* out) {
  for (int64_t i = 0; i < count; i += size.elements, bytes += size.bytes) decode(bytes, out + i);
}

}  // namespace

BlockSize block_size(FileDType dtype) {
  switch (dtype) {
    case FileDType::f32:
      return {1, 4};
    case FileDType::bf16:
    case FileDType::f16:
      return {1, 2};
    case FileDType::u8:
      return {1, 1};
    case FileDType::q8_0:
      return {kBlock, 34};
    case FileDType::q4_0:
      return {kBlock, 18};
    case FileDType::q4_1:
      return {kBlock, 20};
    case FileDType::q4_k:
      return {kSuperBlock, 144};
    case FileDType::q6_k:
      return {kSuperBlock, 210};
  }
  return {1, 4};
}

void decode_elements(const uint8_t* bytes, int64_t count, FileDType dtype, float* out) {
  const BlockSize size = block_size(dtype);
  switch (dtype) {
    case FileDType::f32:
      std::memcpy(out, bytes, static_cast<size_t>(count) * 4);
      return;
    case FileDType::bf16:
      for (int64_t i = 0; i < count; ++i) out[i] = bf16_to_float(load_u16(bytes + 2 * i));
      return;
    case FileDType::f16:
      return decode_halves(bytes, count, out);
    case FileDType::u8:
      for (int64_t i = 0; i < count; ++i) out[i] = bytes[i];
      return;
    case FileDType::q8_0:
      return decode_blocks<decode_q8_0>(bytes, count, size, out);
    case FileDType::q4_0:
      return decode_blocks<decode_q4_0>(bytes, count, size, out);
    case FileDType::q4_1:
      return decode_blocks<decode_q4_1>(bytes, count, size, out);
    case FileDType::q4_k:
      return decode_blocks<decode_q4_k>(bytes, count, size, out);
    case FileDType::q6_k:
      return decode_blocks<decode_q6_k>(bytes, count, size, out);
  }
}

}  // namespace gavel
