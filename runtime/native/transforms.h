// Images on their way into a network: the C interface.

#ifndef DEEPLAB2_EDGE_TRANSFORMS_H_
#define DEEPLAB2_EDGE_TRANSFORMS_H_

#include <stdint.h>

#include "deeplab2_edge.h"

#ifdef __cplusplus
extern "C" {
#endif

// Types of a network's input.
enum { DLE_PIXEL_UINT8 = 0, DLE_PIXEL_INT8 = 1, DLE_PIXEL_INT16 = 2, DLE_PIXEL_FLOAT32 = 3 };

// An RGB image and where it lies on the canvas, from the top left corner.
typedef struct {
  const uint8_t* pixels;  // [height, width, 3]
  int64_t row_bytes;      // from row to row
  int32_t height;
  int32_t width;
  int32_t resized_height;
  int32_t resized_width;
  int32_t canvas_height;
  int32_t canvas_width;
  int32_t padding;      // value of the pixels outside, 0 to 255
  int32_t type;         // of table and canvas
  const void* table;    // what each of the 256 values becomes; NULL: itself, uint8 only
} DlePlacedImage;

// Writes the canvas, [canvas_height, canvas_width, 3]: the image resized bilinearly with
// aligned corners, halves rounded up, and padded. Reentrant.
DLE_EXPORT int32_t dle_place_image(const DlePlacedImage* image, void* canvas);

#ifdef __cplusplus
}
#endif

#endif  // DEEPLAB2_EDGE_TRANSFORMS_H_
