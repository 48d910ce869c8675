// What passes over whole maps of instances: the C interface. The rules, and the bits, are
// those of deeplab2_edge.panoptic.instances.

#ifndef DEEPLAB2_EDGE_INSTANCES_H_
#define DEEPLAB2_EDGE_INSTANCES_H_

#include <stdint.h>

#include "deeplab2_edge.h"

#ifdef __cplusplus
extern "C" {
#endif

// The instance of an id is the rest of its division by label_divisor; 0 is none.
typedef struct {
  const int32_t* ids;  // [height, width]
  int32_t height;
  int32_t width;
  int32_t label_divisor;
} DleInstanceMap;

typedef struct {
  int64_t area_px;
  int64_t sum_y;  // of the positions of all pixels
  int64_t sum_x;
  int32_t id;
  int32_t extent_y;  // from the first to the last row
  int32_t extent_x;
} DleInstance;

enum { DLE_ID_TOO_LARGE = 4 };

// Lists instances in the order of their first pixels. Writes at most `capacity`, and how
// many there are to `count`. Reentrant, as all here.
DLE_EXPORT int32_t dle_list_instances(const DleInstanceMap* map, int32_t capacity,
                                      DleInstance* instances, int32_t* count);

// Counts, for each of two lists of different ids, the pixels where the first map has the
// one and the second the other: into intersection, [num_first, num_second].
DLE_EXPORT int32_t dle_count_overlaps(const DleInstanceMap* first,
                                      const DleInstanceMap* second,
                                      const int32_t* first_ids, int32_t num_first,
                                      const int32_t* second_ids, int32_t num_second,
                                      int64_t* intersection);

// Writes a map with new ids instead of old ones, all different, and the other ids encoded
// with another divisor. Gives DLE_ID_TOO_LARGE if the instance of an id, of the map or an
// old one, is not below it.
DLE_EXPORT int32_t dle_rename_instances(const DleInstanceMap* map, int32_t new_divisor,
                                        const int32_t* old_ids, const int32_t* new_ids,
                                        int32_t num_ids, int32_t* out);

#ifdef __cplusplus
}
#endif

#endif  // DEEPLAB2_EDGE_INSTANCES_H_
