// Four float32 values at once, in the vector types of GCC and Clang, which become SSE,
// NEON or plain code. Each step rounds as that of one value does.

#ifndef DEEPLAB2_EDGE_FLOATS4_H_
#define DEEPLAB2_EDGE_FLOATS4_H_

#include <stdint.h>

#include <cstring>

namespace dle {

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

#endif  // DEEPLAB2_EDGE_FLOATS4_H_
