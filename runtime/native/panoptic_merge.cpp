// From the raw heads of a Panoptic-DeepLab network to panoptic maps.
//
// Logits are never stored at full size: between four source pixels the difference of two
// interpolated classes is itself bilinear, so a class that wins at all four corners of a
// cell wins everywhere in it, and only cells whose corners differ are interpolated.
// Centers are the local maxima of the upsampled heatmap. Pixels of things are grouped
// tile by tile: few centers can be the nearest of the votes of a tile. One pass counts
// votes and areas, one writes the result.

#include "panoptic_merge.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

namespace {

constexpr int kTileHeight = 16;
constexpr int kTileWidth = 64;
// Above what rounding to float32 does to a squared distance.
constexpr double kMargin = 1.001;

// Where each output pixel of an axis lies between source pixels.
struct Axis {
  std::vector<int32_t> lower;
  std::vector<int32_t> upper;
  std::vector<float> weight;

  Axis(int32_t n_in, int32_t n_out) : lower(n_out), upper(n_out), weight(n_out) {
    const float scale =
        static_cast<float>(n_in - 1) / static_cast<float>(std::max(n_out - 1, 1));
    for (int32_t i = 0; i < n_out; ++i) {
      const float position = static_cast<float>(i) * scale;
      lower[i] = std::min(static_cast<int32_t>(position), n_in - 1);
      upper[i] = std::min(lower[i] + 1, n_in - 1);
      weight[i] = position - static_cast<float>(lower[i]);
    }
  }
};

inline float Lerp(float a, float b, float weight) { return (b - a) * weight + a; }

// Gives float32 values of a head.
class Reader {
 public:
  explicit Reader(const DleHead& head) : head_(head) {}

  float operator()(size_t index) const {
    switch (head_.type) {
      case DLE_INT8:
        return Real(static_cast<const int8_t*>(head_.data)[index]);
      case DLE_UINT8:
        return Real(static_cast<const uint8_t*>(head_.data)[index]);
      default:
        return static_cast<const float*>(head_.data)[index];
    }
  }

  void Read(size_t start, int32_t count, float* out) const {
    if (head_.type == DLE_FLOAT32) {
      std::memcpy(out, static_cast<const float*>(head_.data) + start,
                  sizeof(float) * count);
      return;
    }
    for (int32_t i = 0; i < count; ++i) out[i] = (*this)(start + i);
  }

 private:
  float Real(int32_t value) const {
    return static_cast<float>(value - head_.zero_point) * head_.scale;
  }

  const DleHead& head_;
};

// The first of the largest values. Not-a-number is never the largest.
inline int32_t ArgMax(const float* values, int32_t count) {
  int32_t best = 0;
  float top = values[0];
  for (int32_t c = 1; c < count; ++c) {
    if (values[c] > top) {
      top = values[c];
      best = c;
    }
  }
  return best;
}

struct Center {
  float y;
  float x;
  float score;
  int32_t pixel;
};

class Merge {
 public:
  Merge(const DleHead& logits, const DleHead& heatmap, const DleHead& offsets,
        const DleMergeSettings& settings, const DleMaps& maps)
      : logits_(logits),
        heatmap_(heatmap),
        offsets_(offsets),
        s_(settings),
        maps_(maps),
        rows_(settings.head_height, settings.height),
        columns_(settings.head_width, settings.width),
        is_thing_(settings.num_classes, 0) {
    for (int32_t i = 0; i < s_.num_things; ++i) {
      const int32_t thing = s_.thing_ids[i];
      if (thing >= 0 && thing < s_.num_classes) is_thing_[thing] = 1;
    }
  }

  void Run() {
    UpsampleArgMax();
    FindCenters();
    Group();
    Number();
  }

 private:
  size_t NumPixels() const { return static_cast<size_t>(s_.height) * s_.width; }

  void UpsampleArgMax() {
    const int32_t h = s_.head_height, w = s_.head_width, channels = s_.num_classes;
    std::vector<int32_t> winners(static_cast<size_t>(h) * w);
    std::vector<float> values(4 * static_cast<size_t>(channels));
    for (size_t i = 0; i < winners.size(); ++i) {
      logits_.Read(i * channels, channels, values.data());
      winners[i] = ArgMax(values.data(), channels);
    }
    float* const left = values.data();
    float* const right = left + channels;
    float* const other = right + channels;
    float* const mixed = other + channels;
    for (int32_t y = 0; y < s_.height; ++y) {
      const size_t above = static_cast<size_t>(rows_.lower[y]) * w;
      const size_t below = static_cast<size_t>(rows_.upper[y]) * w;
      int32_t* const row = maps_.semantic + static_cast<size_t>(y) * s_.width;
      for (int32_t x = 0; x < s_.width;) {
        const int32_t cell = columns_.lower[x], next = columns_.upper[x];
        int32_t end = x + 1;
        while (end < s_.width && columns_.lower[end] == cell) ++end;
        const int32_t winner = winners[above + cell];
        if (winner == winners[above + next] && winner == winners[below + cell] &&
            winner == winners[below + next]) {
          std::fill(row + x, row + end, winner);
          x = end;
          continue;
        }
        ReadBetween(above + cell, below + cell, rows_.weight[y], other, left);
        ReadBetween(above + next, below + next, rows_.weight[y], other, right);
        for (; x < end; ++x) {
          const float weight = columns_.weight[x];
          for (int32_t c = 0; c < channels; ++c) {
            mixed[c] = Lerp(left[c], right[c], weight);
          }
          row[x] = ArgMax(mixed, channels);
        }
      }
    }
  }

