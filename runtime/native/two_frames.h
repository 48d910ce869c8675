// Two frames that share instances: the C interface.

#ifndef DEEPLAB2_EDGE_TWO_FRAMES_H_
#define DEEPLAB2_EDGE_TWO_FRAMES_H_

#include <stdint.h>

#include "deeplab2_edge.h"

#ifdef __cplusplus
extern "C" {
#endif

// A half of an image, [height, width]: what is known, and what is written.
typedef struct {
  const int32_t* semantic;
  const int32_t* instance;  // 0 on stuff
  int32_t* panoptic;
} DleHalf;

// Numbers the instances of two halves of one image, side by side, by the rules of
// deeplab2_edge.panoptic.merge_semantic_and_instance. Of the settings it reads classes,
// things, sizes of the canvas, which is one half, divisor, void and the limit of areas.
// num_instances is the largest instance. Reentrant.
DLE_EXPORT int32_t dle_merge_halves(const DleMergeSettings* settings,
                                    int32_t num_instances, const DleHalf* left,
                                    const DleHalf* right);

#ifdef __cplusplus
}
#endif

#endif  // DEEPLAB2_EDGE_TWO_FRAMES_H_
