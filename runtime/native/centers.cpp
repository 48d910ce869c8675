#include "centers.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>

#include "lanes.h"

namespace dle {
namespace {

constexpr int32_t kBandRows = 32;

bool IsEarlier(const DleCenter& a, const DleCenter& b) {
  return a.y != b.y ? a.y < b.y : a.x < b.x;
}

// Of each group of adjacent peaks (8 neighbors), of each value the first.
void KeepFirstOfPlateaus(std::vector<DleCenter>* peaks) {
  const size_t count = peaks->size();
  std::vector<size_t> group(count);  // leads to the first of the group
  const auto root = [&](size_t i) {
    while (group[i] != i) i = group[i] = group[group[i]];
    return i;
  };
  size_t above = 0;  // the first peak that may be adjacent in the row above
  for (size_t i = 0; i < count; ++i) {
    const DleCenter& peak = (*peaks)[i];
    group[i] = i;
    const auto join = [&](size_t other) {
      const size_t a = root(other), b = root(i);
      group[std::max(a, b)] = std::min(a, b);
    };
    if (i > 0 && (*peaks)[i - 1].y == peak.y && (*peaks)[i - 1].x == peak.x - 1) {
      join(i - 1);
    }
    while (IsEarlier((*peaks)[above], {peak.y - 1, peak.x - 1, 0.0f})) ++above;
    for (size_t j = above; (*peaks)[j].y == peak.y - 1 && (*peaks)[j].x <= peak.x + 1;
         ++j) {
      join(j);
    }
  }
  std::vector<size_t> order(count);
  for (size_t i = 0; i < count; ++i) {
    group[i] = root(i);
    order[i] = i;
  }
  const auto is_same = [&](size_t a, size_t b) {
    return group[a] == group[b] && (*peaks)[a].score == (*peaks)[b].score;
  };
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    if (group[a] != group[b]) return group[a] < group[b];
    const float of_a = (*peaks)[a].score, of_b = (*peaks)[b].score;
    return of_a != of_b ? of_a < of_b : a < b;
  });
  order.erase(std::unique(order.begin(), order.end(), is_same), order.end());
  std::sort(order.begin(), order.end());
  std::vector<DleCenter> kept;
  kept.reserve(order.size());
  for (const size_t i : order) kept.push_back((*peaks)[i]);
  peaks->swap(kept);
}

// The best, ties by raster order, in raster order.
void KeepBest(int32_t keep_k, std::vector<DleCenter>* peaks) {
  if (keep_k < 1 || peaks->size() <= static_cast<size_t>(keep_k)) return;
  std::stable_sort(peaks->begin(), peaks->end(), [](const DleCenter& a, const DleCenter& b) {
    return a.score > b.score;
  });
  peaks->resize(static_cast<size_t>(keep_k));
  std::sort(peaks->begin(), peaks->end(), IsEarlier);
}

}  // namespace

void CenterFinder::Find(const Frame& frame, Pool* pool, std::vector<DleCenter>* centers) {
  const DleMergeSettings& s = *frame.settings;
  const int32_t before = (s.nms_kernel - 1) / 2;
  const int32_t after = s.nms_kernel - 1 - before;
  above_ = std::min(before, s.height);
  below_ = std::min(after, s.height);
  left_ = std::min(before, s.width);
  right_ = std::min(after, s.width);
  floor_ = std::max(s.center_score_threshold, 0.0f);
  float largest = 0.0f;
  bool is_finite = true;
  const size_t num_pixels = static_cast<size_t>(s.head_height) * s.head_width;
  for (size_t i = 0; i < num_pixels; ++i) {
    const float size = std::fabs(frame.heat[i]);
    const bool is_number = size <= FLT_MAX;
    is_finite &= is_number;
    largest = std::max(largest, is_number ? size : 0.0f);
  }
  // Two interpolations round a value by less than 10 units (2^-24) of the largest one.
  low_ = floor_ - largest / (1 << 20);
  SetSlopes(frame, is_finite ? largest : std::numeric_limits<float>::infinity());
  const int32_t num_bands = (s.height + kBandRows - 1) / kBandRows;
  bands_.resize(static_cast<size_t>(pool->num_workers()));
  peaks_.resize(static_cast<size_t>(num_bands));
  pool->ForEach(num_bands, [&](int32_t band, int32_t worker) {
    const int32_t first = band * kBandRows;
    peaks_[band].clear();
    SearchBand(frame, first, std::min(first + kBandRows, s.height), &bands_[worker],
               &peaks_[band]);
  });
  centers->clear();
  for (const std::vector<DleCenter>& peaks : peaks_) {
    centers->insert(centers->end(), peaks.begin(), peaks.end());
  }
  if (s.merge_plateaus && !centers->empty()) KeepFirstOfPlateaus(centers);
  KeepBest(s.keep_k_centers, centers);
}