  void ReadBetween(size_t above, size_t below, float weight, float* scratch,
                   float* out) const {
    const int32_t channels = s_.num_classes;
    logits_.Read(above * channels, channels, out);
    logits_.Read(below * channels, channels, scratch);
    for (int32_t c = 0; c < channels; ++c) out[c] = Lerp(out[c], scratch[c], weight);
  }

  void FindCenters() {
    const int32_t height = s_.height, width = s_.width;
    std::vector<float> heat(NumPixels());
    const float floor = std::max(s_.center_score_threshold, 0.0f);
    std::vector<float> line(s_.head_width);
    for (int32_t y = 0; y < height; ++y) {
      for (int32_t x = 0; x < s_.head_width; ++x) {
        line[x] = Lerp(
            heatmap_(static_cast<size_t>(rows_.lower[y]) * s_.head_width + x),
            heatmap_(static_cast<size_t>(rows_.upper[y]) * s_.head_width + x),
            rows_.weight[y]);
      }
      float* const row = heat.data() + static_cast<size_t>(y) * width;
      for (int32_t x = 0; x < width; ++x) {
        const float value =
            Lerp(line[columns_.lower[x]], line[columns_.upper[x]], columns_.weight[x]);
        row[x] = value > floor ? value : 0.0f;
      }
    }
    const int32_t before = (s_.nms_kernel - 1) / 2;
    const int32_t after = s_.nms_kernel - 1 - before;
    std::vector<int32_t> peaks;
    for (int32_t y = 0; y < height; ++y) {
      const float* const row = heat.data() + static_cast<size_t>(y) * width;
      for (int32_t x = 0; x < width; ++x) {
        const float value = row[x];
        if (value > 0 && IsLargest(heat, y, x, std::min(before, 1), std::min(after, 1)) &&
            IsLargest(heat, y, x, before, after)) {
          peaks.push_back(y * width + x);
        }
      }
    }
    if (s_.merge_plateaus) KeepFirstOfPlateaus(heat, &peaks);
    KeepBest(heat, &peaks);
    for (int32_t i = 0; i < s_.keep_k_centers; ++i) {
      const bool is_center = i < static_cast<int32_t>(peaks.size());
      const int32_t y = is_center ? peaks[i] / width : -1;
      const int32_t x = is_center ? peaks[i] % width : -1;
      maps_.centers_yx[2 * static_cast<size_t>(i)] = y;
      maps_.centers_yx[2 * static_cast<size_t>(i) + 1] = x;
      maps_.center_scores[i] = is_center ? heat[peaks[i]] : 0.0f;
      if (is_center) {
        centers_.push_back({static_cast<float>(y), static_cast<float>(x),
                            heat[peaks[i]], peaks[i]});
      }
    }
  }

  bool IsLargest(const std::vector<float>& heat, int32_t y, int32_t x, int32_t before,
                 int32_t after) const {
    const int32_t top = std::max(y - before, 0);
    const int32_t bottom = std::min(y + after, s_.height - 1);
    const int32_t left = std::max(x - before, 0);
    const int32_t right = std::min(x + after, s_.width - 1);
    const float value = heat[static_cast<size_t>(y) * s_.width + x];
    for (int32_t i = top; i <= bottom; ++i) {
      const float* const row = heat.data() + static_cast<size_t>(i) * s_.width;
      for (int32_t j = left; j <= right; ++j) {
        if (row[j] > value) return false;
      }
    }
    return true;
  }

