#include "merging.h"

#include <algorithm>
#include <cstring>

#include "floats4.h"

namespace dle {
namespace {

// Calls body(begin, end) for the runs of equal labels.
template <typename Body>
void ForEachRun(const uint32_t* labels, int32_t count, const Body& body) {
  int32_t begin = 0, x = 0;
  for (; x + 16 < count; x += 16) {
    Ints4 ends = {};
    for (int32_t i = 0; i < 4; ++i) {
      Ints4 here, next;
      std::memcpy(&here, labels + x + 4 * i, sizeof(here));
      std::memcpy(&next, labels + x + 4 * i + 1, sizeof(next));
      ends |= (here != next) & (Ints4{1, 2, 4, 8} << (4 * i));
    }
    uint64_t halves[2];
    std::memcpy(halves, &ends, sizeof(halves));
    const uint64_t both = halves[0] | halves[1];
    uint32_t bits = static_cast<uint32_t>(both) | static_cast<uint32_t>(both >> 32);
    for (; bits != 0; bits &= bits - 1) {
      const int32_t end = x + __builtin_ctz(bits) + 1;
      body(begin, end);
      begin = end;
    }
  }
  for (; x + 1 < count; ++x) {
    if (labels[x] == labels[x + 1]) continue;
    body(begin, x + 1);
    begin = x + 1;
  }
  body(begin, count);
}

template <typename Body>
void ForEachRun(const uint64_t* labels, int32_t count, const Body& body) {
  int32_t begin = 0;
  for (int32_t x = 1; x < count; ++x) {
    if (labels[x] == labels[x - 1]) continue;
    body(begin, x);
    begin = x;
  }
  body(begin, count);
}

// Fills [begin, end) of two rows. May write up to three values more, within the rows.
inline void FillBoth(int32_t begin, int32_t end, int32_t width, int32_t a, int32_t* row_a,
                     int32_t b, int32_t* row_b) {
  const Ints4 all_a = {a, a, a, a}, all_b = {b, b, b, b};
  int32_t x = begin;
  for (; x < end && x + 4 <= width; x += 4) {
    std::memcpy(row_a + x, &all_a, sizeof(all_a));
    std::memcpy(row_b + x, &all_b, sizeof(all_b));
  }
  for (; x < end; ++x) {
    row_a[x] = a;
    row_b[x] = b;
  }
}

}  // namespace

void PanopticIds::Number(const Tally& tally, const std::vector<uint8_t>& is_thing,
                         const DleMergeSettings& settings) {
  const int32_t void_id = settings.ignore_label * settings.label_divisor;
  num_classes = is_thing.size();
  ids.assign(num_classes + tally.first.size() - 1, void_id);
  for (size_t c = 0; c < num_classes; ++c) {
    if (!is_thing[c] && tally.votes[c] >= static_cast<uint32_t>(settings.stuff_area_limit)) {
      ids[c] = static_cast<int32_t>(c) * settings.label_divisor;
    }
  }
  std::vector<int32_t> order;
  for (size_t id = 1; id < tally.first.size(); ++id) {
    if (tally.first[id] != UINT32_MAX) order.push_back(static_cast<int32_t>(id));
  }
  std::sort(order.begin(), order.end(),
            [&](int32_t a, int32_t b) { return tally.first[a] < tally.first[b]; });
  std::vector<int32_t> count(num_classes, 0);
  for (const int32_t id : order) {
    const uint32_t* const votes = tally.votes.data() + id * num_classes;
    const int32_t winner =
        static_cast<int32_t>(std::max_element(votes, votes + num_classes) - votes);
    if (++count[winner] < settings.label_divisor) {
      ids[PlaceOf(0, id)] = winner * settings.label_divisor + count[winner];
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

template <typename Label>
void ImageWriter::Write(const Labels<Label>& labels, const PanopticIds& ids,
                        const std::vector<DleCenter>& centers,
                        const DleMergeSettings& settings, const DlePlacement& placement,
                        DleSegmentation* segmentation, Pool* pool) {
  rows_.Update(placement.resized_height, placement.image_height);
  columns_.Update(placement.resized_width, placement.image_width);
  const DleSegment nothing = {0, 0, INT32_MAX, INT32_MAX, 0, 0, 0.0f};
  found_.resize(static_cast<size_t>(pool->num_workers()));
  for (std::vector<DleSegment>& found : found_) found.assign(ids.ids.size(), nothing);
  const size_t width = static_cast<size_t>(settings.width);
  ForEachRow(placement.resized_height, pool, [&](int32_t y, int32_t worker) {
    if (rows_.at[y] < rows_.at[y + 1]) {
      WriteRow(labels.map.data() + y * width, ids, y, segmentation, &found_[worker]);
    }
  });
  segments_.clear();
  for (size_t place = 0; place < ids.ids.size(); ++place) {
    DleSegment all = nothing;
    for (const std::vector<DleSegment>& found : found_) {
      const DleSegment& part = found[place];
      all.area += part.area;
      all.left = std::min(all.left, part.left);
      all.top = std::min(all.top, part.top);
      all.right = std::max(all.right, part.right);
      all.bottom = std::max(all.bottom, part.bottom);
    }
    all.id = ids.ids[place];
    if (place >= ids.num_classes) all.score = centers[place - ids.num_classes].score;
    if (all.area > 0 && all.id / settings.label_divisor != settings.ignore_label) {
      segments_.push_back(all);
    }
  }
  std::sort(segments_.begin(), segments_.end(),
            [](const DleSegment& a, const DleSegment& b) { return a.id < b.id; });
}

// Writes the rows of the image that read one canvas row: runs of pixels, then copies.
template <typename Label>
void ImageWriter::WriteRow(const Label* labels, const PanopticIds& ids, int32_t y,
                           DleSegmentation* segmentation,
                           std::vector<DleSegment>* found) const {
  const int32_t top = rows_.at[y], bottom = rows_.at[y + 1];
  const int32_t width = columns_.n_out;
  int32_t* const panoptic = segmentation->panoptic + static_cast<size_t>(top) * width;
  int32_t* const semantic = segmentation->semantic + static_cast<size_t>(top) * width;
  ForEachRun(labels, columns_.n_in, [&](int32_t begin, int32_t end) {
    const int32_t left = columns_.at[begin], right = columns_.at[end];
    if (left == right) return;
    const int32_t of_class = Labels<Label>::ClassOf(labels[begin]);
    const size_t place = ids.PlaceOf(of_class, Labels<Label>::IdOf(labels[begin]));
    FillBoth(left, right, width, ids.ids[place], panoptic, of_class, semantic);
    DleSegment& segment = (*found)[place];
    segment.area += static_cast<int64_t>(right - left) * (bottom - top);
    segment.left = std::min(segment.left, left);
    segment.top = std::min(segment.top, top);
    segment.right = std::max(segment.right, right);
    segment.bottom = std::max(segment.bottom, bottom);
  });
  const size_t size = static_cast<size_t>(width);
  for (int32_t i = 1; i < bottom - top; ++i) {
    std::memcpy(panoptic + i * size, panoptic, size * sizeof(int32_t));
    std::memcpy(semantic + i * size, semantic, size * sizeof(int32_t));
  }
}

template void ImageWriter::Write(const Labels<uint32_t>&, const PanopticIds&,
                                 const std::vector<DleCenter>&, const DleMergeSettings&,
                                 const DlePlacement&, DleSegmentation*, Pool*);
template void ImageWriter::Write(const Labels<uint64_t>&, const PanopticIds&,
                                 const std::vector<DleCenter>&, const DleMergeSettings&,
                                 const DlePlacement&, DleSegmentation*, Pool*);

}  // namespace dle