void CenterFinder::SearchBand(const Frame& frame, int32_t first, int32_t end, Band* band,
                              std::vector<DleCenter>* peaks) const {
  const int32_t top = std::max(first - above_, 0);
  const int32_t bottom = std::min(end + below_, frame.height());
  const int32_t stride = left_ + frame.width() + right_ + 3;  // Upsample writes by four
  const int32_t num_rows = end - first + above_ + below_;
  band->heat.resize(static_cast<size_t>(num_rows) * stride + 4);
  const auto row_of = [&](int32_t y) {
    return band->heat.data() + static_cast<size_t>(y - (first - above_)) * stride + left_;
  };
  const int32_t* const cell_row = frame.rows.lower.data();
  const int32_t first_cell = cell_row[top];
  const size_t num_cells = static_cast<size_t>(cell_row[bottom - 1] - first_cell) + 1;
  const int32_t first_peak_cell = cell_row[first];
  band->peak_runs.resize(static_cast<size_t>(cell_row[end - 1] - first_peak_cell) + 1);
  band->traits.resize(static_cast<size_t>(frame.head_width()) + 8);
  bool is_empty = true;
  for (size_t i = 0; i < band->peak_runs.size(); ++i) {
    FindPeakRuns(frame, first_peak_cell + static_cast<int32_t>(i), band->traits.data() + 1,
                 &band->peak_runs[i]);
    is_empty = is_empty && band->peak_runs[i].empty();
  }
  if (is_empty) return;
  band->runs.resize(num_cells);
  FindRuns(frame, first_cell, first_peak_cell, band);
  // Outside of the canvas is 0, which is below every peak.
  for (int32_t y = first - above_; y < end + below_; ++y) {
    float* const row = row_of(y);
    const bool is_inside = y >= 0 && y < frame.height();
    std::fill(row - left_, is_inside ? row : row + frame.width(), 0.0f);
    std::fill(row + frame.width(), row + frame.width() + right_, 0.0f);
  }
  for (size_t i = 0; i < num_cells; ++i) {
    const int32_t cell = first_cell + static_cast<int32_t>(i);
    const int32_t begin = std::max(frame.rows.begin[cell], top);
    Upsample(frame, cell, begin, std::min(frame.rows.begin[cell + 1], bottom), band->runs[i],
             stride, row_of(begin));
  }
  for (int32_t y = first; y < end; ++y) {
    for (const Run& run : band->peak_runs[cell_row[y] - first_peak_cell]) {
      FindPeaks(y, run, row_of(y), stride, peaks);
    }
  }
}

// Two pixels that interpolate with slopes above these differ by more than the rounding of
// both, which is less than 20 units of the largest value.
void CenterFinder::SetSlopes(const Frame& frame, float largest) {
  const auto slope = [&](const CellAxis& axis, int32_t reach) {
    if (reach < 1 || axis.step <= 0.0 || !(largest < FLT_MAX / 64)) {
      return std::numeric_limits<float>::infinity();
    }
    return static_cast<float>((largest / (1 << 19) + FLT_MIN) / axis.step);
  };
  slope_up_ = slope(frame.rows, above_);
  slope_down_ = slope(frame.rows, below_);
  slope_left_ = slope(frame.columns, left_);
  slope_right_ = slope(frame.columns, right_);
}

