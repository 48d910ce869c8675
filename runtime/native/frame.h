// What is known of one image before it is merged: settings, positions and real heads.

#ifndef DEEPLAB2_EDGE_FRAME_H_
#define DEEPLAB2_EDGE_FRAME_H_

#include <stddef.h>
#include <stdint.h>

#include <vector>

#include "axis.h"
#include "deeplab2_edge.h"

namespace dle {

// An axis by its cells: cell c lies between source pixels c and c + 1, the last one on
// the last pixel. The weights can be read four at a time.
struct CellAxis : Axis {
  CellAxis(int32_t n_in, int32_t n_out);

  int32_t n_in;
  int32_t n_out;
  std::vector<int32_t> begin;  // [n_in + 1] first output pixel of each cell
  std::vector<float> place;    // [n_in] of source pixels, in output pixels; by four
  // From an output pixel to the next, at least; 0 if there may be cells without any.
  double step;
  bool is_aligned;  // whether each cell begins with a pixel on the source pixel
};

struct Frame {
  DleHead logits;
  DleHead heatmap;
  DleHead offsets;
  const DleMergeSettings* settings;
  CellAxis rows{1, 1};
  CellAxis columns{1, 1};
  std::vector<uint8_t> is_thing;  // [C]
  std::vector<float> heat;        // [h, w], to be read by four beside each pixel
  std::vector<float> dy;          // [h, w], in canvas pixels, to be read by four
  std::vector<float> dx;

  // Sizes everything for a new image; throws std::bad_alloc.
  void Begin(const DleHead& semantic_logits, const DleHead& center_heatmap,
             const DleHead& offset_map, const DleMergeSettings& merge_settings);

  // Fills one row of the real heads.
  void ReadRow(int32_t row);

  int32_t head_height() const { return settings->head_height; }
  int32_t head_width() const { return settings->head_width; }
  int32_t height() const { return settings->height; }
  int32_t width() const { return settings->width; }
  int32_t num_classes() const { return settings->num_classes; }
};

// Gives `count` real values from `start` on, `step` apart.
void ReadReal(const DleHead& head, size_t start, int32_t step, int32_t count, float* out);

}  // namespace dle

#endif  // DEEPLAB2_EDGE_FRAME_H_
