// Numbers the instances of two frames that lie side by side.

#include "two_frames.h"

#include <algorithm>
#include <new>
#include <vector>

#include "labels.h"
#include "merging.h"

namespace {

constexpr int32_t kMaxSide = 1 << 15;  // two halves have pixels that 32 bits can count
constexpr int32_t kMaxClasses = 1 << 15;
constexpr int64_t kMaxVotes = 1 << 28;

class Pair {
 public:
  Pair(const DleMergeSettings& settings, int32_t num_instances, const DleHalf& left,
       const DleHalf& right)
      : s_(settings), num_instances_(num_instances), halves_{&left, &right} {}

  // Gives false if a class or instance is beyond the last.
  bool Run() {
    dle::Tally tally;
    tally.Clear(static_cast<size_t>(num_instances_) + 1,
                static_cast<size_t>(s_.num_classes));
    if (!Count(&tally)) return false;
    std::vector<uint8_t> is_thing(static_cast<size_t>(s_.num_classes), 0);
    for (int32_t i = 0; i < s_.num_things; ++i) {
      const int32_t thing = s_.thing_ids[i];
      if (thing >= 0 && thing < s_.num_classes) is_thing[thing] = 1;
    }
    dle::PanopticIds ids;
    ids.Number(tally, is_thing, s_);
    const size_t num_pixels = static_cast<size_t>(s_.height) * s_.width;
    for (const DleHalf* const half : halves_) {
      for (size_t i = 0; i < num_pixels; ++i) {
        half->panoptic[i] = ids.ids[ids.PlaceOf(half->semantic[i], half->instance[i])];
      }
    }
    return true;
  }

 private:
  bool Count(dle::Tally* tally) const {
    for (int32_t y = 0; y < s_.height; ++y) {
      for (int32_t side = 0; side < 2; ++side) {
        const size_t start = static_cast<size_t>(y) * s_.width;
        const int32_t* const semantic = halves_[side]->semantic + start;
        const int32_t* const instance = halves_[side]->instance + start;
        const uint32_t first = (2 * static_cast<uint32_t>(y) + side) * s_.width;
        for (int32_t x = 0; x < s_.width;) {
          const int32_t of_class = semantic[x], id = instance[x];
          if (of_class < 0 || of_class >= s_.num_classes || id < 0 ||
              id > num_instances_) {
            return false;
          }
          int32_t end = x + 1;
          while (end < s_.width && semantic[end] == of_class && instance[end] == id) ++end;
          tally->votes[static_cast<size_t>(id) * s_.num_classes + of_class] +=
              static_cast<uint32_t>(end - x);
          tally->first[id] = std::min(tally->first[id], first + x);
          x = end;
        }
      }
    }
    return true;
  }

  const DleMergeSettings& s_;
  const int32_t num_instances_;
  const DleHalf* const halves_[2];
};

bool IsUsable(const DleHalf* half) {
  return half && half->semantic && half->instance && half->panoptic;
}

bool IsUsable(const DleMergeSettings* s) {
  if (!s || s->num_classes < 1 || s->num_classes > kMaxClasses || s->height < 1 ||
      s->width < 1 || s->height > kMaxSide || s->width > kMaxSide || s->num_things < 0 ||
      (s->num_things > 0 && !s->thing_ids) || s->stuff_area_limit < 0 ||
      s->ignore_label < 0 || s->label_divisor < 2) {
    return false;
  }
  const int64_t most = std::max(s->num_classes, s->ignore_label);
  return (most + 1) * s->label_divisor <= INT32_MAX;
}

}  // namespace

extern "C" {

int32_t dle_merge_halves(const DleMergeSettings* settings, int32_t num_instances,
                         const DleHalf* left, const DleHalf* right) {
  if (!IsUsable(settings) || !IsUsable(left) || !IsUsable(right) || num_instances < 0 ||
      (static_cast<int64_t>(num_instances) + 1) * settings->num_classes > kMaxVotes) {
    return DLE_BAD_ARGUMENT;
  }
  try {
    return Pair(*settings, num_instances, *left, *right).Run() ? DLE_OK
                                                               : DLE_BAD_ARGUMENT;
  } catch (const std::bad_alloc&) {
    return DLE_OUT_OF_MEMORY;
  }
}

}  // extern "C"
