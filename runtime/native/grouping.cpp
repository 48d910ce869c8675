#include "grouping.h"

#include <algorithm>
#include <cmath>
#include <limits>

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
// Above what rounding to float32 does to a squared distance.
constexpr float kRounding = 1.0f / (1 << 20);

float Square(float value) { return value * value; }

Floats4 SquaresOf(Floats4 y, Floats4 x, float center_y, float center_x) {
  const Floats4 dy = y - All4(center_y), dx = x - All4(center_x);
  return dy * dy + dx * dx;
}

Floats4 Magnitude(Floats4 value) { return (Floats4)((Ints4)value & 0x7fffffff); }

}  // namespace

void CenterIndex::Build(const std::vector<DleCenter>& centers, int32_t height,
                        int32_t width) {
  entries_.clear();
  pending_.clear();
  for (size_t i = 0; i < centers.size(); ++i) {
    pending_.push_back({static_cast<float>(centers[i].y), static_cast<float>(centers[i].x),
                        static_cast<int32_t>(i)});
  }
  if (pending_.empty()) return;
  const Bucket all = Add(pending_.data(), pending_.size());
  const double area = static_cast<double>(height) * width;
  side_ = kLargestSide;
  while (side_ > kSmallestSide && 1.0 * side_ * side_ * pending_.size() > area) side_ /= 2;
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
  const uint32_t first = static_cast<uint32_t>(entries_.size());
  entries_.insert(entries_.end(), entries, entries + count);
  return {first, static_cast<uint32_t>(count)};
}

// Calls body(bucket, lanes) for the buckets in which votes lie.
template <typename Body>
void CenterIndex::ForEachBucket(Floats4 y, Floats4 x, Ints4 is_wanted,
                                const Body& body) const {
  const Floats4 row = (y + static_cast<float>(kSurroundings)) * per_side_;
  const Floats4 column = (x + static_cast<float>(kSurroundings)) * per_side_;
  // Also false for what is not a number.
  const Ints4 is_near = (row >= 0.0f) & (row < static_cast<float>(num_rows_)) &
                        (column >= 0.0f) & (column < static_cast<float>(num_columns_));
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
    const Entry* const entries = entries_.data() + bucket.first;
    for (uint32_t i = 0; i < bucket.count; ++i) {
      const Floats4 squares = SquaresOf(y, x, entries[i].y, entries[i].x);
      const Ints4 is_shorter = squares < shortest;
      nearest = Select(is_shorter, Ints4{} + entries[i].index, nearest);
      shortest = Select(is_shorter, squares, shortest);
    }
    result = Select(is_here, nearest, result);
  });
  return result;
}

Ints4 CenterIndex::ClearNearest(Floats4 y, Floats4 x, Floats4 dy, Floats4 dx,
                                Ints4 is_wanted) const {
  Ints4 result = Ints4{} - 1;
  // Also false for what is not a number.
  is_wanted &= (Magnitude(dy) <= kMaxOffset) & (Magnitude(dx) <= kMaxOffset);
  ForEachBucket(y, x, is_wanted, [&](const Bucket& bucket, Ints4 is_here) {
    Floats4 shortest = All4(std::numeric_limits<float>::max()), second = shortest;
    Ints4 nearest = {};
    const Entry* const entries = entries_.data() + bucket.first;
    for (uint32_t i = 0; i < bucket.count; ++i) {
      const Floats4 squares = SquaresOf(y, x, entries[i].y, entries[i].x);
      const Ints4 is_shorter = squares < shortest;
      nearest = Select(is_shorter, Ints4{} + entries[i].index, nearest);
      second = Select(is_shorter, shortest, Min(second, squares));
      shortest = Select(is_shorter, squares, shortest);
    }
    // The difference of two squares of distances is an affine function of the vote, so
    // what holds at the corners of a cell holds between them; an error of 1/128 pixel in
    // each vote changes it by at most 1/64 of the sum of the distances, which is less
    // than 1/32 of 16 and a 64th of the larger square.
    const Floats4 margin = 1.5f + second * (1.0f / 2048);
    const Ints4 is_clear = (shortest <= kMaxSquare) & (second - shortest > margin);
    result = Select(is_here & is_clear, nearest, result);
  });
  return result;
}

}  // namespace dle
