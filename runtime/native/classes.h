// The class of every canvas pixel, without the logits of the canvas.
//
// Between four source pixels the difference of two interpolated classes is bilinear: what
// is larger at all four corners of a cell is larger everywhere in it. So a class that wins
// at all corners wins in the cell, and in the other cells only classes that do not lose
// to one class at all corners are interpolated.

#ifndef DEEPLAB2_EDGE_CLASSES_H_
#define DEEPLAB2_EDGE_CLASSES_H_

#include <stdint.h>

#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "frame.h"
#include "lanes.h"

namespace dle {

// The first of the largest values; not-a-number counts as the largest, as in NumPy.
template <typename T>
int32_t ArgMax(const T* values, int32_t count) {
  int32_t best = 0;
  T top = values[0];
  bool is_number = top == top;
  for (int32_t c = 1; c < count; ++c) {
    const bool is_better = values[c] > top;
    best = is_better ? c : best;
    top = is_better ? values[c] : top;
    is_number &= values[c] == values[c];
  }
  if (is_number) return best;
  best = 0;
  while (values[best] == values[best]) ++best;
  return best;
}

// Memory of one thread.
struct CellScratch {
  int32_t count = 0;             // of classes that can win in the cell
  std::vector<int32_t> classes;  // ascending
  std::vector<float> corners;    // [4, count]
  std::vector<float> left, difference;
  std::vector<uint8_t> can_win;  // a flag of the size of a value for each class

  void Resize(int32_t num_classes) {
    can_win.resize(4 * static_cast<size_t>(num_classes) + 16);
    classes.resize(num_classes + 1);
    corners.resize(4 * static_cast<size_t>(num_classes));
    left.resize(num_classes);
    difference.resize(num_classes);
  }
};

// A head of classes. `T` is the type of its values.
template <typename T>
class Classifier {
 public:
  explicit Classifier(const Frame& frame)
      : frame_(frame),
        values_(static_cast<const T*>(frame.logits.data)),
        count_(frame.num_classes()),
        size_(static_cast<size_t>(frame.head_height()) * frame.head_width() * count_),
        padded_count_((count_ + kLanes - 1) / kLanes * kLanes),
        last_(Lanes<T>::First(count_ - (padded_count_ - kLanes))) {}

  const T* At(int32_t y, int32_t x) const {
    return values_ + (static_cast<size_t>(y) * frame_.head_width() + x) * count_;
  }

  // Finds the best class of each source pixel of a row, and gives the largest magnitude
  // in it: infinity if there is a value that is not a number, 0 for integers.
  float FindWinners(int32_t row, uint16_t* winners) const {
    const int32_t width = frame_.head_width();
    const T* pixel = At(row, 0);
    int32_t winner = 0;
    Floats4 largest = {};
    float outside = 0.0f;
    for (int32_t x = 0; x < width; ++x, pixel += count_) {
      // Mostly that of the pixel before.
      if (!IsAlone(pixel, winner, &largest)) {
        winner = ArgMax(pixel, count_);
        if constexpr (kIsFloat) outside = std::max(outside, Magnitude(pixel));
      }
      winners[x] = static_cast<uint16_t>(winner);
    }
    return std::max(std::max(std::max(largest[0], largest[1]), largest[2]),
                    std::max(largest[3], outside));
  }

  // Takes the largest magnitude of all rows.
  //
  // Two interpolations round a value by less than 10 units (2^-24) of the largest
  // magnitude, so classes farther apart than 20 at all corners keep their order. Steps of
  // integers are at least 2^-17 of it apart, and need no margin.
  void SetLargest(float largest) {
    is_exact_ = largest < FLT_MAX / 64;
    margin_ = largest / (1 << 18) + FLT_MIN;
  }

  // Lists the classes that can win between four source pixels.
  void FindCandidates(const T* const* corners, const uint16_t* winners,
                      CellScratch* scratch) const {
    int32_t* const classes = scratch->classes.data();
    if (!is_exact_ || !CanReadLanes(corners[3])) {
      scratch->count = count_;
      for (int32_t c = 0; c < count_; ++c) classes[c] = c;
      return;
    }
    const int32_t low = std::min(std::min(winners[0], winners[1]),
                                 std::min(winners[2], winners[3]));
    const int32_t high = std::max(std::max(winners[0], winners[1]),
                                  std::max(winners[2], winners[3]));
    bool are_two = true;
    for (int k = 0; k < 4; ++k) are_two &= (winners[k] == low) | (winners[k] == high);
    classes[0] = low;
    classes[1] = high;
    scratch->count = 2;
    if (are_two) {
      if (AreAll<2>(corners, classes, scratch)) return;
    } else {
      const int32_t all[4] = {winners[0], winners[1], winners[2], winners[3]};
      AreAll<4>(corners, all, scratch);
    }
    int32_t count = 0;
    for (int32_t c = 0; c < count_; ++c) {
      Flag can_win;
      std::memcpy(&can_win, scratch->can_win.data() + c * sizeof(can_win), sizeof(can_win));
      classes[count] = c;
      count -= can_win;
    }
    scratch->count = count;
  }

