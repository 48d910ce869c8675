// Sixteen bytes of values at once, in the vector types of GCC and Clang, which become SSE,
// NEON or plain code. Each step of floats rounds as that of one value does.

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

typedef float Floats4 __attribute__((vector_size(16)));
typedef int32_t Ints4 __attribute__((vector_size(16)));

inline Floats4 Load4(const float* from) {
  Floats4 values;
  std::memcpy(&values, from, sizeof(values));
  return values;
}

inline void Store4(Floats4 values, float* to) { std::memcpy(to, &values, sizeof(values)); }

inline Floats4 All4(float value) { return Floats4{value, value, value, value}; }

inline Floats4 Select(Ints4 is_first, Floats4 first, Floats4 second) {
  return (Floats4)((is_first & (Ints4)first) | (~is_first & (Ints4)second));
}

inline Ints4 Select(Ints4 is_first, Ints4 first, Ints4 second) {
  return (is_first & first) | (~is_first & second);
}

inline Floats4 Max(Floats4 a, Floats4 b) { return a > b ? a : b; }
inline Floats4 Min(Floats4 a, Floats4 b) { return a < b ? a : b; }
inline Floats4 Lerp(Floats4 a, Floats4 b, Floats4 weight) { return (b - a) * weight + a; }

// Computes e to the power of values of at most 0, within 2 units in the last place; those
// below -87 count as -87. Polynomial of Cephes' expf.
inline Floats4 Exp(Floats4 x) {
  x = Max(x, All4(-87.0f));
  const Floats4 to_integer = All4(12582912.0f);  // 1.5 * 2^23: no bits for fractions
  const Floats4 shifted = x * All4(1.44269504f) + to_integer;
  const Floats4 n = shifted - to_integer;
  const Floats4 r = (x - n * All4(0.693359375f)) + n * All4(2.12194440e-4f);
  Floats4 p = All4(1.9875691500e-4f);
  p = p * r + All4(1.3981999507e-3f);
  p = p * r + All4(8.3334519073e-3f);
  p = p * r + All4(4.1665795894e-2f);
  p = p * r + All4(1.6666665459e-1f);
  p = p * r + All4(5.0000001201e-1f);
  p = p * (r * r) + r + All4(1.0f);
  const Ints4 power = ((Ints4)shifted - (Ints4)to_integer + 127) << 23;
  return p * (Floats4)power;
}

}  // namespace dle

#endif  // DEEPLAB2_EDGE_LANES_H_