  // Of each group of adjacent peaks (8 neighbors), of each value the first.
  void KeepFirstOfPlateaus(const std::vector<float>& heat,
                           std::vector<int32_t>* peaks) const {
    std::vector<uint8_t> is_open(NumPixels(), 0);
    for (const int32_t pixel : *peaks) is_open[pixel] = 1;
    std::vector<int32_t> kept, group, pending;
    std::vector<float> seen;
    for (const int32_t first : *peaks) {
      if (!is_open[first]) continue;
      group.clear();
      pending.assign(1, first);
      is_open[first] = 0;
      while (!pending.empty()) {
        const int32_t pixel = pending.back();
        pending.pop_back();
        group.push_back(pixel);
        const int32_t y = pixel / s_.width, x = pixel % s_.width;
        for (int32_t i = std::max(y - 1, 0); i <= std::min(y + 1, s_.height - 1); ++i) {
          for (int32_t j = std::max(x - 1, 0); j <= std::min(x + 1, s_.width - 1); ++j) {
            const int32_t neighbor = i * s_.width + j;
            if (is_open[neighbor]) {
              is_open[neighbor] = 0;
              pending.push_back(neighbor);
            }
          }
        }
      }
      std::sort(group.begin(), group.end());
      seen.clear();
      for (const int32_t pixel : group) {
        if (std::find(seen.begin(), seen.end(), heat[pixel]) == seen.end()) {
          seen.push_back(heat[pixel]);
          kept.push_back(pixel);
        }
      }
    }
    std::sort(kept.begin(), kept.end());
    peaks->swap(kept);
  }

  // The best, ties by raster order, in raster order.
  void KeepBest(const std::vector<float>& heat, std::vector<int32_t>* peaks) const {
    const size_t limit = static_cast<size_t>(s_.keep_k_centers);
    if (peaks->size() <= limit) return;
    std::stable_sort(peaks->begin(), peaks->end(),
                     [&](int32_t a, int32_t b) { return heat[a] > heat[b]; });
    peaks->resize(limit);
    std::sort(peaks->begin(), peaks->end());
  }

  void Group() {
    const size_t head_pixels = static_cast<size_t>(s_.head_height) * s_.head_width;
    std::fill(maps_.instance, maps_.instance + NumPixels(), 0);
    std::fill(maps_.instance_scores, maps_.instance_scores + NumPixels(), 0.0f);
    if (centers_.empty()) return;
    const double y_growth = static_cast<double>(s_.height - 1) /
                            std::max(s_.head_height - 1, 1);
    const double x_growth =
        static_cast<double>(s_.width - 1) / std::max(s_.head_width - 1, 1);
    dy_.resize(head_pixels);
    dx_.resize(head_pixels);
    for (size_t i = 0; i < head_pixels; ++i) {
      dy_[i] = offsets_(2 * i) * static_cast<float>(y_growth);
      dx_[i] = offsets_(2 * i + 1) * static_cast<float>(x_growth);
    }
    for (int32_t y = 0; y < s_.height; y += kTileHeight) {
      for (int32_t x = 0; x < s_.width; x += kTileWidth) GroupTile(y, x);
    }
  }

  float OffsetAt(const std::vector<float>& plane, int32_t y, int32_t x) const {
    const size_t above = static_cast<size_t>(rows_.lower[y]) * s_.head_width;
    const size_t below = static_cast<size_t>(rows_.upper[y]) * s_.head_width;
    const int32_t left = columns_.lower[x], right = columns_.upper[x];
    const float on_left = Lerp(plane[above + left], plane[below + left], rows_.weight[y]);
    const float on_right =
        Lerp(plane[above + right], plane[below + right], rows_.weight[y]);
    return Lerp(on_left, on_right, columns_.weight[x]);
  }

  void GroupTile(int32_t first_y, int32_t first_x) {
    const int32_t end_y = std::min(first_y + kTileHeight, s_.height);
    const int32_t end_x = std::min(first_x + kTileWidth, s_.width);
    votes_.clear();
    for (int32_t y = first_y; y < end_y; ++y) {
      for (int32_t x = first_x; x < end_x; ++x) {
        const size_t pixel = static_cast<size_t>(y) * s_.width + x;
        if (!is_thing_[maps_.semantic[pixel]]) continue;
        votes_.push_back({static_cast<float>(y) + OffsetAt(dy_, y, x),
                          static_cast<float>(x) + OffsetAt(dx_, y, x), 0.0f,
                          static_cast<int32_t>(pixel)});
      }
    }
    if (votes_.empty()) return;
    FindCandidates();
    for (const Center& vote : votes_) {
      float shortest = std::numeric_limits<float>::infinity();
      int32_t nearest = 0;
      for (const int32_t index : candidates_) {
        const float dy = vote.y - centers_[index].y, dx = vote.x - centers_[index].x;
        const float distance = dy * dy + dx * dx;
        if (distance < shortest) {
          shortest = distance;
          nearest = index;
        }
      }
      maps_.instance[vote.pixel] = nearest + 1;
      maps_.instance_scores[vote.pixel] = centers_[nearest].score;
    }
  }

