// The nearest instance center of a vote, at a cost that hardly grows with the centers.

#ifndef DEEPLAB2_EDGE_GROUPING_H_
#define DEEPLAB2_EDGE_GROUPING_H_

#include <stddef.h>
#include <stdint.h>

#include <vector>

#include "deeplab2_edge.h"
#include "floats4.h"

namespace dle {

// A grid of square buckets over canvas and surroundings, each with the centers that can
// be the nearest of a vote in it, found from large squares to small ones.
class CenterIndex {
 public:
  // Throws std::bad_alloc.
  void Build(const std::vector<DleCenter>& centers, int32_t height, int32_t width);

  // Gives the index of the nearest center as the reference finds it: by float32 squares of
  // distances; the first one on a tie and for a vote that is not a number.
  int32_t Nearest(float y, float x) const;

  // Gives the index of the nearest center if it is by so much the nearest that it is also
  // the nearest of all votes between several that have it, however they are rounded; else
  // -1. The offset is what the vote adds to the place of its pixel.
  int32_t ClearNearest(float y, float x, float dy, float dx) const;

 private:
  struct Entry {
    float y;
    float x;
    int32_t index;
  };
  // Of the last four of a bucket some may be copies far away.
  struct Four {
    float y[4];
    float x[4];
    int32_t index[4];
  };
  struct Bucket {
    uint32_t first;
    uint32_t count;  // of fours
  };

  void Refine(int32_t row, int32_t column, int32_t size, size_t first, size_t count);
  void Keep(int32_t row, int32_t column, int32_t size, size_t first, size_t count);
  Bucket Add(const Entry* entries, size_t count);
  const Bucket& BucketOf(float y, float x) const;

  int32_t height_ = 0;
  int32_t width_ = 0;
  int32_t side_ = 1;  // of a bucket, in pixels
  float per_side_ = 1.0f;
  int32_t num_rows_ = 0;
  int32_t num_columns_ = 0;
  Bucket all_ = {0, 0};
  std::vector<Entry> pending_;  // a stack of lists
  std::vector<float> squares_;
  std::vector<Four> fours_;
  std::vector<Bucket> buckets_;
};

}  // namespace dle

#endif  // DEEPLAB2_EDGE_GROUPING_H_
