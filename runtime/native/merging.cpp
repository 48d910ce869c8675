#include "merging.h"

#include <algorithm>
#include <cstring>

namespace dle {
namespace {

// Where the next pixel of another class or instance is.
template <typename Class, typename Id>
int32_t EndOfRun(const Class* classes, const Id* ids, int32_t x, int32_t end) {
  const Class of_class = classes[x];
  const Id id = ids[x];
  constexpr int32_t kStep = 8;
  for (++x; x + kStep <= end; x += kStep) {
    unsigned is_other = 0;
    for (int32_t i = x; i < x + kStep; ++i) {
      is_other |= static_cast<unsigned>(classes[i] ^ of_class) |
                  static_cast<unsigned>(ids[i] ^ id);
    }
    if (is_other) break;
  }
  while (x < end && classes[x] == of_class && ids[x] == id) ++x;
  return x;
}

}  // namespace

void PanopticIds::Number(const Tally& tally, const std::vector<uint8_t>& is_thing,
                         const DleMergeSettings& settings) {
  const int32_t void_id = settings.ignore_label * settings.label_divisor;
  const size_t num_classes = is_thing.size();
  const size_t num_ids = tally.first.size();
  of_class.assign(num_classes, void_id);
  for (size_t c = 0; c < num_classes; ++c) {
    if (!is_thing[c] && tally.votes[c] >= static_cast<uint32_t>(settings.stuff_area_limit)) {
      of_class[c] = static_cast<int32_t>(c) * settings.label_divisor;
    }
  }
  std::vector<int32_t> order;
  for (size_t id = 1; id < num_ids; ++id) {
    if (tally.first[id] != UINT32_MAX) order.push_back(static_cast<int32_t>(id));
  }
  std::sort(order.begin(), order.end(),
            [&](int32_t a, int32_t b) { return tally.first[a] < tally.first[b]; });
  of_instance.assign(num_ids, void_id);
  std::vector<int32_t> count(num_classes, 0);
  for (const int32_t id : order) {
    const uint32_t* const votes = tally.votes.data() + id * num_classes;
    const int32_t winner =
        static_cast<int32_t>(std::max_element(votes, votes + num_classes) - votes);
    if (++count[winner] < settings.label_divisor) {
      of_instance[id] = winner * settings.label_divisor + count[winner];
    }
  }
}

void ImageWriter::Edges::Update(int32_t new_in, int32_t new_out) {
  if (new_in == n_in && new_out == n_out) return;
  n_in = new_in;
  n_out = new_out;
  at.assign(static_cast<size_t>(n_in) + 1, n_out);
  const float scale =
      static_cast<float>(n_in - 1) / static_cast<float>(std::max(n_out - 1, 1));
  for (int32_t i = n_out - 1; i >= 0; --i) {
    const float position = static_cast<float>(i) * scale;
    at[std::min(static_cast<int32_t>(position + 0.5f), n_in - 1)] = i;
  }
  for (int32_t i = n_in - 1; i >= 0; --i) at[i] = std::min(at[i], at[i + 1]);
}

template <typename Class, typename Id>
void ImageWriter::Write(const Labels<Class, Id>& labels, const PanopticIds& ids,
                        const std::vector<DleCenter>& centers,
                        const DleMergeSettings& settings, const DlePlacement& placement,
                        DleSegmentation* segmentation, Pool* pool) {
  rows_.Update(placement.resized_height, placement.image_height);
  columns_.Update(placement.resized_width, placement.image_width);
  const int32_t num_classes = static_cast<int32_t>(ids.of_class.size());
  const size_t num_found = ids.of_class.size() + ids.of_instance.size();
  const DleSegment nothing = {0, 0, INT32_MAX, INT32_MAX, 0, 0, 0.0f};
  found_.resize(static_cast<size_t>(pool->num_workers()));
  for (std::vector<DleSegment>& found : found_) found.assign(num_found, nothing);
  const size_t width = static_cast<size_t>(settings.width);
  ForEachRow(placement.resized_height, pool, [&](int32_t y, int32_t worker) {
    if (rows_.at[y] < rows_.at[y + 1]) {
      WriteRow(labels.classes.data() + y * width, labels.ids.data() + y * width, ids, y,
               segmentation, &found_[worker]);
    }
  });
  segments_.clear();
  for (int32_t i = 0; i < static_cast<int32_t>(num_found); ++i) {
    DleSegment all = nothing;
    for (const std::vector<DleSegment>& found : found_) {
      const DleSegment& part = found[i];
      all.area += part.area;
      all.left = std::min(all.left, part.left);
      all.top = std::min(all.top, part.top);
      all.right = std::max(all.right, part.right);
      all.bottom = std::max(all.bottom, part.bottom);
    }
    const int32_t instance = i - num_classes;
    all.id = instance < 0 ? ids.of_class[i] : ids.of_instance[instance];
    if (instance > 0) all.score = centers[instance - 1].score;
    if (all.area > 0 && all.id / settings.label_divisor != settings.ignore_label) {
      segments_.push_back(all);
    }
  }
  std::sort(segments_.begin(), segments_.end(),
            [](const DleSegment& a, const DleSegment& b) { return a.id < b.id; });
}

// Writes the rows of the image that read one canvas row: runs of pixels, then copies.
template <typename Class, typename Id>
void ImageWriter::WriteRow(const Class* classes, const Id* row_ids, const PanopticIds& ids,
                           int32_t y, DleSegmentation* segmentation,
                           std::vector<DleSegment>* found) const {
  const int32_t top = rows_.at[y], bottom = rows_.at[y + 1];
  const size_t width = static_cast<size_t>(columns_.n_out);
  int32_t* const panoptic = segmentation->panoptic + top * width;
  int32_t* const semantic = segmentation->semantic + top * width;
  for (int32_t x = 0; x < columns_.n_in;) {
    const int32_t end = EndOfRun(classes, row_ids, x, columns_.n_in);
    const int32_t left = columns_.at[x], right = columns_.at[end];
    const int32_t of_class = classes[x], id = static_cast<int32_t>(row_ids[x]);
    x = end;
    if (left == right) continue;
    std::fill(panoptic + left, panoptic + right,
              id > 0 ? ids.of_instance[id] : ids.of_class[of_class]);
    std::fill(semantic + left, semantic + right, of_class);
    DleSegment& segment =
        (*found)[id > 0 ? ids.of_class.size() + id : static_cast<size_t>(of_class)];
    segment.area += static_cast<int64_t>(right - left) * (bottom - top);
    segment.left = std::min(segment.left, left);
    segment.top = std::min(segment.top, top);
    segment.right = std::max(segment.right, right);
    segment.bottom = std::max(segment.bottom, bottom);
  }
  for (int32_t i = top + 1; i < bottom; ++i) {
    std::memcpy(panoptic + (i - top) * width, panoptic, width * sizeof(int32_t));
    std::memcpy(semantic + (i - top) * width, semantic, width * sizeof(int32_t));
  }
}

template void ImageWriter::Write(const Labels<uint8_t, uint16_t>&, const PanopticIds&,
                                 const std::vector<DleCenter>&, const DleMergeSettings&,
                                 const DlePlacement&, DleSegmentation*, Pool*);
template void ImageWriter::Write(const Labels<uint16_t, uint32_t>&, const PanopticIds&,
                                 const std::vector<DleCenter>&, const DleMergeSettings&,
                                 const DlePlacement&, DleSegmentation*, Pool*);

}  // namespace dle