  // A center cannot be the nearest of a vote if even the nearest point of the box around
  // the votes is farther from it than the farthest point of the box is from another.
  void FindCandidates() {
    candidates_.clear();
    double low[2] = {votes_[0].y, votes_[0].x}, high[2] = {votes_[0].y, votes_[0].x};
    bool is_finite = true;
    for (const Center& vote : votes_) {
      is_finite = is_finite && std::isfinite(vote.y) && std::isfinite(vote.x);
      low[0] = std::min<double>(low[0], vote.y);
      high[0] = std::max<double>(high[0], vote.y);
      low[1] = std::min<double>(low[1], vote.x);
      high[1] = std::max<double>(high[1], vote.x);
    }
    double bound = std::numeric_limits<double>::infinity();
    near_.resize(centers_.size());
    for (size_t i = 0; i < centers_.size() && is_finite; ++i) {
      const double center[2] = {centers_[i].y, centers_[i].x};
      double near = 0, far = 0;
      for (int axis = 0; axis < 2; ++axis) {
        const double to_low = low[axis] - center[axis];
        const double to_high = center[axis] - high[axis];
        const double gap = std::max(std::max(to_low, to_high), 0.0);
        const double reach = std::min(to_low, to_high);
        near += gap * gap;
        far += reach * reach;
      }
      near_[i] = near;
      bound = std::min(bound, far);
    }
    for (size_t i = 0; i < centers_.size(); ++i) {
      if (!is_finite || !(near_[i] > bound * kMargin + 1)) {
        candidates_.push_back(static_cast<int32_t>(i));
      }
    }
  }

  void Number() {
    const int32_t channels = s_.num_classes;
    const size_t num_ids = centers_.size() + 1;
    std::vector<int32_t> votes(num_ids * channels, 0);
    std::vector<uint8_t> is_seen(num_ids, 0);
    std::vector<int32_t> order;
    const size_t num_pixels = NumPixels();
    for (size_t pixel = 0; pixel < num_pixels; ++pixel) {
      const int32_t id = maps_.instance[pixel];
      ++votes[static_cast<size_t>(id) * channels + maps_.semantic[pixel]];
      if (id > 0 && !is_seen[id]) {
        is_seen[id] = 1;
        order.push_back(id);
      }
    }
    const int32_t void_id = s_.ignore_label * s_.label_divisor;
    std::vector<int32_t> of_class(channels, void_id), of_instance(num_ids, void_id);
    for (int32_t c = 0; c < channels; ++c) {
      if (!is_thing_[c] && votes[c] >= s_.stuff_area_limit) {
        of_class[c] = c * s_.label_divisor;
      }
    }
    std::vector<int32_t> count(channels, 0);
    for (const int32_t id : order) {
      const int32_t* const of_id = votes.data() + static_cast<size_t>(id) * channels;
      const int32_t winner =
          static_cast<int32_t>(std::max_element(of_id, of_id + channels) - of_id);
      if (++count[winner] < s_.label_divisor) {
        of_instance[id] = winner * s_.label_divisor + count[winner];
      }
    }
    for (size_t pixel = 0; pixel < num_pixels; ++pixel) {
      const int32_t id = maps_.instance[pixel];
      maps_.panoptic[pixel] = id > 0 ? of_instance[id] : of_class[maps_.semantic[pixel]];
    }
  }

  const Reader logits_, heatmap_, offsets_;
  const DleMergeSettings& s_;
  const DleMaps& maps_;
  const Axis rows_, columns_;
  std::vector<uint8_t> is_thing_;
  std::vector<Center> centers_, votes_;
  std::vector<float> dy_, dx_;
  std::vector<int32_t> candidates_;
  std::vector<double> near_;
};

bool IsUsable(const DleHead* head) {
  return head && head->data && head->type >= DLE_FLOAT32 && head->type <= DLE_UINT8;
}

}  // namespace

extern "C" {

int32_t dle_abi_version(void) { return DLE_ABI_VERSION; }

int32_t dle_panoptic_merge(const DleHead* semantic_logits, const DleHead* center_heatmap,
                           const DleHead* offset_map, const DleMergeSettings* settings,
                           const DleMaps* maps) {
  if (!IsUsable(semantic_logits) || !IsUsable(center_heatmap) || !IsUsable(offset_map) ||
      !settings || !maps || settings->head_height < 1 || settings->head_width < 1 ||
      settings->num_classes < 1 || settings->height < 1 || settings->width < 1 ||
      settings->label_divisor < 2 || settings->nms_kernel < 1 ||
      settings->keep_k_centers < 1 || settings->num_things < 0 ||
      (settings->num_things > 0 && !settings->thing_ids) ||
      static_cast<int64_t>(settings->height) * settings->width > (1 << 24)) {
    return DLE_BAD_ARGUMENT;
  }
  try {
    Merge(*semantic_logits, *center_heatmap, *offset_map, *settings, *maps).Run();
  } catch (const std::bad_alloc&) {
    return DLE_OUT_OF_MEMORY;
  }
  return DLE_OK;
}

}  // extern "C"
