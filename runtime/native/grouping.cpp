#include "grouping.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace dle {
namespace {

// Votes outside of canvas and surroundings look at all centers.
constexpr int32_t kSurroundings = 128;
constexpr int32_t kSmallestSide = 8;
constexpr int32_t kLargestSide = 128;
// Where these hold, a vote is computed to less than 1/128 pixel.
constexpr int32_t kMaxCanvasSide = 1 << 14;
constexpr float kMaxOffset = 1 << 12;
// A square of a distance up to this is computed to less than 1/4.
constexpr float kMaxSquare = 1 << 20;

float Square(float value) { return value * value; }

// The largest of |p - d|^2 - |p - c|^2 over points p of an interval, along one axis.
double LargestDifference(double low, double high, double d, double c) {
  const double slope = 2.0 * (c - d);
  return slope * (slope > 0.0 ? high : low) + d * d - c * c;
}

}  // namespace

void CenterIndex::Build(const std::vector<DleCenter>& centers, int32_t height,
                        int32_t width) {
  height_ = height;
  width_ = width;
  all_.clear();
  entries_.clear();
  pending_.clear();
  for (size_t i = 0; i < centers.size(); ++i) {
    all_.push_back({static_cast<float>(centers[i].y), static_cast<float>(centers[i].x),
                    static_cast<int32_t>(i)});
  }
  if (all_.empty()) return;
  const double area = static_cast<double>(height) * width;
  side_ = kLargestSide;
  while (side_ > kSmallestSide && 4.0 * side_ * side_ * all_.size() > area) side_ /= 2;
  num_rows_ = (height + 2 * kSurroundings) / side_ + 1;
  num_columns_ = (width + 2 * kSurroundings) / side_ + 1;
  buckets_.resize(static_cast<size_t>(num_rows_) * num_columns_);
  int32_t size = 1;
  while (size < std::max(num_rows_, num_columns_)) size *= 2;
  pending_ = all_;
  Refine(0, 0, size, 0, all_.size());
}

// Leaves out the centers that lose everywhere in a square of buckets to the one nearest to
// its middle, and goes on with its quarters. Whatever is left out loses by more than
// ClearNearest asks for, and by more than rounding could hide.
void CenterIndex::Refine(int32_t row, int32_t column, int32_t size, size_t first,
                         size_t count) {
  if (row >= num_rows_ || column >= num_columns_) return;
  // A little more, as votes round to one side or the other of an edge.
  const double low_y = static_cast<double>(row) * side_ - kSurroundings - 0.01;
  const double low_x = static_cast<double>(column) * side_ - kSurroundings - 0.01;
  const double high_y = low_y + static_cast<double>(size) * side_ + 0.02;
  const double high_x = low_x + static_cast<double>(size) * side_ + 0.02;
  const float middle_y = static_cast<float>((low_y + high_y) / 2);
  const float middle_x = static_cast<float>((low_x + high_x) / 2);
  size_t nearest = first;
  float shortest = std::numeric_limits<float>::infinity();
  for (size_t i = first; i < first + count; ++i) {
    const float square =
        Square(pending_[i].y - middle_y) + Square(pending_[i].x - middle_x);
    if (square < shortest) {
      shortest = square;
      nearest = i;
    }
  }
  const Entry best = pending_[nearest];
  const double reach_y = std::max(high_y - best.y, best.y - low_y);
  const double reach_x = std::max(high_x - best.x, best.x - low_x);
  const double reach = reach_y * reach_y + reach_x * reach_x;
  const double margin = 2.0 + std::sqrt(reach) / 16 + reach / (1 << 20);
  const size_t start = pending_.size();
  for (size_t i = first; i < first + count; ++i) {
    const Entry entry = pending_[i];
    if (LargestDifference(low_y, high_y, best.y, entry.y) +
            LargestDifference(low_x, high_x, best.x, entry.x) >=
        -margin) {
      pending_.push_back(entry);
    }
  }
  const size_t left = pending_.size() - start;
  if (left == 1 || size == 1) {
    Keep(row, column, size, start, left);
  } else {
    const int32_t half = size / 2;
    Refine(row, column, half, start, left);
    Refine(row, column + half, half, start, left);
    Refine(row + half, column, half, start, left);
    Refine(row + half, column + half, half, start, left);
  }
  pending_.resize(start);
}

void CenterIndex::Keep(int32_t row, int32_t column, int32_t size, size_t first,
                       size_t count) {
  const Bucket bucket = {static_cast<uint32_t>(entries_.size()),
                         static_cast<uint32_t>(count)};
  entries_.insert(entries_.end(), pending_.begin() + first, pending_.begin() + first + count);
  const int32_t end_row = std::min(row + size, num_rows_);
  const int32_t end_column = std::min(column + size, num_columns_);
  for (int32_t i = row; i < end_row; ++i) {
    Bucket* const buckets = buckets_.data() + static_cast<size_t>(i) * num_columns_;
    std::fill(buckets + column, buckets + end_column, bucket);
  }
}

void CenterIndex::Candidates(float y, float x, const Entry** entries,
                             size_t* count) const {
  const float row = (y + kSurroundings) / side_, column = (x + kSurroundings) / side_;
  if (row >= 0.0f && row < num_rows_ && column >= 0.0f && column < num_columns_) {
    const Bucket& bucket = buckets_[static_cast<size_t>(row) * num_columns_ +
                                    static_cast<size_t>(column)];
    *entries = entries_.data() + bucket.first;
    *count = bucket.count;
  } else {
    *entries = all_.data();
    *count = all_.size();
  }
}

int32_t CenterIndex::Nearest(float y, float x) const {
  const Entry* entries;
  size_t count;
  Candidates(y, x, &entries, &count);
  if (count == 1) return entries[0].index;
  float shortest = std::numeric_limits<float>::infinity();
  int32_t nearest = 0;
  for (size_t i = 0; i < count; ++i) {
    const float square = Square(y - entries[i].y) + Square(x - entries[i].x);
    if (square < shortest) {
      shortest = square;
      nearest = entries[i].index;
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
  const Entry* entries;
  size_t count;
  Candidates(y, x, &entries, &count);
  float shortest = std::numeric_limits<float>::infinity(), second = shortest;
  int32_t nearest = -1;
  for (size_t i = 0; i < count; ++i) {
    const float square = Square(y - entries[i].y) + Square(x - entries[i].x);
    if (square < shortest) {
      second = shortest;
      shortest = square;
      nearest = entries[i].index;
    } else if (square < second) {
      second = square;
    }
  }
  // The difference of two squares of distances is an affine function of the vote, so what
  // holds at the corners of a cell holds between them; an error of 1/128 pixel in each
  // vote changes it by at most 1/64 of the sum of the distances.
  if (!(shortest <= kMaxSquare)) return -1;
  if (second == std::numeric_limits<float>::infinity()) return nearest;
  const float margin = 1.0f + (std::sqrt(shortest) + std::sqrt(second)) / 64.0f;
  return second - shortest > margin ? nearest : -1;
}

}  // namespace dle
