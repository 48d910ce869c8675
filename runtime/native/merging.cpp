#include "merging.h"

#include <algorithm>
#include <cstring>

#include "lanes.h"


namespace dle {
namespace {

// How many of four flags are set, and where.
struct Flags {
  int32_t count;
  int32_t places[4];
};
constexpr Flags kFlags[16] = {
    {0, {}},     {1, {0}},       {1, {1}},       {2, {0, 1}},
    {1, {2}},    {2, {0, 2}},    {2, {1, 2}},    {3, {0, 1, 2}},
    {1, {3}},    {2, {0, 3}},    {2, {1, 3}},    {3, {0, 1, 3}},
    {2, {2, 3}}, {3, {0, 2, 3}}, {3, {1, 2, 3}}, {4, {0, 1, 2, 3}},
};

// Lists where runs of equal labels end, without a branch for each. There is room for four
// more. Returns how many there are.
int32_t ListEnds(const uint32_t* labels, int32_t count, int32_t* ends) {
  int32_t num_ends = 0;
  int32_t x = 0;
  for (; x + 16 < count; x += 16) {
    Ints4 all = {};
    for (int32_t i = 0; i < 4; ++i) {
      Ints4 here, next;
      std::memcpy(&here, labels + x + 4 * i, sizeof(here));
      std::memcpy(&next, labels + x + 4 * i + 1, sizeof(next));
      all |= (here != next) & (Ints4{1, 2, 4, 8} << (4 * i));
    }
    uint64_t halves[2];
    std::memcpy(halves, &all, sizeof(halves));
    const uint64_t both = halves[0] | halves[1];
    const uint32_t bits = static_cast<uint32_t>(both) | static_cast<uint32_t>(both >> 32);
    if (bits == 0) continue;
    for (int32_t i = 0; i < 4; ++i) {
      const Flags& flags = kFlags[bits >> (4 * i) & 15];
      Ints4 places;
      std::memcpy(&places, flags.places, sizeof(places));
      places += x + 4 * i + 1;
      std::memcpy(ends + num_ends, &places, sizeof(places));
      num_ends += flags.count;
    }
  }
  for (; x + 1 < count; ++x) {
    if (labels[x] != labels[x + 1]) ends[num_ends++] = x + 1;
  }
  ends[num_ends++] = count;
  return num_ends;
}

int32_t ListEnds(const uint64_t* labels, int32_t count, int32_t* ends) {
  int32_t num_ends = 0;
  for (int32_t x = 1; x < count; ++x) {
    if (labels[x] != labels[x - 1]) ends[num_ends++] = x;
  }
  ends[num_ends++] = count;
  return num_ends;
}

// Fills [begin, end) of two rows. May write more, within the rows: most runs are short,
// and all of one length cost least.
inline void FillBoth(int32_t begin, int32_t end, int32_t width, int32_t a, int32_t* row_a,
                     int32_t b, int32_t* row_b) {
  const Ints4 all_a = {a, a, a, a}, all_b = {b, b, b, b};
  int32_t x = begin;
  for (; x < end && x + 16 <= width; x += 16) {
    for (int32_t i = 0; i < 16; i += 4) {
      std::memcpy(row_a + x + i, &all_a, sizeof(all_a));
      std::memcpy(row_b + x + i, &all_b, sizeof(all_b));
    }
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
  workers_.resize(static_cast<size_t>(pool->num_workers()));
  for (Worker& worker : workers_) worker.found.assign(ids.ids.size(), nothing);
  const size_t width = static_cast<size_t>(settings.width);
  ForEachRow(placement.resized_height, pool, [&](int32_t y, int32_t worker) {
    if (rows_.at[y] < rows_.at[y + 1]) {
      WriteRow(labels.map.data() + y * width, ids, y, segmentation, &workers_[worker]);
    }
  });
  segments_.clear();
  for (size_t place = 0; place < ids.ids.size(); ++place) {
    DleSegment all = nothing;
    for (const Worker& worker : workers_) {
      const DleSegment& part = worker.found[place];
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
                           DleSegmentation* segmentation, Worker* worker) const {
  const int32_t top = rows_.at[y], bottom = rows_.at[y + 1];
  const int32_t width = columns_.n_out;
  int32_t* const panoptic = segmentation->panoptic + static_cast<size_t>(top) * width;
  int32_t* const semantic = segmentation->semantic + static_cast<size_t>(top) * width;
  worker->ends.resize(static_cast<size_t>(columns_.n_in) + 4);
  const int32_t* const ends = worker->ends.data();
  const int32_t num_ends = ListEnds(labels, columns_.n_in, worker->ends.data());
  const int32_t* const at = columns_.at.data();
  DleSegment* const found = worker->found.data();
  for (int32_t i = 0, begin = 0; i < num_ends; begin = ends[i++]) {
    const int32_t left = at[begin], right = at[ends[i]];
    if (left == right) continue;
    const int32_t of_class = Labels<Label>::ClassOf(labels[begin]);
    const size_t place = ids.PlaceOf(of_class, Labels<Label>::IdOf(labels[begin]));
    FillBoth(left, right, width, ids.ids[place], panoptic, of_class, semantic);
    DleSegment& segment = found[place];
    segment.area += static_cast<int64_t>(right - left) * (bottom - top);
    segment.left = std::min(segment.left, left);
    segment.top = std::min(segment.top, top);
    segment.right = std::max(segment.right, right);
    segment.bottom = std::max(segment.bottom, bottom);
  }
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
