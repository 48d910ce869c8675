// Four canvas pixels at a time: where they vote, and their labels.

#ifndef DEEPLAB2_EDGE_VOTES_H_
#define DEEPLAB2_EDGE_VOTES_H_

#include <stddef.h>
#include <stdint.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "frame.h"
#include "lanes.h"

namespace dle {

// The votes of the pixels of a cell, four at a time.
class CellVotes {
 public:
  CellVotes(const Frame& frame, int32_t row, int32_t cell)
      : across_(frame.columns.weight.data()),
        down_(frame.rows.weight.data()),
        first_(frame.settings->votes_from),
        from_(All4(static_cast<float>(first_))) {
    const size_t width = static_cast<size_t>(frame.head_width());
    const size_t above = row * width;
    const size_t below = std::min(row + 1, frame.head_height() - 1) * width;
    const size_t next = std::min(cell + 1, frame.head_width() - 1);
    const std::vector<float> &dy = frame.dy, &dx = frame.dx;
    above_ = Floats4{dy[above + cell], dy[above + next], dx[above + cell], dx[above + next]};
    below_ = Floats4{dy[below + cell], dy[below + next], dx[below + cell], dx[below + next]};
  }

  void GoTo(int32_t y) {
    const Floats4 sides = Lerp(above_, below_, All4(down_[y]));
    y_ = All4(static_cast<float>(y));
    left_dy_ = All4(sides[0]);
    right_dy_ = All4(sides[1]);
    left_dx_ = All4(sides[2]);
    right_dx_ = All4(sides[3]);
  }

  // Gives y and x.
  std::pair<Floats4, Floats4> At(int32_t x) const {
    const Floats4 across = Load4(across_ + x);
    const Floats4 place = All4(static_cast<float>(x + first_)) + Floats4{0, 1, 2, 3};
    return {y_ + Lerp(left_dy_, right_dy_, across),
            place + (Lerp(left_dx_, right_dx_, across) - from_)};
  }

 private:
  const float* const across_;
  const float* const down_;
  const int32_t first_;
  const Floats4 from_;
  Floats4 above_, below_;  // dy on the left and on the right, then dx
  Floats4 y_, left_dy_, right_dy_, left_dx_, right_dx_;
};

// Reads four labels of 32 bits, or as many as there are.
template <typename Label>
inline Ints4 LoadUpTo(int32_t count, const Label* from) {
  Ints4 labels;
  if (count >= 4) {
    std::memcpy(&labels, from, sizeof(labels));
    return labels;
  }
  labels = Ints4{};
  for (int32_t i = 0; i < count; ++i) labels[i] = static_cast<int32_t>(from[i]);
  return labels;
}

template <typename Label>
inline void StoreUpTo(int32_t count, Ints4 labels, Label* to) {
  if (count >= 4) {
    std::memcpy(to, &labels, sizeof(labels));
    return;
  }
  for (int32_t i = 0; i < count; ++i) to[i] = static_cast<Label>(labels[i]);
}

}  // namespace dle

#endif  // DEEPLAB2_EDGE_VOTES_H_
