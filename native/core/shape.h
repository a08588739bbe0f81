// Shapes of up to four dimensions. Letters used in comments throughout:
//   T rows of a pack (tokens or patches)   H hidden size   F intermediate size   V vocabulary   L layers
//   D head size   Q query heads   K key-value heads (or the inner dimension of a matrix)   N outputs of a matrix
//   G group size   P prompt tokens   C completion tokens   R rows that carry a target
#pragma once
#include <array>
#include <cstdint>
#include <initializer_list>

namespace gavel {

struct Shape {
  std::array<int64_t, 4> dims{1, 1, 1, 1};
  int32_t rank = 0;

  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes) {
    for (int64_t size : sizes) dims[static_cast<size_t>(rank++)] = size;
  }
  int64_t operator[](int32_t axis) const { return dims[static_cast<size_t>(axis)]; }
  int64_t count() const {
    int64_t total = 1;
    for (int32_t axis = 0; axis < rank; ++axis) total *= dims[static_cast<size_t>(axis)];
    return total;
  }
  bool operator==(const Shape& other) const = default;
};

}  // namespace gavel
