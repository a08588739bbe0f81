// Storage types. Arithmetic is fp32 everywhere; bf16 values are rounded to nearest even, once, where an op says so.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>

namespace gavel {

enum class DType : uint8_t { f32, bf16, i32, u8 };

constexpr size_t dtype_size(DType dtype) {
  switch (dtype) {
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::bf16:
      return 2;
    case DType::u8:
      return 1;
  }
  return 0;
}

using bf16_t = uint16_t;

inline float bf16_to_float(bf16_t value) { return std::bit_cast<float>(static_cast<uint32_t>(value) << 16); }

// Round to nearest even; NaN stays NaN (quiet). Denormals are kept: the one rounding every path uses.
inline bf16_t float_to_bf16(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<bf16_t>((bits >> 16) | 0x40u);
  return static_cast<bf16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace gavel
