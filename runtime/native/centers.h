// Instance centers: the local maxima of the upsampled center heatmap.
//
// A cell has none if its corners are not above the threshold, or if in some direction the
// heat grows through it and on through the next cell. Only the other cells are upsampled,
// with what their windows reach, a band of rows at a time.

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

  // Memory of one thread.
  struct Band {
    std::vector<float> heat;             // of canvas pixels in runs, else anything
    std::vector<int32_t> traits;         // of the pixels of a source row, with a margin
    std::vector<uint8_t> is_needed;      // of each cell
    std::vector<std::vector<Run>> peak_runs;  // of each row of cells, where peaks can be
    std::vector<std::vector<Run>> runs;       // and what has to be upsampled
  };

  void SearchBand(const Frame& frame, int32_t first, int32_t end, Band* band,
                  std::vector<DleCenter>* peaks) const;
  void SetSlopes(const Frame& frame, float largest);
  void FindPeakRuns(const Frame& frame, int32_t cell_row, int32_t* traits,
                    std::vector<Run>* runs) const;
  void FindRuns(const Frame& frame, int32_t first_cell, int32_t first_peak_cell,
                Band* band) const;
  void Upsample(const Frame& frame, int32_t cell_row, int32_t top, int32_t bottom,
                const std::vector<Run>& runs, int32_t stride, float* heat) const;
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
  // Between source pixels that differ by more than this in a direction, and between the
  // next two, a pixel of the canvas has a larger one beside it.
  float slope_up_ = 0.0f;
  float slope_down_ = 0.0f;
  float slope_left_ = 0.0f;
  float slope_right_ = 0.0f;
  std::vector<Band> bands_;
  std::vector<std::vector<DleCenter>> peaks_;  // of each band
};

}  // namespace dle

#endif  // DEEPLAB2_EDGE_CENTERS_H_
