// From the mask logits of a mask transformer to the mask of each pixel.
//
// Logits are never stored at full size. Between four source pixels an interpolated logit
// stays between the smallest and the largest of its four values, so in each cell most
// masks can neither win nor add to the sum of exponentials, and only the others are
// interpolated.

#include "masks.h"

#include <atomic>
#include <cmath>
#include <limits>
#include <mutex>
#include <new>
#include <vector>

#include "axis.h"
#include "frame.h"
#include "lanes.h"
#include "parallel.h"

namespace {

using dle::All4;
using dle::Axis;
using dle::Floats4;
using dle::Ints4;
using dle::Load4;
using dle::Select;
using dle::Store4;

constexpr int32_t kLanes = 4;
constexpr int32_t kMaxMasks = 4096;
constexpr int32_t kMaxThreads = 256;
constexpr int32_t kMaxZeroPoint = 1 << 16;
constexpr int64_t kMaxHead = 1 << 30;  // values
constexpr float kLargest = 1e20f;
constexpr float kNever = -4 * kLargest;  // below all logits
// Exponentials below exp(-20) are left out of sums of at least 1; see the tolerance.
constexpr float kFar = 20.0f;
// Rounding of two interpolations, by the largest logit; four times what it can be.
constexpr float kRounding = 2e-6f;

// Columns of a table of logits at the corners of a cell.
enum { kTopLeft, kTopRight, kBottomLeft, kBottomRight, kNumCorners };

int32_t PaddedToLanes(int32_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

// Some masks of one cell, those of one kind that may matter in it.
struct Candidates {
  std::vector<int32_t> masks;
  std::vector<float> corners[kNumCorners];
  std::vector<float> left, right, values;
  int32_t count = 0;

  explicit Candidates(int32_t num_masks) : masks(PaddedToLanes(num_masks)) {
    for (auto& corner : corners) corner.resize(masks.size());
    left.resize(masks.size());
    right.resize(masks.size());
    values.resize(masks.size());
  }

  void Add(int32_t mask, const float* const* logits) {
    masks[count] = mask;
    for (int i = 0; i < kNumCorners; ++i) corners[i][count] = logits[i][mask];
    ++count;
  }

  void Pad() {
    while (count % kLanes) {
      masks[count] = 0;
      for (auto& corner : corners) corner[count] = kNever;
      ++count;
    }
  }

  void StartRow(float weight) {
    for (int32_t i = 0; i < count; i += kLanes) {
      Store4(dle::Lerp(Load4(&corners[kTopLeft][i]), Load4(&corners[kBottomLeft][i]),
                       All4(weight)),
             &left[i]);
      Store4(dle::Lerp(Load4(&corners[kTopRight][i]), Load4(&corners[kBottomRight][i]),
                       All4(weight)),
             &right[i]);
    }
  }

  // Computes the logits of a pixel; gives the largest, and the first mask that has it.
  float Interpolate(float weight, int32_t* first) {
    Floats4 top = All4(2 * kNever);
    Ints4 place = {0, 0, 0, 0};
    Ints4 here = {0, 1, 2, 3};
    for (int32_t i = 0; i < count; i += kLanes) {
      const Floats4 value = dle::Lerp(Load4(&left[i]), Load4(&right[i]), All4(weight));
      Store4(value, &values[i]);
      const Ints4 is_larger = value > top;
      top = Select(is_larger, value, top);
      place = Select(is_larger, here, place);
      here += kLanes;
    }
    int lane = 0;
    for (int other = 1; other < kLanes; ++other) {
      if (top[other] > top[lane] ||
          (top[other] == top[lane] && place[other] < place[lane])) {
        lane = other;
      }
    }
    *first = masks[place[lane]];
    return top[lane];
  }

  float SumOfExponentials(float top) const {
    Floats4 sum = All4(0.0f);
    for (int32_t i = 0; i < count; i += kLanes) {
      sum += dle::Exp(Load4(&values[i]) - All4(top));
    }
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
  }
};

// What one thread works with.
struct Work {
  Candidates detected, others;
  std::vector<float> high;        // largest logit of each mask in a cell
  std::vector<float> above, below;  // rows of a head of integers
  std::vector<int64_t> area_px;

  Work(int32_t num_masks, size_t row_values)
      : detected(num_masks),
        others(num_masks),
        high(num_masks),
        above(row_values),
        below(row_values),
        area_px(num_masks, 0) {}
};

class Decoder {
 public:
  Decoder(const DleHead& logits, const DleMaskSettings& settings,
          const DleMaskPixels& pixels)
      : logits_(logits),
        s_(settings),
        pixels_(pixels),
        rows_(settings.head_height, settings.height),
        columns_(settings.head_width, settings.width),
        row_values_(static_cast<size_t>(settings.head_width) * settings.num_masks),
        // In units in the last place, between two implementations: exp 5; sums of N
        // values in 4 and 8 parts, N / 8 + N / 16 + 2; what is left out, N / 50; two
        // divisions, 1.
        tolerance_((8.0f + 0.25f * static_cast<float>(settings.num_masks)) *
                   std::numeric_limits<float>::epsilon()),
        handicap_(settings.num_masks) {
    for (int32_t i = 0; i < s_.num_masks; ++i) handicap_[i] = s_.is_detected[i] ? 0 : kNever;
  }

  int32_t Run() {
    float largest = 0;
    if (!FindLargest(&largest)) return DLE_NOT_FINITE;
    rounding_ = kRounding * largest;
    std::fill(pixels_.area_px, pixels_.area_px + s_.num_masks, int64_t{0});
    // Cells are named by their upper row; blocks end where cells do.
    dle::ForBlocks(s_.head_height, s_.num_threads, [&](int32_t first, int32_t last) {
      Decode(first, last);
    });
    return DLE_OK;
  }

 private:
  // Finds the largest absolute logit; gives false if one is no number or too large.
  bool FindLargest(float* largest) {
    std::atomic<bool> is_finite{true};
    std::mutex mutex;
    dle::ForBlocks(s_.head_height, s_.num_threads, [&](int32_t first, int32_t last) {
      std::vector<float> values(logits_.type == DLE_FLOAT32 ? 0 : row_values_);
      Floats4 tops = All4(0.0f);
      Ints4 is_fine = {-1, -1, -1, -1};
      float top = 0;
      for (int32_t y = first; y < last && is_finite; ++y) {
        const float* const row = Row(y, &values);
        size_t i = 0;
        for (; i + kLanes <= row_values_; i += kLanes) {
          const Floats4 value = Load4(row + i), size = dle::Max(value, -value);
          is_fine &= size <= All4(kLargest);
          tops = dle::Max(tops, size);
        }
        for (; i < row_values_; ++i) {
          const float size = std::fabs(row[i]);
          if (!(size <= kLargest)) is_finite = false;
          top = std::max(top, size);
        }
      }
      for (int lane = 0; lane < kLanes; ++lane) {
        if (!is_fine[lane]) is_finite = false;
        top = std::max(top, tops[lane]);
      }
      const std::lock_guard<std::mutex> lock(mutex);
      *largest = std::max(*largest, top);
    });
    return is_finite;
  }

  // Gives a row of the head as float32, read into `values` unless it is that already.
  const float* Row(int32_t y, std::vector<float>* values) const {
    const size_t start = y * row_values_;
    if (logits_.type == DLE_FLOAT32) return static_cast<const float*>(logits_.data) + start;
    dle::ReadReal(logits_, start, 1, static_cast<int32_t>(row_values_), values->data());
    return values->data();
  }

  void Decode(int32_t first_row, int32_t last_row) {
    Work work(s_.num_masks, logits_.type == DLE_FLOAT32 ? 0 : row_values_);
    const auto begin = rows_.lower.begin();
    int32_t y = static_cast<int32_t>(
        std::lower_bound(begin, rows_.lower.end(), first_row) - begin);
    while (y < s_.height && rows_.lower[y] < last_row) {
      int32_t end = y + 1;
      while (end < s_.height && rows_.lower[end] == rows_.lower[y]) ++end;
      const float* const above = Row(rows_.lower[y], &work.above);
      const float* const below = Row(rows_.upper[y], &work.below);
      for (int32_t x = 0; x < s_.width;) {
        int32_t right = x + 1;
        while (right < s_.width && columns_.lower[right] == columns_.lower[x]) ++right;
        const size_t at = static_cast<size_t>(columns_.lower[x]) * s_.num_masks;
        const size_t next = static_cast<size_t>(columns_.upper[x]) * s_.num_masks;
        const float* const corners[] = {above + at, above + next, below + at,
                                        below + next};
        Choose(corners, &work);
        DecodeCell(y, end, x, right, &work);
        x = right;
      }
      y = end;
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    for (int32_t i = 0; i < s_.num_masks; ++i) pixels_.area_px[i] += work.area_px[i];
  }

  // Finds the masks that can win in a cell or add to its sums.
  void Choose(const float* const* corners, Work* work) const {
    const int32_t count = s_.num_masks, whole = count / kLanes * kLanes;
    Floats4 floors = All4(2 * kNever), floors_of_detected = floors;
    for (int32_t i = 0; i < whole; i += kLanes) {
      const Floats4 a = Load4(corners[0] + i), b = Load4(corners[1] + i);
      const Floats4 c = Load4(corners[2] + i), d = Load4(corners[3] + i);
      const Floats4 low = dle::Min(dle::Min(a, b), dle::Min(c, d));
      Store4(dle::Max(dle::Max(a, b), dle::Max(c, d)), &work->high[i]);
      floors = dle::Max(floors, low);
      floors_of_detected = dle::Max(floors_of_detected, low + Load4(&handicap_[i]));
    }
    float floor = 2 * kNever, floor_of_detected = floor;
    for (int32_t i = whole; i < count; ++i) {
      const float low = std::min(std::min(corners[0][i], corners[1][i]),
                                 std::min(corners[2][i], corners[3][i]));
      work->high[i] = std::max(std::max(corners[0][i], corners[1][i]),
                               std::max(corners[2][i], corners[3][i]));
      floor = std::max(floor, low);
      floor_of_detected = std::max(floor_of_detected, low + handicap_[i]);
    }
    for (int lane = 0; lane < kLanes; ++lane) {
      floor = std::max(floor, floors[lane]);
      floor_of_detected = std::max(floor_of_detected, floors_of_detected[lane]);
    }
    const float bar = floor - 2 * rounding_;
    const float bar_of_detected = floor_of_detected - 2 * rounding_ - kFar;
    const float lowest = std::min(bar, bar_of_detected);
    work->detected.count = work->others.count = 0;
    for (int32_t i = 0; i < count; ++i) {
      if (work->high[i] < lowest) continue;
      if (s_.is_detected[i]) {
        if (work->high[i] >= bar_of_detected) work->detected.Add(i, corners);
      } else if (work->high[i] >= bar) {
        work->others.Add(i, corners);
      }
    }
    work->detected.Pad();
    work->others.Pad();
  }

  void DecodeCell(int32_t top, int32_t bottom, int32_t left, int32_t right,
                  Work* work) const {
    Candidates *const detected = &work->detected, *const others = &work->others;
    for (int32_t y = top; y < bottom; ++y) {
      detected->StartRow(rows_.weight[y]);
      others->StartRow(rows_.weight[y]);
      size_t pixel = static_cast<size_t>(y) * s_.width + left;
      for (int32_t x = left; x < right; ++x, ++pixel) {
        int32_t winner = 0, other = 0;
        float highest = kNever, highest_other = kNever;
        if (detected->count) highest = detected->Interpolate(columns_.weight[x], &winner);
        if (others->count) {
          highest_other = others->Interpolate(columns_.weight[x], &other);
        }
        const bool is_other_best = highest_other > highest ||
                                   (highest_other == highest && other < winner);
        pixels_.best[pixel] = is_other_best ? other : winner;
        pixels_.winner[pixel] = winner;
        pixels_.confidence[pixel] =
            detected->count ? 1.0f / detected->SumOfExponentials(highest) : 0.0f;
        const uint8_t state = highest < highest_other
                                  ? uint8_t{DLE_PIXEL_VOID}
                                  : State(pixels_.confidence[pixel]);
        pixels_.state[pixel] = state;
        work->area_px[winner] += state == DLE_PIXEL_CONFIDENT;
      }
    }
  }

  uint8_t State(float confidence) const {
    const float excess = confidence - s_.pixel_confidence_threshold;
    if (std::fabs(excess) <= tolerance_ * confidence) return DLE_PIXEL_UNDECIDED;
    return excess > 0 ? DLE_PIXEL_CONFIDENT : DLE_PIXEL_VOID;
  }

  const DleHead& logits_;
  const DleMaskSettings& s_;
  const DleMaskPixels& pixels_;
  const Axis rows_, columns_;
  const size_t row_values_;
  const float tolerance_;
  std::vector<float> handicap_;  // of masks that are not detected
  float rounding_ = 0;
  std::mutex mutex_;
};

bool IsUsable(const DleHead* head) {
  return head && head->data && head->type >= DLE_FLOAT32 && head->type <= DLE_INT16 &&
         head->zero_point >= -kMaxZeroPoint && head->zero_point <= kMaxZeroPoint;
}

bool IsUsable(const DleMaskSettings* s, const DleMaskPixels* pixels) {
  return s && pixels && s->head_height >= 1 && s->head_width >= 1 && s->num_masks >= 1 &&
         s->num_masks <= kMaxMasks && s->height >= 1 && s->width >= 1 &&
         static_cast<int64_t>(s->height) * s->width <= (1 << 24) &&
         static_cast<int64_t>(s->head_height) * s->head_width <= kMaxHead / s->num_masks &&
         s->num_threads >= 1 && s->num_threads <= kMaxThreads && s->is_detected && pixels->best && pixels->winner &&
         pixels->confidence && pixels->state && pixels->area_px;
}

}  // namespace

extern "C" {

int32_t dle_mask_pixels(const DleHead* mask_logits, const DleMaskSettings* settings,
                        const DleMaskPixels* pixels) {
  if (!IsUsable(mask_logits) || !IsUsable(settings, pixels)) {
    return DLE_BAD_ARGUMENT;
  }
  try {
    return Decoder(*mask_logits, *settings, *pixels).Run();
  } catch (const std::bad_alloc&) {
    return DLE_OUT_OF_MEMORY;
  }
}

int32_t dle_mask_maps(const DleMaskSettings* settings, const DleMaskPixels* pixels,
                      const DleMaskMaps* maps) {
  if (!IsUsable(settings, pixels) || !maps || !maps->panoptic_of_mask ||
      !maps->class_of_mask || !maps->confidence_of_mask || !maps->panoptic ||
      !maps->semantic || !maps->mask_id || !maps->mask_semantic ||
      !maps->semantic_scores) {
    return DLE_BAD_ARGUMENT;
  }
  try {
    dle::ForBlocks(settings->height, settings->num_threads,
                   [&](int32_t first, int32_t last) {
      const size_t end = static_cast<size_t>(last) * settings->width;
      for (size_t i = static_cast<size_t>(first) * settings->width; i < end; ++i) {
        const int32_t winner = pixels->winner[i];
        maps->panoptic[i] = pixels->state[i] == DLE_PIXEL_CONFIDENT
                                ? maps->panoptic_of_mask[winner]
                                : maps->void_id;
        maps->semantic[i] = maps->class_of_mask[pixels->best[i]];
        maps->mask_id[i] = winner + 1;
        maps->mask_semantic[i] = maps->class_of_mask[winner];
        maps->semantic_scores[i] = maps->confidence_of_mask[winner];
      }
    });
  } catch (const std::bad_alloc&) {
    return DLE_OUT_OF_MEMORY;
  }
  return DLE_OK;
}

}  // extern "C"