// Lists the cells of a row that can hold a peak. Not-a-number is not low.
void CenterFinder::FindPeakRuns(const Frame& frame, int32_t cell_row, int32_t* traits,
                                std::vector<Run>* runs) const {
  constexpr int32_t kIsLow = 1, kIsRight = 2, kIsLeft = 4, kIsDown = 8, kIsUp = 16;
  const int32_t height = frame.head_height(), width = frame.head_width();
  const auto row_of = [&](int32_t row) {
    return frame.heat.data() +
           static_cast<size_t>(std::min(std::max(row, 0), height - 1)) * width;
  };
  const float *const before = row_of(cell_row - 1), *const here = row_of(cell_row);
  const float *const next = row_of(cell_row + 1), *const after = row_of(cell_row + 2);
  // Where the next cell begins on the source pixel, it is enough to grow up to that.
  const int32_t alone = frame.columns.is_aligned ? kIsRight : 0;
  const Ints4 below_is_first = Ints4{} - (frame.rows.is_aligned ? 1 : 0);
  for (int32_t x = 0; x < width; x += 4) {
    const Floats4 a = Load4(here + x), b = Load4(next + x);
    const Floats4 right_a = Load4(here + x + 1), right_b = Load4(next + x + 1);
    const Floats4 down = b - a;
    const Ints4 is_low = (a <= low_) & (b <= low_);
    const Ints4 is_right = (right_a - a > slope_right_) & (right_b - b > slope_right_);
    const Ints4 is_left = (a - right_a > slope_left_) & (b - right_b > slope_left_);
    const Ints4 is_down =
        (down > slope_down_) & ((Load4(after + x) - b > slope_down_) | below_is_first);
    const Ints4 is_up = (-down > slope_up_) & (Load4(before + x) - a > slope_up_);
    const Ints4 all = (is_low & kIsLow) | (is_right & kIsRight) | (is_left & kIsLeft) |
                      (is_down & kIsDown) | (is_up & kIsUp);
    std::memcpy(traits + x, &all, sizeof(all));
  }
  traits[-1] = 0;
  traits[width - 1] &= ~(kIsRight | kIsLeft);
  traits[width] = traits[width - 1];
  runs->clear();
  for (int32_t first = 0; first < width; first += 4) {
    const Ints4 here_is = Lanes<int32_t>::Load(traits + first);
    const Ints4 next_is = Lanes<int32_t>::Load(traits + first + 1);
    const Ints4 last_is = Lanes<int32_t>::Load(traits + first - 1);
    const Ints4 reasons = (here_is & next_is & ~kIsLeft) | (here_is & last_is & kIsLeft) |
                          (here_is & alone);
    const Ints4 can_be = (reasons == 0) & FirstOfFour(width - first);
    if (!Any(can_be)) continue;
    for (int32_t i = 0; i < 4; ++i) {
      if (!can_be[i]) continue;
      const int32_t begin = frame.columns.begin[first + i];
      const int32_t end = frame.columns.begin[first + i + 1];
      if (begin == end) {
      } else if (!runs->empty() && runs->back().second == begin) {
        runs->back().second = end;
      } else {
        runs->push_back({begin, end});
      }
    }
  }
}

// Lists the cells of each row that windows of peaks reach.
void CenterFinder::FindRuns(const Frame& frame, int32_t first_cell, int32_t first_peak_cell,
                            Band* band) const {
  const CellAxis &rows = frame.rows, &columns = frame.columns;
  const size_t width = static_cast<size_t>(frame.head_width());
  band->is_needed.assign(band->runs.size() * width, 0);
  for (size_t i = 0; i < band->peak_runs.size(); ++i) {
    const int32_t cell = first_peak_cell + static_cast<int32_t>(i);
    if (rows.begin[cell] == rows.begin[cell + 1]) continue;
    const int32_t top = rows.lower[std::max(rows.begin[cell] - above_, 0)];
    const int32_t bottom =
        rows.lower[std::min(rows.begin[cell + 1] + below_, frame.height()) - 1];
    for (const Run& run : band->peak_runs[i]) {
      const int32_t left = columns.lower[std::max(run.first - left_, 0)];
      const int32_t right = columns.lower[std::min(run.second + right_, frame.width()) - 1];
      for (int32_t row = std::max(top, first_cell);
           row <= bottom && row - first_cell < static_cast<int32_t>(band->runs.size());
           ++row) {
        std::memset(band->is_needed.data() + (row - first_cell) * width + left, 1,
                    static_cast<size_t>(right - left) + 1);
      }
    }
  }
  for (size_t i = 0; i < band->runs.size(); ++i) {
    const uint8_t* const is_needed = band->is_needed.data() + i * width;
    std::vector<Run>& runs = band->runs[i];
    runs.clear();
    const auto find = [&](size_t cell, int value) {
      const void* const found = std::memchr(is_needed + cell, value, width - cell);
      return found ? static_cast<size_t>(static_cast<const uint8_t*>(found) - is_needed)
                   : width;
    };
    for (size_t cell = find(0, 1); cell < width;) {
      const size_t end = find(cell, 0);
      runs.push_back({columns.begin[cell], columns.begin[end]});
      cell = find(end, 1);
    }
  }
}

