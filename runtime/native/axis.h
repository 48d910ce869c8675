// Positions of resizing with aligned corners, in the float32 steps of
// deeplab2_edge.panoptic.resize.

#ifndef DEEPLAB2_EDGE_AXIS_H_
#define DEEPLAB2_EDGE_AXIS_H_

#include <stdint.h>

#include <algorithm>
#include <vector>

namespace dle {

// Where each output pixel of an axis lies between source pixels.
struct Axis {
  std::vector<int32_t> lower;
  std::vector<int32_t> upper;
  std::vector<float> weight;

  Axis(int32_t n_in, int32_t n_out) : lower(n_out), upper(n_out), weight(n_out) {
    const float scale =
        static_cast<float>(n_in - 1) / static_cast<float>(std::max(n_out - 1, 1));
    for (int32_t i = 0; i < n_out; ++i) {
      const float position = static_cast<float>(i) * scale;
      lower[i] = std::min(static_cast<int32_t>(position), n_in - 1);
      upper[i] = std::min(lower[i] + 1, n_in - 1);
      weight[i] = position - static_cast<float>(lower[i]);
    }
  }
};

inline float Lerp(float a, float b, float weight) { return (b - a) * weight + a; }

}  // namespace dle

#endif  // DEEPLAB2_EDGE_AXIS_H_
