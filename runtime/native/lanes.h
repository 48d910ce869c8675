// Sixteen bytes of values at once, in the vector types of GCC and Clang, which become SSE,
// NEON or plain code.

#ifndef DEEPLAB2_EDGE_LANES_H_
#define DEEPLAB2_EDGE_LANES_H_

#include <stdint.h>

#include <algorithm>
#include <cstring>

namespace dle {

template <int kBytes>
struct Integer;
template <>
struct Integer<1> {
  typedef int8_t Type;
};
template <>
struct Integer<2> {
  typedef int16_t Type;
};
template <>
struct Integer<4> {
  typedef int32_t Type;
};

template <typename T>
struct Lanes {
  static constexpr int32_t kCount = 16 / sizeof(T);
  typedef T Values __attribute__((vector_size(16)));
  typedef typename Integer<sizeof(T)>::Type Flag;  // -1 or 0
  typedef Flag Mask __attribute__((vector_size(16)));

  static Values Load(const T* from) {
    Values values;
    std::memcpy(&values, from, sizeof(values));
    return values;
  }

  static Values All(T value) { return value - Values{}; }

  // True in the first lanes.
  static Mask First(int32_t count) {
    static const struct Steps {
      Flag flags[2 * kCount];
      Steps() {
        for (int32_t i = 0; i < 2 * kCount; ++i) flags[i] = i < kCount ? -1 : 0;
      }
    } steps;
    Mask mask;
    std::memcpy(&mask, steps.flags + kCount - std::min(std::max(count, 0), kCount),
                sizeof(mask));
    return mask;
  }
};

template <typename Mask>
inline bool Any(Mask mask) {
  uint64_t halves[2];
  std::memcpy(halves, &mask, sizeof(halves));
  return (halves[0] | halves[1]) != 0;
}

}  // namespace dle

#endif  // DEEPLAB2_EDGE_LANES_H_
