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

#include "floats4.h"
#include "frame.h"
#include "lanes.h"

namespace dle {

// The first of the largest values; not-a-number counts as the largest, as in NumPy.
template <typename T>
int32_t ArgMax(const T* values, int32_t count) {
  int32_t best = 0;
  for (int32_t c = 0; c < count; ++c) {
    if (values[c] > values[best]) best = c;
    if (values[c] != values[c]) return c;
  }
  return best;
}

// Memory of one thread.
struct CellScratch {
  int32_t count = 0;             // of classes that can win in the cell
  std::vector<int32_t> classes;  // ascending
  std::vector<float> corners;    // [4, count]
  std::vector<float> left, difference;

  void Resize(int32_t num_classes) {
    classes.resize(num_classes);
    corners.resize(4 * static_cast<size_t>(num_classes));
    left.resize(num_classes);
    difference.resize(num_classes);
  }
};

// A head of classes. `T` is the type of its values.
template <typename T>
class Classifier {
 public:
  Classifier(const Frame& frame)
      : frame_(frame),
        values_(static_cast<const T*>(frame.logits.data)),
        count_(frame.num_classes()),
        size_(static_cast<size_t>(frame.head_height()) * frame.head_width() * count_),
        padded_count_((count_ + kLanes - 1) / kLanes * kLanes) {}

  // Finds the best class of each source pixel of a row, and gives the largest magnitude
  // in it; integers have none.
  template <typename Class>
  uint32_t FindWinners(int32_t row, Class* winners) const {
    const int32_t width = frame_.head_width();
    const T* pixel = At(row, 0);
    int32_t winner = ArgMax(pixel, count_);
    for (int32_t x = 0; x < width; ++x, pixel += count_) {
      if (!IsWinner(pixel, winner)) winner = ArgMax(pixel, count_);
      winners[x] = static_cast<Class>(winner);
    }
    uint32_t largest = 0;
    if (kIsFloat) {
      const T* const first = At(row, 0);
      for (int32_t i = 0; i < width * count_; ++i) {
        uint32_t bits;
        std::memcpy(&bits, first + i, sizeof(bits));
        largest = std::max(largest, bits & 0x7fffffffu);
      }
    }
    return largest;
  }

  // Takes the largest magnitude of all rows, as the bits of a float32.
  //
  // Two interpolations round a value by less than 10 units (2^-24) of the largest
  // magnitude, so classes farther apart than 20 at all corners keep their order. Steps of
  // integers are at least 2^-17 of it apart, and need no margin.
  void SetLargest(uint32_t bits) {
    if (!kIsFloat) return;
    float largest;
    std::memcpy(&largest, &bits, sizeof(largest));
    is_exact_ = largest < FLT_MAX / 64;
    margin_ = largest / (1 << 18) + FLT_MIN;
  }

  // Lists the classes that can win between four source pixels.
  template <typename Class>
  void FindCandidates(const T* const* corners, const Class* winners,
                      CellScratch* scratch) const {
    int32_t* const classes = scratch->classes.data();
    int32_t count = 0;
    if (is_exact_) {
      for (int k = 0; k < 4; ++k) {
        const int32_t winner = winners[k];
        int32_t place = count;
        while (place > 0 && classes[place - 1] > winner) --place;
        if (place > 0 && classes[place - 1] == winner) continue;
        for (int32_t i = count++; i > place; --i) classes[i] = classes[i - 1];
        classes[place] = winner;
      }
      if (!OthersCanWin(corners, classes, count)) {
        scratch->count = count;
        return;
      }
    }
    int32_t of_winners[4];
    std::memcpy(of_winners, classes, sizeof(of_winners[0]) * count);
    scratch->count = 0;
    for (int32_t c = 0; c < count_; ++c) {
      if (!is_exact_ || !IsDominated(corners, of_winners, count, c)) {
        classes[scratch->count++] = c;
      }
    }
  }

  // Writes the classes of the pixels of a cell whose candidates are listed. May write up
  // to three pixels to the right of it.
  template <typename Class>
  void Interpolate(const T* const* corners, int32_t first_y, int32_t end_y,
                   int32_t first_x, int32_t end_x, CellScratch* scratch,
                   Class* map) const {
    const int32_t count = scratch->count;
    const int32_t* const classes = scratch->classes.data();
    float* const real = scratch->corners.data();
    for (int k = 0; k < 4; ++k) {
      for (int32_t j = 0; j < count; ++j) {
        real[k * count + j] = Real(corners[k][classes[j]]);
      }
    }
    float* const left = scratch->left.data();
    float* const difference = scratch->difference.data();
    const int32_t width = frame_.width();
    for (int32_t y = first_y; y < end_y; ++y) {
      const float down = frame_.rows.weight[y];
      for (int32_t j = 0; j < count; ++j) {
        left[j] = Lerp(real[j], real[2 * count + j], down);
        difference[j] = Lerp(real[count + j], real[3 * count + j], down) - left[j];
      }
      Class* const row = map + static_cast<size_t>(y) * width;
      for (int32_t x = first_x; x < end_x; x += 4) {
        const Floats4 across = Load4(frame_.columns.weight.data() + x);
        Floats4 best = All4(difference[0]) * across + All4(left[0]);
        Ints4 winner = All(classes[0]);
        Ints4 is_nan = best != best;
        for (int32_t j = 1; j < count; ++j) {
          const Floats4 value = All4(difference[j]) * across + All4(left[j]);
          const Ints4 is_better = value > best;
          best = Select(is_better, value, best);
          winner = Select(is_better, All(classes[j]), winner);
          is_nan |= value != value;
        }
        // What the reference gives where a value is not a number.
        if (!is_exact_) winner = Select(is_nan, All(count_ - 1), winner);
        Store(winner, std::min(4, width - x), row + x);
      }
    }
  }

