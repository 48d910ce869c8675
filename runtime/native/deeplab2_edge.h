// The C interface of the native core: panoptic maps from the heads of a network.
//
// The rules are those of deeplab2_edge.panoptic, and so are the bits: every float32 step
// is the same and in the same order. Build without contraction of products and sums
// (-ffp-contract=off). No function lets an exception out.

#ifndef DEEPLAB2_EDGE_H_
#define DEEPLAB2_EDGE_H_

#include <stdint.h>

#if defined(_WIN32)
#define DLE_EXPORT __declspec(dllexport)
#else
#define DLE_EXPORT __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

// Changes with every change of the structs or functions of this interface.
#define DLE_ABI_VERSION 3

enum { DLE_OK = 0, DLE_BAD_ARGUMENT = 1, DLE_OUT_OF_MEMORY = 2 };

enum { DLE_FLOAT32 = 0, DLE_INT8 = 1, DLE_UINT8 = 2, DLE_INT16 = 3 };

// A head [h, w, C] in memory, channels last. Integers stand for
// (value - zero_point) * scale, with a positive scale.
typedef struct {
  const void* data;
  int32_t type;
  float scale;
  int32_t zero_point;
} DleHead;

// Sizes in pixels; settings as deeplab2_edge.panoptic.MergeSettings describes them.
typedef struct {
  int32_t head_height;
  int32_t head_width;
  int32_t num_classes;
  int32_t height;  // of the canvas
  int32_t width;
  int32_t label_divisor;
  int32_t ignore_label;
  int32_t nms_kernel;
  int32_t keep_k_centers;  // 0 or less: all
  int32_t stuff_area_limit;
  int32_t merge_plateaus;
  float center_score_threshold;
  int32_t num_things;
  const int32_t* thing_ids;
  // Columns to the left of a wider image of which this is a part: votes are rounded as
  // there, though they are for centers of the canvas. Usually 0.
  int32_t votes_from;
} DleMergeSettings;

// Threads and the memory they work in, for one call at a time. Of use in a forked child
// too, without threads.
typedef struct DleCore DleCore;

// What is written; all but the centers are [height, width] of the canvas.
typedef struct {
  int32_t* panoptic;
  int32_t* semantic;
  int32_t* instance;
  float* instance_scores;
  int32_t* centers_yx;   // [keep_k_centers, 2], -1 beyond the last
  float* center_scores;  // [keep_k_centers], 0 beyond the last
} DleMaps;

// Where an image lies on the canvas, from the top left corner.
typedef struct {
  int32_t image_height;
  int32_t image_width;
  int32_t resized_height;
  int32_t resized_width;
} DlePlacement;

// A part of the image with one panoptic id; sizes in pixels of the image.
typedef struct {
  int64_t area;
  int32_t id;
  int32_t left;
  int32_t top;
  int32_t right;  // right and bottom lie just outside
  int32_t bottom;
  float score;  // of the center of a thing; 0 for stuff
} DleSegment;

typedef struct {
  int32_t y;  // in canvas pixels
  int32_t x;
  float score;
} DleCenter;

// The caller gives the maps, [image_height, image_width]. The lists are of the core and
// last until its next call: segments by ascending id without void, centers in raster
// order.
typedef struct {
  int32_t* panoptic;
  int32_t* semantic;
  int32_t num_segments;
  int32_t num_centers;
  const DleSegment* segments;
  const DleCenter* centers;
} DleSegmentation;

DLE_EXPORT int32_t dle_abi_version(void);

// Starts num_threads - 1 threads, as the caller's works too; fewer if the system has
// none left. NULL: out of memory.
DLE_EXPORT DleCore* dle_create(int32_t num_threads);

DLE_EXPORT void dle_destroy(DleCore* core);

// From the heads to the maps of the canvas. keep_k_centers must be 1 or more.
DLE_EXPORT int32_t dle_panoptic_merge(DleCore* core, const DleHead* semantic_logits,
                                      const DleHead* center_heatmap,
                                      const DleHead* offset_map,
                                      const DleMergeSettings* settings,
                                      const DleMaps* maps);

// From the heads to the maps and segments of the image. Neither the maps nor the list
// depend on the number of threads.
DLE_EXPORT int32_t dle_segment_panoptic(DleCore* core, const DleHead* semantic_logits,
                                        const DleHead* center_heatmap,
                                        const DleHead* offset_map,
                                        const DleMergeSettings* settings,
                                        const DlePlacement* placement,
                                        DleSegmentation* segmentation);

#ifdef __cplusplus
}
#endif

#endif  // DEEPLAB2_EDGE_H_
