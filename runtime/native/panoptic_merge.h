// From the raw heads of a Panoptic-DeepLab network to panoptic maps: the C interface.
//
// The rules are those of deeplab2_edge.panoptic.merge_heads, and so are the bits: every
// float32 step is the same and in the same order. Build without contraction of products
// and sums (-ffp-contract=off).

#ifndef DEEPLAB2_EDGE_PANOPTIC_MERGE_H_
#define DEEPLAB2_EDGE_PANOPTIC_MERGE_H_

#include <stdint.h>

#if defined(_WIN32)
#define DLE_EXPORT __declspec(dllexport)
#else
#define DLE_EXPORT __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

// Changes with every change of the structs or functions below.
#define DLE_ABI_VERSION 1

enum { DLE_FLOAT32 = 0, DLE_INT8 = 1, DLE_UINT8 = 2 };

// A head [h, w, C] in memory, channels last. Integers stand for
// (value - zero_point) * scale.
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
  int32_t height;
  int32_t width;
  int32_t label_divisor;
  int32_t ignore_label;
  int32_t nms_kernel;
  int32_t keep_k_centers;  // 1 or more
  int32_t stuff_area_limit;
  int32_t merge_plateaus;
  float center_score_threshold;
  int32_t num_things;
  const int32_t* thing_ids;
} DleMergeSettings;

// What is written; all but the centers are [height, width].
typedef struct {
  int32_t* panoptic;
  int32_t* semantic;
  int32_t* instance;
  float* instance_scores;
  int32_t* centers_yx;     // [keep_k_centers, 2], -1 beyond the last
  float* center_scores;    // [keep_k_centers], 0 beyond the last
} DleMaps;

enum { DLE_OK = 0, DLE_BAD_ARGUMENT = 1, DLE_OUT_OF_MEMORY = 2 };

DLE_EXPORT int32_t dle_abi_version(void);

// Merges one image. Reentrant; writes nothing but the maps.
DLE_EXPORT int32_t dle_panoptic_merge(const DleHead* semantic_logits,
                                      const DleHead* center_heatmap,
                                      const DleHead* offset_map,
                                      const DleMergeSettings* settings,
                                      const DleMaps* maps);

#ifdef __cplusplus
}
#endif

#endif  // DEEPLAB2_EDGE_PANOPTIC_MERGE_H_