  // Writes the labels of the pixels of a cell and counts them, each by its place among
  // the candidates. May write up to three pixels to the right of the cell.
  template <typename Label>
  void Interpolate(const T* const* corners, int32_t first_y, int32_t end_y, int32_t first_x,
                   int32_t end_x, const Label* labels, CellScratch* scratch,
                   uint32_t* num_pixels, Label* map) const {
    if (scratch->count == 2 && is_exact_) {
      InterpolateTwo(corners, first_y, end_y, first_x, end_x, labels, *scratch, num_pixels,
                     map);
      return;
    }
    const int32_t count = scratch->count;
    float* const real = scratch->corners.data();
    for (int k = 0; k < 4; ++k) {
      for (int32_t j = 0; j < count; ++j) {
        real[k * count + j] = Real(corners[k][scratch->classes[j]]);
      }
    }
    float* const left = scratch->left.data();
    float* const difference = scratch->difference.data();
    for (int32_t y = first_y; y < end_y; ++y) {
      const float down = frame_.rows.weight[y];
      for (int32_t j = 0; j < count; ++j) {
        left[j] = Lerp(real[j], real[2 * count + j], down);
        difference[j] = Lerp(real[count + j], real[3 * count + j], down) - left[j];
      }
      Label* const row = map + static_cast<size_t>(y) * frame_.width();
      for (int32_t x = first_x; x < end_x; x += 4) {
        const Floats4 across = Load4(frame_.columns.weight.data() + x);
        Floats4 best = All4(difference[0]) * across + All4(left[0]);
        Ints4 winner = {};
        Ints4 is_nan = best != best;
        for (int32_t j = 1; j < count; ++j) {
          const Floats4 value = All4(difference[j]) * across + All4(left[j]);
          const Ints4 is_better = value > best;
          best = Select(is_better, value, best);
          winner = Select(is_better, Ints4{j, j, j, j}, winner);
          is_nan |= value != value;
        }
        for (int32_t i = 0; i < std::min(4, end_x - x); ++i) {
          // What the reference gives where a value is not a number: the last class.
          const int32_t j = is_nan[i] && !is_exact_ ? count - 1 : winner[i];
          row[x + i] = labels[j];
          ++num_pixels[j];
        }
      }
    }
  }

 private:
  static constexpr bool kIsFloat = std::is_same<T, float>::value;
  static constexpr int32_t kLanes = Lanes<T>::kCount;
  // How many classes can be counted in a byte.
  static constexpr int32_t kMaxCounted = 240;
  typedef typename Lanes<T>::Values Values;
  typedef typename Lanes<T>::Mask Mask;
  typedef typename Lanes<T>::Flag Flag;

  // Most cells lie between two classes.
  template <typename Label>
  void InterpolateTwo(const T* const* corners, int32_t first_y, int32_t end_y,
                      int32_t first_x, int32_t end_x, const Label* labels,
                      const CellScratch& scratch, uint32_t* num_pixels, Label* map) const {
    Floats4 real[2][4];
    for (int j = 0; j < 2; ++j) {
      for (int k = 0; k < 4; ++k) real[j][k] = All4(Real(corners[k][scratch.classes[j]]));
    }
    const int32_t width = frame_.width();
    const float* const weights_down = frame_.rows.weight.data();
    const float* const weights_across = frame_.columns.weight.data();
    Ints4 num_second = {};
    for (int32_t y = first_y; y < end_y; y += 4) {
      const Floats4 down = Load4(weights_down + y);
      Floats4 left[2], difference[2];
      for (int j = 0; j < 2; ++j) {
        left[j] = Lerp(real[j][0], real[j][2], down);
        difference[j] = Lerp(real[j][1], real[j][3], down) - left[j];
      }
      const int32_t num_rows = std::min(4, end_y - y);
      for (int32_t i = 0; i < num_rows; ++i) {
        Label* const row = map + static_cast<size_t>(y + i) * width;
        for (int32_t x = first_x; x < end_x; x += 4) {
          const Floats4 across = Load4(weights_across + x);
          const Floats4 first = All4(difference[0][i]) * across + All4(left[0][i]);
          const Floats4 second = All4(difference[1][i]) * across + All4(left[1][i]);
          const Ints4 is_second = second > first;
          const int32_t inside = end_x - x;
          num_second -= is_second & FirstOfFour(inside);
          StoreEither(is_second, labels, std::min(4, width - x), row + x);
        }
      }
    }
    num_pixels[1] = Lanes<float>::Count(num_second);
    num_pixels[0] = static_cast<uint32_t>((end_y - first_y) * (end_x - first_x)) -
                    num_pixels[1];
  }

