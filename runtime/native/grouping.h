// The nearest instance center of a vote, at a cost that hardly grows with the centers.

#ifndef DEEPLAB2_EDGE_GROUPING_H_
#define DEEPLAB2_EDGE_GROUPING_H_

#include <stddef.h>
#include <stdint.h>

#include <vector>

#include "deeplab2_edge.h"
#include "lanes.h"

namespace dle {

inline Floats4 SquaresOf(Floats4 y, Floats4 x, Floats4 center_y, Floats4 center_x) {
  const Floats4 dy = y - center_y, dx = x - center_x;
  return dy * dy + dx * dx;
}

// The centers that can be the nearest of votes between four, ascending. Memory of one
// thread.
struct Rivals {
  static constexpr int32_t kMaxCount = 8;

  // What follows them is far away.
  int32_t count = 0;
  int32_t indices[kMaxCount];
  Floats4 y[kMaxCount];
  Floats4 x[kMaxCount];

  std::vector<uint32_t> seen;  // [N + 1] the last search that met a center
  uint32_t search = 0;
};

// A grid of square buckets over canvas and surroundings, each with the centers that can
// be the nearest of a vote in it, found from large squares to small ones.
class CenterIndex {
 public:
  // The longest side of a canvas, in pixels, on which ClearNearest can be relied on.
  static constexpr int32_t kMaxClearSide = 1 << 13;

  // Throws std::bad_alloc.
  void Build(const std::vector<DleCenter>& centers, int32_t height, int32_t width);

  // Gives the indices of the nearest centers of four votes as the reference finds them: by
  // float32 squares of distances; the first one on a tie and for a vote that is not a
  // number. Only of the votes that are wanted.
  Ints4 Nearest(Floats4 y, Floats4 x, Ints4 is_wanted) const;

  // Gives the indices + 1 of the nearest centers of the votes of four source pixels:
  // negative if between such votes another one may be the nearest though they have the
  // same; 0 if that cannot be said. The offset is what a vote adds to the place of its
  // pixel.
  Ints4 ClearNearest(Floats4 y, Floats4 x, Floats4 dy, Floats4 dx, Ints4 is_wanted) const;

  // Lists all centers that can be the nearest of votes between those of four source
  // pixels, however they are rounded. Needs the nearest ones of the four, of which none may
  // be unknown. Returns false if there are too many.
  bool FindRivals(Floats4 y, Floats4 x, Ints4 nearest, Rivals* rivals) const;

 private:
  struct Entry {
    float y;
    float x;
    int32_t index;
  };
  // The centers of buckets, to be read by four: those too many are far away.
  struct Entries {
    std::vector<float> y;
    std::vector<float> x;
    std::vector<int32_t> index;
  };
  struct Bucket {
    uint32_t first;
    uint32_t count;
  };

  void Refine(int32_t row, int32_t column, int32_t size, size_t first, size_t count);
  void Keep(int32_t row, int32_t column, int32_t size, size_t first, size_t count);
  Bucket Add(const Entry* entries, size_t count);
  Ints4 IsNear(Floats4 row, Floats4 column) const;
  static Floats4 LessMargin(Floats4 larger_squares);
  template <typename Body>
  void ForEachBucket(Floats4 y, Floats4 x, Ints4 is_wanted, const Body& body) const;

  int32_t side_ = 1;  // of a bucket, in pixels
  float per_side_ = 1.0f;
  int32_t num_rows_ = 0;
  int32_t num_columns_ = 0;
  std::vector<Entry> pending_;  // a stack of lists
  std::vector<float> squares_;
  int32_t no_index_ = 0;  // of entries that are none
  Entries entries_;
  std::vector<Bucket> buckets_;  // the last one has all
};

}  // namespace dle

#endif  // DEEPLAB2_EDGE_GROUPING_H_
