// The functions of the C interface, and the order of the steps.

#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "centers.h"
#include "deeplab2_edge.h"
#include "frame.h"
#include "grouping.h"
#include "labels.h"
#include "merging.h"
#include "pool.h"

struct DleCore {
  explicit DleCore(int32_t num_threads) : pool(num_threads) {}

  dle::Pool pool;
  dle::Frame frame;
  dle::CenterFinder finder;
  std::vector<DleCenter> centers;
  dle::CenterIndex index;
  dle::Labels<uint32_t> labels;
  dle::Labels<uint64_t> wide_labels;
  dle::PanopticIds ids;
  dle::ImageWriter writer;
};

namespace {

constexpr int32_t kMaxThreads = 256;
constexpr int64_t kMaxCanvas = 1 << 24;  // pixels, which float32 and 32 bits can count
constexpr int64_t kMaxImage = 1 << 29;
constexpr int64_t kMaxHead = 1 << 30;  // values
constexpr int32_t kMaxSide = 1 << 24;
constexpr int32_t kMaxNarrowClasses = 256;
constexpr int32_t kMaxClasses = 1 << 15;
constexpr int32_t kMaxVotesFrom = 1 << 14;  // as grouping.cpp counts on
constexpr int32_t kMaxZeroPoint = 1 << 16;
// Steps of this size keep distinct when they are multiplied out in float32.
constexpr float kSmallestScale = 1e-30f;
constexpr float kLargestScale = 1e30f;

bool IsUsable(const DleHead* head) {
  if (!head || !head->data || head->type < DLE_FLOAT32 || head->type > DLE_INT16) {
    return false;
  }
  return head->type == DLE_FLOAT32 ||
         (head->scale >= kSmallestScale && head->scale <= kLargestScale &&
          head->zero_point >= -kMaxZeroPoint && head->zero_point <= kMaxZeroPoint);
}

bool IsSize(int32_t height, int32_t width, int64_t limit) {
  return height >= 1 && width >= 1 && height <= kMaxSide && width <= kMaxSide &&
         static_cast<int64_t>(height) * width <= limit;
}

bool IsUsable(const DleMergeSettings* s) {
  if (!s || s->num_classes < 1 || s->num_classes > kMaxClasses ||
      !IsSize(s->height, s->width, kMaxCanvas) ||
      !IsSize(s->head_height, s->head_width, kMaxHead / s->num_classes)) {
    return false;
  }
  const int64_t most = s->num_classes > s->ignore_label ? s->num_classes : s->ignore_label;
  return s->ignore_label >= 0 && s->label_divisor >= 2 &&
         (most + 1) * s->label_divisor <= INT32_MAX && s->nms_kernel >= 1 &&
         s->stuff_area_limit >= 0 && s->num_things >= 0 && s->votes_from >= 0 &&
         s->votes_from <= kMaxVotesFrom &&
         (s->num_things == 0 || s->thing_ids);
}

bool IsUsable(const DlePlacement* p, const DleMergeSettings& s) {
  return p && IsSize(p->image_height, p->image_width, kMaxImage) &&
         IsSize(p->resized_height, p->resized_width, kMaxCanvas) &&
         p->resized_height <= s.height && p->resized_width <= s.width;
}

template <typename Label>
void FillLabels(DleCore* core, dle::Labels<Label>* labels) {
  labels->Read(&core->frame, &core->pool);
  core->finder.Find(core->frame, &core->pool, &core->centers);
  core->index.Build(core->centers, core->frame.height(), core->frame.width());
  labels->Fill(core->frame, core->index, static_cast<int32_t>(core->centers.size()),
               &core->pool);
  core->ids.Number(labels->tally(), core->frame.is_thing, *core->frame.settings);
}

template <typename Label>
void WriteMaps(const DleCore& core, const dle::Labels<Label>& labels,
               const DleMaps& maps) {
  for (size_t i = 0; i < labels.map.size(); ++i) {
    const int32_t of_class = labels.ClassOf(labels.map[i]);
    const int32_t id = labels.IdOf(labels.map[i]);
    maps.semantic[i] = of_class;
    maps.instance[i] = id;
    maps.instance_scores[i] = id > 0 ? core.centers[id - 1].score : 0.0f;
    maps.panoptic[i] = core.ids.ids[core.ids.PlaceOf(of_class, id)];
  }
  for (int32_t i = 0; i < core.frame.settings->keep_k_centers; ++i) {
    const bool is_center = static_cast<size_t>(i) < core.centers.size();
    const DleCenter center = is_center ? core.centers[i] : DleCenter{-1, -1, 0.0f};
    maps.centers_yx[2 * static_cast<size_t>(i)] = center.y;
    maps.centers_yx[2 * static_cast<size_t>(i) + 1] = center.x;
    maps.center_scores[i] = center.score;
  }
}

// Calls body with labels that are wide enough.
template <typename Body>
int32_t Run(DleCore* core, const DleHead* logits, const DleHead* heatmap,
            const DleHead* offsets, const DleMergeSettings* settings, const Body& body) {
  if (!core || !IsUsable(logits) || !IsUsable(heatmap) || !IsUsable(offsets) ||
      !IsUsable(settings)) {
    return DLE_BAD_ARGUMENT;
  }
  try {
    core->frame.Begin(*logits, *heatmap, *offsets, *settings);
    const int64_t num_pixels = static_cast<int64_t>(settings->height) * settings->width;
    if (settings->num_classes <= kMaxNarrowClasses && num_pixels < kMaxCanvas) {
      body(&core->labels);
    } else {
      body(&core->wide_labels);
    }
  } catch (...) {  // only memory can be missing
    return DLE_OUT_OF_MEMORY;
  }
  return DLE_OK;
}

}  // namespace

