// The instructions of cuda/ptx.cuh in plain code: the fragments of mma and ldmatrix as PTX's manual lays them out, and
// asynchronous copies that take place when they are waited for, and no earlier, or, in every other pair of blocks, at
// once: too early a read shows in the first, too late a reader of what they overwrite in the second.
#pragma once
#include <deque>
#include <vector>

#include "test/emulation/emulated_cuda.h"

namespace emulation {

struct Copy {
  void* to;
  const void* from;  // null: zeros
};

// Copies of one thread: those not committed yet, then committed groups in order.
struct CopyQueue {
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> groups;
  bool eager = false;

  void push(const Copy& copy) {
    if (eager) return run(copy);
    open.push_back(copy);
  }
  static void run(const Copy& copy) {
    if (copy.from == nullptr) {
      std::memset(copy.to, 0, 16);
    } else {
      std::memcpy(copy.to, copy.from, 16);
    }
  }

  void wait(size_t pending) {
    for (; groups.size() > pending; groups.pop_front()) {
      for (const Copy& copy : groups.front()) run(copy);
    }
  }
};

CopyQueue& copies();

inline float widen(uint32_t word, int half) { return __uint_as_float(half == 0 ? word << 16 : word & 0xffff0000u); }

struct MatrixWords {
  uint32_t a[4], b[2];
};

// d += a b, one chain over k ascending.
inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  MatrixWords words;
  std::memcpy(words.a, a, sizeof(a));
  std::memcpy(words.b, b, sizeof(b));
  const auto lanes = exchange(words);
  const int group = lane() / 4, pair = lane() % 4;
  for (int i = 0; i < 4; ++i) {
    const int row_half = i / 2, column = 2 * pair + i % 2;
    for (int k = 0; k < 16; ++k) {
      const int place = k % 8 / 2;
      const float left = widen(lanes[group * 4 + place].a[row_half + 2 * (k / 8)], k % 2);
      const float right = widen(lanes[column * 4 + place].b[k / 8], k % 2);
      d[i] = std::fmaf(left, right, d[i]);
    }
  }
}

template <bool kTransposed>
void ldmatrix_x4(uint32_t (&words)[4], const void* row) {
  const auto rows = exchange(static_cast<const uint16_t*>(row));
  const int group = lane() / 4, pair = lane() % 4;
  for (int matrix = 0; matrix < 4; ++matrix) {
    uint32_t low, high;
    if (kTransposed) {
      low = rows[matrix * 8 + 2 * pair][group];
      high = rows[matrix * 8 + 2 * pair + 1][group];
    } else {
      low = rows[matrix * 8 + group][2 * pair];
      high = rows[matrix * 8 + group][2 * pair + 1];
    }
    words[matrix] = low | high << 16;
  }
}

}  // namespace emulation
