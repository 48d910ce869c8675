// Numbers of instances, and the segments of the image.

#ifndef DEEPLAB2_EDGE_MERGING_H_
#define DEEPLAB2_EDGE_MERGING_H_

#include <stdint.h>

#include <vector>

#include "deeplab2_edge.h"
#include "labels.h"
#include "pool.h"

namespace dle {

// The panoptic ids of what can be a segment: the classes, where there is no instance,
// and then the instances. See deeplab2_edge.panoptic.merge_semantic_and_instance.
struct PanopticIds {
  size_t num_classes = 0;
  std::vector<int32_t> ids;

  // Throws std::bad_alloc.
  void Number(const Tally& tally, const std::vector<uint8_t>& is_thing,
              const DleMergeSettings& settings);

  // The place in `ids` of a pixel.
  size_t PlaceOf(int32_t of_class, int32_t instance) const {
    return instance > 0 ? num_classes + instance - 1 : static_cast<size_t>(of_class);
  }
};

// Brings the maps of a canvas back to the image and lists its segments.
class ImageWriter {
 public:
  // Throws std::bad_alloc.
  template <typename Label>
  void Write(const Labels<Label>& labels, const PanopticIds& ids,
             const std::vector<DleCenter>& centers, const DleMergeSettings& settings,
             const DlePlacement& placement, DleSegmentation* segmentation, Pool* pool);

  const std::vector<DleSegment>& segments() const { return segments_; }

 private:
  // Which pixels of the image read each canvas row or column.
  struct Edges {
    int32_t n_in = 0;
    int32_t n_out = 0;
    std::vector<int32_t> at;  // [n_in + 1]

    void Update(int32_t new_in, int32_t new_out);
  };

  struct Worker {
    std::vector<DleSegment> found;  // as PanopticIds
    std::vector<int32_t> ends;      // of the runs of a row
  };

  template <typename Label>
  void WriteRow(const Label* labels, const PanopticIds& ids, int32_t y,
                DleSegmentation* segmentation, Worker* worker) const;

  Edges rows_;
  Edges columns_;
  std::vector<Worker> workers_;
  std::vector<DleSegment> segments_;
};

}  // namespace dle

#endif  // DEEPLAB2_EDGE_MERGING_H_