  const T* At(int32_t y, int32_t x) const {
    return values_ + (static_cast<size_t>(y) * frame_.head_width() + x) * count_;
  }

 private:
  static constexpr bool kIsFloat = std::is_same<T, float>::value;
  static constexpr int32_t kLanes = Lanes<T>::kCount;
  typedef typename Lanes<T>::Values Values;
  typedef typename Lanes<T>::Mask Mask;

  static Ints4 All(int32_t value) { return Ints4{value, value, value, value}; }

  // Whether values can be read a whole vector at a time; they may be of other pixels.
  bool CanReadLanes(const T* pixel) const {
    return static_cast<size_t>(pixel - values_) + padded_count_ <= size_;
  }

  float Real(T value) const {
    if constexpr (kIsFloat) {
      return value;
    } else {
      return static_cast<float>(value - frame_.logits.zero_point) * frame_.logits.scale;
    }
  }

  // Whether the class is what ArgMax gives. False where that is cheaper to find out there.
  bool IsWinner(const T* pixel, int32_t winner) const {
    if (!CanReadLanes(pixel)) return false;
    const Values best = Lanes<T>::All(pixel[winner]);
    Mask is_worse = {};
    for (int32_t c = 0; c < count_; c += kLanes) {
      const Values values = Lanes<T>::Load(pixel + c);
      const Mask is_before = Lanes<T>::First(winner - c);
      const Mask is_refuted = ~(values <= best) | ((values == best) & is_before);
      is_worse |= is_refuted & Lanes<T>::First(count_ - c);
    }
    return !Any(is_worse);
  }

  // A value that another must be below to be dominated by this one.
  T Bound(T value) const {
    if constexpr (kIsFloat) {
      return value - margin_;
    } else {
      return value;
    }
  }

  bool OthersCanWin(const T* const* corners, const int32_t* winners,
                    int32_t num_winners) const {
    if (!CanReadLanes(corners[3])) return true;
    Mask others = {};
    for (int32_t c = 0; c < count_; c += kLanes) {
      Mask is_out = ~Lanes<T>::First(count_ - c);
      const Values values[4] = {
          Lanes<T>::Load(corners[0] + c), Lanes<T>::Load(corners[1] + c),
          Lanes<T>::Load(corners[2] + c), Lanes<T>::Load(corners[3] + c)};
      for (int32_t i = 0; i < num_winners; ++i) {
        const int32_t winner = winners[i];
        Mask is_below = ~Mask{};
        for (int k = 0; k < 4; ++k) {
          is_below &= values[k] < Lanes<T>::All(Bound(corners[k][winner]));
        }
        is_out |= is_below;
        const int32_t lane = winner - c;
        is_out |= Lanes<T>::First(lane + 1) & ~Lanes<T>::First(lane);
      }
      others |= ~is_out;
    }
    return Any(others);
  }

  bool IsDominated(const T* const* corners, const int32_t* winners, int32_t num_winners,
                   int32_t c) const {
    for (int32_t i = 0; i < num_winners; ++i) {
      bool is_below = true;
      for (int k = 0; k < 4; ++k) {
        is_below = is_below && corners[k][c] < Bound(corners[k][winners[i]]);
      }
      if (is_below) return true;
    }
    return false;
  }

  template <typename Class>
  static void Store(Ints4 winners, int32_t count, Class* to) {
    const Class classes[4] = {
        static_cast<Class>(winners[0]), static_cast<Class>(winners[1]),
        static_cast<Class>(winners[2]), static_cast<Class>(winners[3])};
    if (count == 4) {
      std::memcpy(to, classes, sizeof(classes));
    } else {
      for (int32_t i = 0; i < count; ++i) to[i] = classes[i];
    }
  }

  const Frame& frame_;
  const T* const values_;
  const int32_t count_;
  const size_t size_;
  const size_t padded_count_;
  bool is_exact_ = true;  // whether rounding is bounded
  float margin_ = 0.0f;
};

}  // namespace dle

#endif  // DEEPLAB2_EDGE_CLASSES_H_
