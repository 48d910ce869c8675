// From the mask logits of a mask transformer to the mask of each pixel: the C interface.
//
// The rules are the pixelwise ones of deeplab2_edge.panoptic.decode_masks. All that is
// decided by comparing logits has the same bits. A confidence is a sum of exponentials,
// whose last bits differ between implementations: a pixel whose confidence is so close to
// the threshold that they may count is marked, for the caller to decide.

#ifndef DEEPLAB2_EDGE_MASKS_H_
#define DEEPLAB2_EDGE_MASKS_H_

#include <stdint.h>

#include "deeplab2_edge.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  int32_t head_height;
  int32_t head_width;
  int32_t num_masks;
  int32_t height;
  int32_t width;
  int32_t num_threads;
  float pixel_confidence_threshold;
  const uint8_t* is_detected;  // [num_masks], whether the class of a mask is certain
} DleMaskSettings;

enum { DLE_PIXEL_VOID = 0, DLE_PIXEL_CONFIDENT = 1, DLE_PIXEL_UNDECIDED = 2 };

// What is written; all but the areas are [height, width].
typedef struct {
  int32_t* best;      // mask with the highest logit
  int32_t* winner;    // detected mask with the highest logit, 0 if none is detected
  float* confidence;  // probability of the winner among the detected, 0 if there are none
  uint8_t* state;     // of the above
  int64_t* area_px;   // [num_masks], confident pixels of each winner
} DleMaskPixels;

// What pixels become by their masks, and where it is written; all but the tables are
// [height, width].
typedef struct {
  const int32_t* panoptic_of_mask;    // [num_masks]
  const int32_t* class_of_mask;       // [num_masks]
  const float* confidence_of_mask;    // [num_masks]
  int32_t void_id;                    // of pixels that are not confident
  int32_t* panoptic;
  int32_t* semantic;         // class of the best
  int32_t* mask_id;          // 1 + winner
  int32_t* mask_semantic;    // class of the winner
  float* semantic_scores;    // confidence in that class
} DleMaskMaps;

enum { DLE_NOT_FINITE = 3 };

// Finds the mask of each pixel. Gives DLE_NOT_FINITE, and has written nothing, if a logit
// is no number or beyond 1e20. Reentrant.
DLE_EXPORT int32_t dle_mask_pixels(const DleHead* mask_logits,
                                   const DleMaskSettings* settings,
                                   const DleMaskPixels* pixels);

// Makes maps of masks. Reentrant.
DLE_EXPORT int32_t dle_mask_maps(const DleMaskSettings* settings,
                                 const DleMaskPixels* pixels, const DleMaskMaps* maps);

#ifdef __cplusplus
}
#endif

#endif  // DEEPLAB2_EDGE_MASKS_H_
