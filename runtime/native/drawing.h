// Segments drawn over an image: the C interface.

#ifndef DEEPLAB2_EDGE_DRAWING_H_
#define DEEPLAB2_EDGE_DRAWING_H_

#include <stdint.h>

#include "deeplab2_edge.h"

#ifdef __cplusplus
extern "C" {
#endif

// An RGB image, which segment each pixel belongs to, and what each becomes there.
typedef struct {
  const uint8_t* pixels;        // [height, width, 3]
  int64_t row_bytes;            // from row to row
  const uint16_t* segment_map;  // [height, width], below num_segments
  int32_t height;
  int32_t width;
  int32_t num_segments;
  int32_t contour;          // value of the lines around things, 0 to 255
  const uint8_t* levels;    // [num_segments, 3, 256], what values of an image become
  const uint8_t* is_thing;  // [num_segments]
} DleOverlay;

// Writes [height, width, 3]: levels of the image, and lines of one pixel where a thing
// meets anything else on its right or below. Gives DLE_BAD_ARGUMENT also for a number in
// the map that is too large. Reentrant.
DLE_EXPORT int32_t dle_draw_overlay(const DleOverlay* overlay, uint8_t* out);

#ifdef __cplusplus
}
#endif

#endif  // DEEPLAB2_EDGE_DRAWING_H_
