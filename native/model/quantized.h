// How numbers are stored in checkpoint files: plain, or in blocks with shared scales as ggml's GGUF files have them
// (the ggml project's documentation of its block formats). Decoding is exact: each number is the float that the format
// defines, one rounding an operation, whatever the thread's denormal mode.
#pragma once
#include <cstdint>

namespace gavel {

// In the order of the contract's dtype names.
enum class FileDType : uint8_t { f32, bf16, f16, u8, q8_0, q4_0, q4_1, q4_k, q6_k };

struct BlockSize {
  int64_t elements, bytes;
};
// Plain dtypes are blocks of one element.
BlockSize block_size(FileDType dtype);

// Decodes `count` elements, a whole number of blocks, little-endian. No alignment is asked for.
void decode_elements(const uint8_t* bytes, int64_t count, FileDType dtype, float* out);

}  // namespace gavel