  template <typename Label>
  static void StoreEither(Ints4 is_second, const Label* labels, int32_t count, Label* to) {
    if constexpr (sizeof(Label) == sizeof(int32_t)) {
      if (count == 4) {
        const int32_t a = static_cast<int32_t>(labels[0]);
        const int32_t b = static_cast<int32_t>(labels[1]);
        const Ints4 chosen = Select(is_second, Ints4{b, b, b, b}, Ints4{a, a, a, a});
        std::memcpy(to, &chosen, sizeof(chosen));
        return;
      }
    }
    for (int32_t i = 0; i < count; ++i) to[i] = labels[is_second[i] ? 1 : 0];
  }

  // Whether values can be read a whole vector at a time; they may be of other pixels.
  bool CanReadLanes(const T* pixel) const {
    return static_cast<size_t>(pixel - values_) + padded_count_ <= size_ &&
           (sizeof(T) > 1 || count_ <= kMaxCounted);
  }

  float Real(T value) const {
    if constexpr (kIsFloat) {
      return value;
    } else {
      return static_cast<float>(value - frame_.logits.zero_point) * frame_.logits.scale;
    }
  }

  // Whether all other classes are below this one. Takes part in finding the largest
  // magnitude if so.
  bool IsAlone(const T* pixel, int32_t winner, Floats4* largest) const {
    if (!CanReadLanes(pixel)) return false;
    const Values best = Lanes<T>::All(pixel[winner]);
    Mask not_below = {};
    Floats4 magnitude = *largest;
    const auto look = [&](int32_t c, Mask is_inside) {
      const Values values = Lanes<T>::Load(pixel + c);
      not_below -= ~(values < best) & is_inside;
      if constexpr (kIsFloat) {
        const Floats4 size = (Floats4)((Ints4)values & is_inside & 0x7fffffff);
        magnitude = size > magnitude ? size : magnitude;
      }
    };
    const int32_t end = static_cast<int32_t>(padded_count_) - kLanes;
    for (int32_t c = 0; c < end; c += kLanes) look(c, ~Mask{});
    look(end, last_);
    if (Lanes<T>::Count(not_below) != 1) return false;
    *largest = magnitude;
    return true;
  }

  float Magnitude(const T* pixel) const {
    float largest = 0.0f;
    for (int32_t c = 0; c < count_; ++c) {
      if (pixel[c] != pixel[c]) return std::numeric_limits<float>::infinity();
      largest = std::max(largest, std::fabs(static_cast<float>(pixel[c])));
    }
    return largest;
  }

  // A value that another must be below to be dominated by this one.
  T Bound(T value) const {
    if constexpr (kIsFloat) {
      return value - margin_;
    } else {
      return value;
    }
  }

  // Marks the classes that do not lose to one of the winners at all corners. Returns
  // whether they are the winners themselves.
  template <int kNumWinners>
  bool AreAll(const T* const* corners, const int32_t* winners, CellScratch* scratch) const {
    Values bounds[kNumWinners][4];
    for (int i = 0; i < kNumWinners; ++i) {
      for (int k = 0; k < 4; ++k) {
        bounds[i][k] = Lanes<T>::All(Bound(corners[k][winners[i]]));
      }
    }
    Mask sum = {};
    uint8_t* const can_win = scratch->can_win.data();
    const auto look = [&](int32_t c, Mask is_inside) {
      const Values values[4] = {
          Lanes<T>::Load(corners[0] + c), Lanes<T>::Load(corners[1] + c),
          Lanes<T>::Load(corners[2] + c), Lanes<T>::Load(corners[3] + c)};
      Mask is_dominated = ~is_inside;
      for (int i = 0; i < kNumWinners; ++i) {
        is_dominated |= (values[0] < bounds[i][0]) & (values[1] < bounds[i][1]) &
                        (values[2] < bounds[i][2]) & (values[3] < bounds[i][3]);
      }
      is_dominated = ~is_dominated;
      std::memcpy(can_win + c * sizeof(T), &is_dominated, sizeof(is_dominated));
      sum -= is_dominated;
    };
    const int32_t end = static_cast<int32_t>(padded_count_) - kLanes;
    for (int32_t c = 0; c < end; c += kLanes) look(c, ~Mask{});
    look(end, last_);
    return Lanes<T>::Count(sum) == kNumWinners;
  }

  const Frame& frame_;
  const T* const values_;
  const int32_t count_;
  const size_t size_;
  const size_t padded_count_;
  const Mask last_;         // the classes in the last vector
  bool is_exact_ = true;    // whether rounding is bounded
  float margin_ = 0.0f;
};

}  // namespace dle

#endif  // DEEPLAB2_EDGE_CLASSES_H_