// Fills rows [top, bottom) of a row of cells; `heat` is where they begin. The reference
// does not interpolate along an axis that keeps its size.
void CenterFinder::Upsample(const Frame& frame, int32_t cell_row, int32_t top,
                            int32_t bottom, const std::vector<Run>& runs, int32_t stride,
                            float* heat) const {
  const CellAxis &rows = frame.rows, &columns = frame.columns;
  const int32_t head_width = frame.head_width();
  const float* const above =
      frame.heat.data() + static_cast<size_t>(cell_row) * head_width;
  const float* const below = cell_row + 1 < frame.head_height() ? above + head_width : above;
  const bool is_same_height = rows.n_in == rows.n_out;
  const bool is_same_width = columns.n_in == columns.n_out;
  const int32_t width = columns.n_out;
  const int32_t* const begin = columns.begin.data();
  const float* const across = columns.weight.data();
  const float* const down = rows.weight.data();
  const Floats4 floor = All4(floor_);
  for (const Run& run : runs) {
    const int32_t last_cell = columns.lower[run.second - 1];
    for (int32_t cell = columns.lower[run.first]; cell <= last_cell; ++cell) {
      const int32_t next = std::min(cell + 1, head_width - 1);
      const float left = above[cell], right = above[next];
      const Floats4 fall = All4(is_same_height ? 0.0f : below[cell] - left);
      const Floats4 fall_of_right = All4(is_same_height ? 0.0f : below[next] - right);
      const int32_t end = begin[cell + 1];
      for (int32_t y = top; y < bottom; y += 4) {
        const Floats4 lefts = fall * Load4(down + y) + All4(left);
        const Floats4 rights = fall_of_right * Load4(down + y) + All4(right);
        const Floats4 rises = is_same_width ? Floats4{} : rights - lefts;
        for (int32_t i = 0; i < std::min(bottom - y, 4); ++i) {
          float* const row = heat + static_cast<size_t>(y + i - top) * stride;
          for (int32_t x = begin[cell]; x < end; x += 4) {
            const Floats4 value = All4(rises[i]) * Load4(across + x) + All4(lefts[i]);
            Ints4 is_kept = value > floor;
            // Up to three pixels more are written, but none outside of the canvas.
            if (x + 4 > width) is_kept &= FirstOfFour(width - x);
            Store4((Floats4)((Ints4)value & is_kept), row + x);
          }
        }
      }
    }
  }
}

void CenterFinder::FindPeaks(int32_t y, const Run& run, const float* row, int32_t stride,
                             std::vector<DleCenter>* peaks) const {
  for (int32_t x = run.first; x < run.second; x += 4) {
    const float* const pixel = row + x;
    const Floats4 value = Load4(pixel);
    // Most pixels have a larger one right beside them.
    Ints4 may_be = (value > Floats4{}) & FirstOfFour(run.second - x);
    if (left_ > 0) may_be &= (value >= Load4(pixel - 1)) & (value >= Load4(pixel - stride));
    if (right_ > 0) may_be &= (value >= Load4(pixel + 1)) & (value >= Load4(pixel + stride));
    if (!Any(may_be)) continue;
    for (int i = 0; i < 4; ++i) {
      if (may_be[i] && IsPeak(pixel + i, stride)) peaks->push_back({y, x + i, pixel[i]});
    }
  }
}

bool CenterFinder::IsPeak(const float* pixel, int32_t stride) const {
  const float value = *pixel;
  for (int32_t i = -above_; i <= below_; ++i) {
    const float* const row = pixel + static_cast<ptrdiff_t>(i) * stride;
    bool is_larger = false;
    for (int32_t j = -left_; j <= right_; ++j) is_larger |= row[j] > value;
    if (is_larger) return false;
  }
  return true;
}

}  // namespace dle
