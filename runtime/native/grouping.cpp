#include "grouping.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "lanes.h"

namespace dle {
namespace {

// Votes outside of canvas and surroundings look at all centers.
constexpr int32_t kSurroundings = 32;
constexpr int32_t kSmallestSide = 8;
constexpr int32_t kLargestSide = 128;
// Up to this, and on canvases of sides up to kMaxClearSide, a vote is computed to less
// than 1/128 pixel.
constexpr float kMaxOffset = 1 << 12;
// A square of a distance up to this is computed to less than 1/4.
constexpr float kMaxSquare = 1 << 20;
// Of votes that are farther apart rivals are not searched.
constexpr int32_t kMaxBuckets = 64;
constexpr uint32_t kMaxFound = 32;
// Squares of such distances are finite.
constexpr float kFarAway = 1e9f;
// Above what rounding to float32 does to a squared distance.
constexpr float kRounding = 1.0f / (1 << 20);

float Square(float value) { return value * value; }

template <typename Values>
auto LeastAndMost(Values values) {
  return std::pair{std::min(std::min(values[0], values[1]), std::min(values[2], values[3])),
          std::max(std::max(values[0], values[1]), std::max(values[2], values[3]))};
}

Floats4 Magnitude(Floats4 value) { return (Floats4)((Ints4)value & 0x7fffffff); }

}  // namespace

void CenterIndex::Build(const std::vector<DleCenter>& centers, int32_t height,
                        int32_t width) {
  entries_.y.clear();
  entries_.x.clear();
  entries_.index.clear();
  pending_.clear();
  for (size_t i = 0; i < centers.size(); ++i) {
    pending_.push_back({static_cast<float>(centers[i].y), static_cast<float>(centers[i].x),
                        static_cast<int32_t>(i)});
  }
  if (pending_.empty()) return;
  no_index_ = static_cast<int32_t>(centers.size());
  const Bucket all = Add(pending_.data(), pending_.size());
  const double area = static_cast<double>(height) * width;
  side_ = kLargestSide;
  while (side_ > kSmallestSide && 0.5 * side_ * side_ * pending_.size() > area) side_ /= 2;
  per_side_ = 1.0f / static_cast<float>(side_);
  num_rows_ = (height + 2 * kSurroundings) / side_ + 1;
  num_columns_ = (width + 2 * kSurroundings) / side_ + 1;
  buckets_.resize(static_cast<size_t>(num_rows_) * num_columns_ + 1);
  buckets_.back() = all;
  int32_t size = 1;
  while (size < std::max(num_rows_, num_columns_)) size *= 2;
  Refine(0, 0, size, 0, pending_.size());
}

// Leaves out the centers that lose everywhere in a square of buckets to the one nearest to
// its middle, and goes on with its quarters. Whatever is left out loses by more than
// ClearNearest asks for, and by more than rounding could hide.
void CenterIndex::Refine(int32_t row, int32_t column, int32_t size, size_t first,
                         size_t count) {
  if (row >= num_rows_ || column >= num_columns_) return;
  const float half = 0.5f * static_cast<float>(size * side_);
  const float y = static_cast<float>(row * side_ - kSurroundings) + half;
  const float x = static_cast<float>(column * side_ - kSurroundings) + half;
  const size_t start = first + count;
  if (pending_.size() < start + count) pending_.resize(start + count);
  if (squares_.size() < count) squares_.resize(count);
  const Entry* const entries = pending_.data() + first;
  for (size_t i = 0; i < count; ++i) {
    squares_[i] = Square(entries[i].y - y) + Square(entries[i].x - x);
  }
  const size_t nearest = static_cast<size_t>(
      std::min_element(squares_.begin(), squares_.begin() + count) - squares_.begin());
  const Entry best = entries[nearest];
  // For p within `reach` of the middle along each axis, |p - c|^2 - |p - best|^2 is at
  // least that at the middle less 2 * reach * (|cy - by| + |cx - bx|).
  const float reach = half + 0.01f;  // votes round to one side or the other of an edge
  const float farthest = std::sqrt(squares_[nearest]) + 1.5f * reach;
  const float margin = 2.0f + farthest / 16 + 2 * kRounding * farthest * farthest;
  const float limit = squares_[nearest] * (1.0f + kRounding) + margin;
  Entry* const kept = pending_.data() + start;
  size_t left = 0;
  for (size_t i = 0; i < count; ++i) {
    const Entry entry = entries[i];
    const float gain =
        2.0f * reach * (std::fabs(entry.y - best.y) + std::fabs(entry.x - best.x));
    kept[left] = entry;
    left += squares_[i] * (1.0f - kRounding) <= limit + gain * (1.0f + kRounding) ? 1 : 0;
  }
  if (left == 1 || size == 1) {
    Keep(row, column, size, start, left);
    return;
  }
  const int32_t step = size / 2;
  Refine(row, column, step, start, left);
  Refine(row, column + step, step, start, left);
  Refine(row + step, column, step, start, left);
  Refine(row + step, column + step, step, start, left);
}

void CenterIndex::Keep(int32_t row, int32_t column, int32_t size, size_t first,
                       size_t count) {
  const Bucket bucket = Add(pending_.data() + first, count);
  const int32_t end_row = std::min(row + size, num_rows_);
  const int32_t end_column = std::min(column + size, num_columns_);
  for (int32_t i = row; i < end_row; ++i) {
    Bucket* const buckets = buckets_.data() + static_cast<size_t>(i) * num_columns_;
    std::fill(buckets + column, buckets + end_column, bucket);
  }
}

CenterIndex::Bucket CenterIndex::Add(const Entry* entries, size_t count) {
  const size_t first = entries_.index.size();
  const size_t size = first + (count + 3) / 4 * 4;
  entries_.y.resize(size, kFarAway);
  entries_.x.resize(size, kFarAway);
  entries_.index.resize(size, no_index_);
  for (size_t i = 0; i < count; ++i) {
    entries_.y[first + i] = entries[i].y;
    entries_.x[first + i] = entries[i].x;
    entries_.index[first + i] = entries[i].index;
  }
  return {static_cast<uint32_t>(first), static_cast<uint32_t>(count)};
}

// False for what is not a number.
Ints4 CenterIndex::IsNear(Floats4 row, Floats4 column) const {
  return (row >= 0.0f) & (row < static_cast<float>(num_rows_)) & (column >= 0.0f) &
         (column < static_cast<float>(num_columns_));
}

// Calls body(bucket, lanes) for the buckets in which votes lie.
template <typename Body>
void CenterIndex::ForEachBucket(Floats4 y, Floats4 x, Ints4 is_wanted,
                                const Body& body) const {
  const Floats4 row = (y + static_cast<float>(kSurroundings)) * per_side_;
  const Floats4 column = (x + static_cast<float>(kSurroundings)) * per_side_;
  const Ints4 is_near = IsNear(row, column);
  const Ints4 last = Ints4{} + static_cast<int32_t>(buckets_.size() - 1);
  const Ints4 near_row = __builtin_convertvector((Floats4)((Ints4)row & is_near), Ints4);
  const Ints4 near_column =
      __builtin_convertvector((Floats4)((Ints4)column & is_near), Ints4);
  const Ints4 bucket = Select(is_near, near_row * num_columns_ + near_column, last);
  for (int first = 0; first < 4; ++first) {
    if (!is_wanted[first]) continue;
    const Ints4 is_here = (bucket == Ints4{} + bucket[first]) & is_wanted;
    body(buckets_[static_cast<size_t>(bucket[first])], is_here);
    is_wanted &= ~is_here;
  }
}

Ints4 CenterIndex::Nearest(Floats4 y, Floats4 x, Ints4 is_wanted) const {
  Ints4 result = {};
  ForEachBucket(y, x, is_wanted, [&](const Bucket& bucket, Ints4 is_here) {
    Floats4 shortest = All4(std::numeric_limits<float>::infinity());
    Ints4 nearest = {};
    for (uint32_t i = bucket.first; i < bucket.first + bucket.count; ++i) {
      const Floats4 squares = SquaresOf(y, x, All4(entries_.y[i]), All4(entries_.x[i]));
      const Ints4 is_shorter = squares < shortest;
      nearest = Select(is_shorter, Ints4{} + entries_.index[i], nearest);
      shortest = Min(squares, shortest);
    }
    result = Select(is_here, nearest, result);
  });
  return result;
}

// Why four votes say what holds between them: the difference of the squares of the
// distances to two centers is an affine function of the vote. An error of 1/128 pixel in
// each vote changes it by at most 1/64 of the sum of the distances, which is less than 1/32
// of 16 and a 64th of the larger square; the rest is for rounding the squares.
Floats4 CenterIndex::LessMargin(Floats4 larger_squares) {
  return larger_squares * (2047.0f / 2048) - 2.0f;
}

Ints4 CenterIndex::ClearNearest(Floats4 y, Floats4 x, Floats4 dy, Floats4 dx,
                                Ints4 is_wanted) const {
  Ints4 result = {};
  // Also false for what is not a number.
  is_wanted &= (Magnitude(dy) <= kMaxOffset) & (Magnitude(dx) <= kMaxOffset);
  ForEachBucket(y, x, is_wanted, [&](const Bucket& bucket, Ints4 is_here) {
    Floats4 shortest = All4(std::numeric_limits<float>::max()), second = shortest;
    Ints4 nearest = {};
    for (uint32_t i = bucket.first; i < bucket.first + bucket.count; ++i) {
      const Floats4 squares = SquaresOf(y, x, All4(entries_.y[i]), All4(entries_.x[i]));
      const Ints4 is_shorter = squares < shortest;
      nearest = Select(is_shorter, Ints4{} + (entries_.index[i] + 1), nearest);
      second = Min(Max(squares, shortest), second);
      shortest = Min(squares, shortest);
    }
    const Ints4 is_clear = LessMargin(second) > shortest;
    nearest = Select(is_clear, nearest, -nearest);
    result = Select(is_here & (shortest <= kMaxSquare), nearest, result);
  });
  return result;
}

bool CenterIndex::FindRivals(Floats4 y, Floats4 x, Ints4 nearest, Rivals* rivals) const {
  const Floats4 row = (y + static_cast<float>(kSurroundings)) * per_side_;
  const Floats4 column = (x + static_cast<float>(kSurroundings)) * per_side_;
  const Ints4 is_near = IsNear(row, column);
  if (Any(~is_near)) return false;
  const Ints4 rows = __builtin_convertvector(row, Ints4);
  const Ints4 columns = __builtin_convertvector(column, Ints4);
  const auto [top, bottom] = LeastAndMost(rows);
  const auto [left, right] = LeastAndMost(columns);
  if ((bottom - top + 1) * (right - left + 1) > kMaxBuckets) return false;
  // Whoever loses to one of the nearest at all four votes loses between them. The first
  // bucket has the centers in their order.
  const bool are_two = !Any((nearest != nearest[0]) & (nearest != nearest[3]));
  const int num_bars = are_two ? 2 : 4;
  Floats4 bars[4][4], vote_y[4], vote_x[4];
  for (int k = 0; k < 4; ++k) {
    vote_y[k] = All4(y[k]);
    vote_x[k] = All4(x[k]);
  }
  for (int i = 0; i < num_bars; ++i) {
    const size_t index = static_cast<size_t>(nearest[are_two ? 3 * i : i]);
    const Floats4 squares = SquaresOf(y, x, All4(entries_.y[index]), All4(entries_.x[index]));
    for (int k = 0; k < 4; ++k) bars[i][k] = All4(squares[k]);
  }
  int32_t found[kMaxFound + 4];
  uint32_t count = 0;
  const uint32_t search = ++rivals->search;
  uint32_t* const seen = rivals->seen.data();
  for (int32_t i = top; i <= bottom; ++i) {
    const Bucket* const buckets = buckets_.data() + static_cast<size_t>(i) * num_columns_;
    for (int32_t j = left; j <= right; ++j) {
      const uint32_t end = buckets[j].first + buckets[j].count;
      for (uint32_t e = buckets[j].first; e < end; e += 4) {
        const Floats4 center_y = Load4(entries_.y.data() + e);
        const Floats4 center_x = Load4(entries_.x.data() + e);
        Floats4 less[4];
        for (int k = 0; k < 4; ++k) {
          less[k] = LessMargin(SquaresOf(vote_y[k], vote_x[k], center_y, center_x));
        }
        Ints4 loses = {};
        for (int b = 0; b < num_bars; ++b) {
          loses |= (less[0] > bars[b][0]) & (less[1] > bars[b][1]) & (less[2] > bars[b][2]) &
                   (less[3] > bars[b][3]);
        }
        if (!Any(~loses)) continue;
        if (count > kMaxFound) return false;
        for (int lane = 0; lane < 4; ++lane) {
          const int32_t index = entries_.index[e + lane];
          found[count] = index;
          count += static_cast<uint32_t>(~loses[lane] & (seen[index] != search));
          seen[index] = search;
        }
      }
    }
  }
  if (count > Rivals::kMaxCount) return false;
  for (uint32_t i = 1; i < count; ++i) {
    for (uint32_t k = i; k > 0 && found[k - 1] > found[k]; --k) {
      std::swap(found[k - 1], found[k]);
    }
  }
  rivals->count = static_cast<int32_t>(count);
  for (uint32_t i = 0; i < count; ++i) {
    rivals->indices[i] = found[i];
    rivals->y[i] = All4(entries_.y[static_cast<size_t>(found[i])]);
    rivals->x[i] = All4(entries_.x[static_cast<size_t>(found[i])]);
  }
  for (uint32_t i = count; i < Rivals::kMaxCount; ++i) {
    rivals->indices[i] = -1;
    rivals->y[i] = rivals->x[i] = All4(kFarAway);
  }
  return true;
}

}  // namespace dle
