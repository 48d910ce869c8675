#include "centers.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

#include "floats4.h"
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
  for (const float value : frame.heat) {
    const float size = std::fabs(value);
    if (size > largest && size <= FLT_MAX) largest = size;
  }
  // Two interpolations round a value by less than 10 units (2^-24) of the largest one.
  low_ = floor_ - largest / (1 << 20);
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
  const int32_t stride = left_ + frame.width() + right_;
  // Rows and columns outside of the canvas stay 0, which is below every peak.
  const int32_t num_rows = end - first + above_ + below_;
  const size_t size = static_cast<size_t>(num_rows) * stride + 4;
  if (band->heat.size() < size) band->heat.resize(size, 0.0f);
  band->line.resize(static_cast<size_t>(frame.head_width()));
  const auto row_of = [&](int32_t y) {
    return band->heat.data() + static_cast<size_t>(y - (first - above_)) * stride + left_;
  };
  const int32_t* const cell_row = frame.rows.lower.data();
  const int32_t first_cell = cell_row[top];
  band->runs.resize(static_cast<size_t>(cell_row[bottom - 1] - first_cell) + 1);
  const auto runs_of = [&](int32_t y) -> const std::vector<Run>& {
    return band->runs[cell_row[y] - first_cell];
  };
  bool is_empty = true;
  for (int32_t i = cell_row[first]; i <= cell_row[end - 1]; ++i) {
    FindRuns(frame, i, &band->runs[i - first_cell]);
    is_empty = is_empty && band->runs[i - first_cell].empty();
  }
  if (is_empty) return;
  for (int32_t i = first_cell; i < cell_row[first]; ++i) {
    FindRuns(frame, i, &band->runs[i - first_cell]);
  }
  for (int32_t i = cell_row[end - 1] + 1; i <= cell_row[bottom - 1]; ++i) {
    FindRuns(frame, i, &band->runs[i - first_cell]);
  }
  for (int32_t y = top; y < bottom; ++y) {
    Upsample(frame, y, runs_of(y), band->line.data(), row_of(y));
  }
  for (int32_t y = first; y < end; ++y) {
    for (const Run& run : runs_of(y)) FindPeaks(y, run, row_of(y), stride, peaks);
  }
  for (int32_t y = top; y < bottom; ++y) {
    for (const Run& run : runs_of(y)) {
      std::fill(row_of(y) + run.first, row_of(y) + run.second, 0.0f);
    }
  }
}

// Lists where values above the floor can be. Not-a-number is not low.
void CenterFinder::FindRuns(const Frame& frame, int32_t cell_row,
                            std::vector<Run>* runs) const {
  runs->clear();
  const int32_t width = frame.head_width();
  const float* const above = frame.heat.data() + static_cast<size_t>(cell_row) * width;
  const float* const below = cell_row + 1 < frame.head_height() ? above + width : above;
  bool was_low = above[0] <= low_ && below[0] <= low_;
  for (int32_t cell = 0; cell < width; ++cell) {
    const int32_t next = std::min(cell + 1, width - 1);
    const bool is_low = above[next] <= low_ && below[next] <= low_;
    if (!was_low || !is_low) {
      const int32_t begin = frame.columns.begin[cell], end = frame.columns.begin[cell + 1];
      if (begin == end) {
      } else if (!runs->empty() && runs->back().second == begin) {
        runs->back().second = end;
      } else {
        runs->push_back({begin, end});
      }
    }
    was_low = is_low;
  }
}

// The reference does not interpolate along an axis that keeps its size.
void CenterFinder::Upsample(const Frame& frame, int32_t y, const std::vector<Run>& runs,
                            float* line, float* row) const {
  const CellAxis &rows = frame.rows, &columns = frame.columns;
  const size_t width = static_cast<size_t>(frame.head_width());
  const float* const above = frame.heat.data() + rows.lower[y] * width;
  const float* const below = frame.heat.data() + rows.upper[y] * width;
  const float down = rows.weight[y];
  const bool is_same_height = rows.n_in == rows.n_out;
  const bool is_same_width = columns.n_in == columns.n_out;
  for (const Run& run : runs) {
    const int32_t end = columns.upper[run.second - 1];
    for (int32_t i = columns.lower[run.first]; i <= end; ++i) {
      line[i] = is_same_height ? above[i] : Lerp(above[i], below[i], down);
    }
    if (is_same_width) {
      for (int32_t x = run.first; x < run.second; ++x) {
        row[x] = line[x] > floor_ ? line[x] : 0.0f;
      }
      continue;
    }
    for (int32_t cell = columns.lower[run.first]; cell <= columns.lower[run.second - 1];
         ++cell) {
      const int32_t next = std::min(cell + 1, columns.n_in - 1);
      const Floats4 left = All4(line[cell]), right = All4(line[next]);
      const int32_t last = columns.begin[cell + 1];
      for (int32_t x = columns.begin[cell]; x < last; x += 4) {
        const Floats4 value = Lerp(left, right, Load4(columns.weight.data() + x));
        // Up to three pixels more are written, which are of the next cell or 0.
        const Ints4 is_kept = (value > All4(floor_)) & FirstOfFour(last - x);
        Store4((Floats4)((Ints4)value & is_kept), row + x);
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