extern "C" {

int32_t dle_abi_version(void) { return DLE_ABI_VERSION; }

DleCore* dle_create(int32_t num_threads) {
  if (num_threads < 1 || num_threads > kMaxThreads) return nullptr;
  try {
    return new DleCore(num_threads);
  } catch (...) {
    return nullptr;
  }
}

void dle_destroy(DleCore* core) {
  // A forked child has no threads to wait for: the memory stays.
  if (core && !core->pool.IsForked()) delete core;
}

int32_t dle_panoptic_merge(DleCore* core, const DleHead* semantic_logits,
                           const DleHead* center_heatmap, const DleHead* offset_map,
                           const DleMergeSettings* settings, const DleMaps* maps) {
  if (!maps || !maps->panoptic || !maps->semantic || !maps->instance ||
      !maps->instance_scores || !maps->centers_yx || !maps->center_scores || !settings ||
      settings->keep_k_centers < 1) {
    return DLE_BAD_ARGUMENT;
  }
  return Run(core, semantic_logits, center_heatmap, offset_map, settings,
             [&](auto* labels) {
               FillLabels(core, labels);
               WriteMaps(*core, *labels, *maps);
             });
}

int32_t dle_segment_panoptic(DleCore* core, const DleHead* semantic_logits,
                             const DleHead* center_heatmap, const DleHead* offset_map,
                             const DleMergeSettings* settings,
                             const DlePlacement* placement,
                             DleSegmentation* segmentation) {
  if (!settings || !IsUsable(placement, *settings) || !segmentation ||
      !segmentation->panoptic || !segmentation->semantic) {
    return DLE_BAD_ARGUMENT;
  }
  return Run(core, semantic_logits, center_heatmap, offset_map, settings,
             [&](auto* labels) {
               FillLabels(core, labels);
               core->writer.Write(*labels, core->ids, core->centers, *settings, *placement,
                                  segmentation, &core->pool);
               segmentation->num_segments =
                   static_cast<int32_t>(core->writer.segments().size());
               segmentation->segments = core->writer.segments().data();
               segmentation->num_centers = static_cast<int32_t>(core->centers.size());
               segmentation->centers = core->centers.data();
             });
}

}  // extern "C"
