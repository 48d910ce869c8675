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
    Mask mask = {};
    for (int32_t i = 0; i < std::min(count, kCount); ++i) mask[i] = -1;
    return mask;
  }

  // Gives how many flags were subtracted from a sum of masks, modulo 256 if they are
  // bytes.
  static uint32_t Count(Mask sum) {
    uint64_t halves[2];
    std::memcpy(halves, &sum, sizeof(halves));
    const uint64_t both = halves[0] + halves[1];
    if (sizeof(T) == 4) return static_cast<uint32_t>(both) + static_cast<uint32_t>(both >> 32);
    if (sizeof(T) == 2) return static_cast<uint32_t>((both * 0x0001000100010001u) >> 48);
    return static_cast<uint32_t>((both * 0x0101010101010101u) >> 56);
  }
};

// True in the first of four lanes.
inline Lanes<int32_t>::Mask FirstOfFour(int32_t count) {
  static constexpr int32_t kSteps[] = {-1, -1, -1, -1, 0, 0, 0, 0};
  return Lanes<int32_t>::Load(kSteps + 4 - std::min(count, 4));
}

template <typename Mask>
inline bool Any(Mask mask) {
#if defined(__SSE2__)
  typedef char Bytes __attribute__((vector_size(16)));
  return __builtin_ia32_pmovmskb128((Bytes)mask) != 0;
#else
  uint64_t halves[2];
  std::memcpy(halves, &mask, sizeof(halves));
  return (halves[0] | halves[1]) != 0;
#endif
}

}  // namespace dle

#endif  // DEEPLAB2_EDGE_LANES_H_
