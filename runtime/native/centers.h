// Instance centers: the local maxima of the upsampled center heatmap.
//
// Only cells with a corner above the threshold are upsampled, a band of rows at a time.

#ifndef DEEPLAB2_EDGE_CENTERS_H_
#define DEEPLAB2_EDGE_CENTERS_H_

#include <stdint.h>

#include <utility>
#include <vector>

#include "deeplab2_edge.h"
#include "frame.h"
#include "pool.h"

namespace dle {

class CenterFinder {
 public:
  // Finds the centers of a frame whose heads were read, in raster order; see
  // deeplab2_edge.panoptic.find_centers. Throws std::bad_alloc.
  void Find(const Frame& frame, Pool* pool, std::vector<DleCenter>* centers);

 private:
  typedef std::pair<int32_t, int32_t> Run;  // begin and end of canvas columns

  // Memory of one thread. The heat is 0 outside of runs, and everywhere between bands.
  struct Band {
    std::vector<float> heat;
    std::vector<float> line;
    std::vector<std::vector<Run>> runs;  // of each row of cells
  };

  void SearchBand(const Frame& frame, int32_t first, int32_t end, Band* band,
                  std::vector<DleCenter>* peaks) const;
  void FindRuns(const Frame& frame, int32_t cell_row, std::vector<Run>* runs) const;
  void Upsample(const Frame& frame, int32_t y, const std::vector<Run>& runs, float* line,
                float* row) const;
  void FindPeaks(int32_t y, const Run& run, const float* row, int32_t stride,
                 std::vector<DleCenter>* peaks) const;
  bool IsPeak(const float* pixel, int32_t stride) const;

  // How far the window reaches, at most over the whole canvas.
  int32_t above_ = 0;
  int32_t below_ = 0;
  int32_t left_ = 0;
  int32_t right_ = 0;
  float floor_ = 0.0f;  // values up to this count as 0
  float low_ = 0.0f;    // between values up to this nothing is above the floor
  std::vector<Band> bands_;
  std::vector<std::vector<DleCenter>> peaks_;  // of each band
};

}  // namespace dle

#endif  // DEEPLAB2_EDGE_CENTERS_H_
