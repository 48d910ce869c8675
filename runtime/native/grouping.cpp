#include "grouping.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace dle {
namespace {

// Votes outside of canvas and surroundings look at all centers.
constexpr int32_t kSurroundings = 64;
constexpr int32_t kSmallestSide = 8;
constexpr int32_t kLargestSide = 128;
// Where these hold, a vote is computed to less than 1/128 pixel.
constexpr int32_t kMaxCanvasSide = 1 << 14;
constexpr float kMaxOffset = 1 << 12;
// A square of a distance up to this is computed to less than 1/4.
constexpr float kMaxSquare = 1 << 20;
// Above what rounding to float32 does to a squared distance.
constexpr float kRounding = 1.0f / (1 << 20);
constexpr float kFarAway = 1e18f;

float Square(float value) { return value * value; }

Floats4 SquaresOf(float y, float x, const float* center_y, const float* center_x) {
  const Floats4 dy = All4(y) - Load4(center_y), dx = All4(x) - Load4(center_x);
  return dy * dy + dx * dx;
}

}  // namespace

void CenterIndex::Build(const std::vector<DleCenter>& centers, int32_t height,
                        int32_t width) {
  height_ = height;
  width_ = width;
  fours_.clear();
  pending_.clear();
  for (size_t i = 0; i < centers.size(); ++i) {
    pending_.push_back({static_cast<float>(centers[i].y), static_cast<float>(centers[i].x),
                        static_cast<int32_t>(i)});
  }
  if (pending_.empty()) return;
  all_ = Add(pending_.data(), pending_.size());
  const double area = static_cast<double>(height) * width;
  side_ = kLargestSide;
  while (side_ > kSmallestSide && 1.0 * side_ * side_ * pending_.size() > area) side_ /= 2;
  per_side_ = 1.0f / static_cast<float>(side_);
  num_rows_ = (height + 2 * kSurroundings) / side_ + 1;
  num_columns_ = (width + 2 * kSurroundings) / side_ + 1;
  buckets_.resize(static_cast<size_t>(num_rows_) * num_columns_);
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
  const uint32_t first = static_cast<uint32_t>(fours_.size());
  for (size_t i = 0; i < count; i += 4) {
    Four four;
    for (size_t lane = 0; lane < 4; ++lane) {
      const bool is_there = i + lane < count;
      four.y[lane] = is_there ? entries[i + lane].y : kFarAway;
      four.x[lane] = is_there ? entries[i + lane].x : kFarAway;
      four.index[lane] = is_there ? entries[i + lane].index : 0;
    }
    fours_.push_back(four);
  }
  return {first, static_cast<uint32_t>(fours_.size()) - first};
}

const CenterIndex::Bucket& CenterIndex::BucketOf(float y, float x) const {
  const float row = (y + kSurroundings) * per_side_;
  const float column = (x + kSurroundings) * per_side_;
  // Also false for what is not a number.
  if (row >= 0.0f && row < static_cast<float>(num_rows_) && column >= 0.0f &&
      column < static_cast<float>(num_columns_)) {
    return buckets_[static_cast<size_t>(static_cast<int32_t>(row)) * num_columns_ +
                    static_cast<int32_t>(column)];
  }
  return all_;
}

int32_t CenterIndex::Nearest(float y, float x) const {
  const Bucket bucket = BucketOf(y, x);
  float shortest = std::numeric_limits<float>::infinity();
  int32_t nearest = 0;
  for (uint32_t i = bucket.first; i < bucket.first + bucket.count; ++i) {
    const Four& four = fours_[i];
    const Floats4 squares = SquaresOf(y, x, four.y, four.x);
    for (int lane = 0; lane < 4; ++lane) {
      const bool is_shorter = squares[lane] < shortest;
      nearest = is_shorter ? four.index[lane] : nearest;
      shortest = is_shorter ? squares[lane] : shortest;
    }
  }
  return nearest;
}

int32_t CenterIndex::ClearNearest(float y, float x, float dy, float dx) const {
  // Also false for what is not a number.
  if (!(std::fabs(dy) <= kMaxOffset && std::fabs(dx) <= kMaxOffset) ||
      height_ > kMaxCanvasSide || width_ > kMaxCanvasSide) {
    return -1;
  }
  const Bucket bucket = BucketOf(y, x);
  float shortest = std::numeric_limits<float>::infinity(), second = shortest;
  int32_t nearest = -1;
  for (uint32_t i = bucket.first; i < bucket.first + bucket.count; ++i) {
    const Four& four = fours_[i];
    const Floats4 squares = SquaresOf(y, x, four.y, four.x);
    for (int lane = 0; lane < 4; ++lane) {
      const float square = squares[lane];
      const bool is_shorter = square < shortest;
      second = is_shorter ? shortest : std::min(second, square);
      nearest = is_shorter ? four.index[lane] : nearest;
      shortest = is_shorter ? square : shortest;
    }
  }
  if (!(shortest <= kMaxSquare)) return -1;
  // The difference of two squares of distances is an affine function of the vote, so what
  // holds at the corners of a cell holds between them; an error of 1/128 pixel in each
  // vote changes it by at most 1/64 of the sum of the distances.
  const float margin = 1.0f + (std::sqrt(shortest) + std::sqrt(second)) / 64.0f;
  return second - shortest > margin ? nearest : -1;
}

}  // namespace dle
