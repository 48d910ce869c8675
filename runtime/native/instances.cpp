// Lists, compares and renames the instances of maps, run by run: neighbors mostly have
// the same id, and what is to be done is looked up where it changes.

#include "instances.h"

#include <algorithm>
#include <new>
#include <vector>

namespace {

// Finds the place of an id in a list, in about one step. Ids are hashed by a product, so
// that the usual ones, few and close together, spread.
class Places {
 public:
  explicit Places(size_t num_ids) { Resize(num_ids); }

  // Gives the place of an id, and adds it as the next if it is new.
  int32_t Add(int32_t id) {
    if (2 * (ids_.size() + 1) > slots_.size()) Resize(2 * ids_.size() + 2);
    int32_t& place = slots_[Slot(id)];
    if (place < 0) {
      place = static_cast<int32_t>(ids_.size());
      ids_.push_back(id);
    }
    return place;
  }

  // Gives the place of an id, -1 if it is unknown.
  int32_t Find(int32_t id) const { return slots_[Slot(id)]; }

  size_t size() const { return ids_.size(); }

 private:
  void Resize(size_t num_ids) {
    size_t size = 64;
    bits_ = 6;
    while (size < 4 * num_ids) {
      size *= 2;
      ++bits_;
    }
    slots_.assign(size, -1);
    for (size_t i = 0; i < ids_.size(); ++i) {
      slots_[Slot(ids_[i])] = static_cast<int32_t>(i);
    }
  }

  // Gives the slot of an id, or the empty one it would take.
  size_t Slot(int32_t id) const {
    size_t slot = (static_cast<uint32_t>(id) * 2654435769u) >> (32 - bits_);
    while (slots_[slot] >= 0 && ids_[slots_[slot]] != id) {
      slot = (slot + 1) & (slots_.size() - 1);
    }
    return slot;
  }

  std::vector<int32_t> slots_, ids_;
  int bits_ = 0;
};

struct Id {
  int32_t class_id;
  int32_t instance;
};

// Divides towards negative infinity, as NumPy.
inline Id Split(int32_t id, int32_t divisor) {
  Id parts = {id / divisor, id % divisor};
  if (parts.instance < 0) {
    --parts.class_id;
    parts.instance += divisor;
  }
  return parts;
}

struct Extent {
  int32_t top, bottom, left, right;
};

void List(const DleInstanceMap& map, int32_t capacity, DleInstance* out, int32_t* count) {
  Places places(64);
  std::vector<DleInstance> found;
  std::vector<Extent> extents;
  for (int32_t y = 0; y < map.height; ++y) {
    const int32_t* const row = map.ids + static_cast<size_t>(y) * map.width;
    for (int32_t x = 0; x < map.width;) {
      const int32_t id = row[x];
      int32_t end = x + 1;
      while (end < map.width && row[end] == id) ++end;
      if (id % map.label_divisor != 0) {
        const size_t place = static_cast<size_t>(places.Add(id));
        if (place == found.size()) {
          found.push_back({0, 0, 0, id, 0, 0});
          extents.push_back({y, y, x, x});
        }
        DleInstance& instance = found[place];
        const int64_t length = end - x;
        instance.area_px += length;
        instance.sum_y += length * y;
        instance.sum_x += length * (static_cast<int64_t>(x) + end - 1) / 2;
        Extent& extent = extents[place];
        extent.bottom = y;
        extent.left = std::min(extent.left, x);
        extent.right = std::max(extent.right, end - 1);
      }
      x = end;
    }
  }
  *count = static_cast<int32_t>(found.size());
  for (int32_t i = 0; i < std::min(*count, capacity); ++i) {
    out[i] = found[i];
    out[i].extent_y = extents[i].bottom - extents[i].top;
    out[i].extent_x = extents[i].right - extents[i].left;
  }
}

void CountOverlaps(const int32_t* first, const int32_t* second, size_t num_pixels,
                   const Places& rows, const Places& columns, int64_t* intersection) {
  for (size_t i = 0; i < num_pixels;) {
    size_t end = i + 1;
    while (end < num_pixels && first[end] == first[i] && second[end] == second[i]) ++end;
    const int32_t row = rows.Find(first[i]);
    const int32_t column = row < 0 ? -1 : columns.Find(second[i]);
    if (column >= 0) {
      intersection[row * columns.size() + static_cast<size_t>(column)] +=
          static_cast<int64_t>(end - i);
    }
    i = end;
  }
}

bool IsUsable(const DleInstanceMap* map) {
  return map && map->ids && map->height >= 1 && map->width >= 1 &&
         map->label_divisor >= 1 &&
         static_cast<int64_t>(map->height) * map->width <= (1 << 30);
}

size_t NumPixels(const DleInstanceMap& map) {
  return static_cast<size_t>(map.height) * map.width;
}

// Adds ids to an index; gives false if one is there twice.
bool AddAll(const int32_t* ids, int32_t count, Places* places) {
  for (int32_t i = 0; i < count; ++i) {
    if (places->Add(ids[i]) != i) return false;
  }
  return true;
}

}  // namespace

extern "C" {

int32_t dle_list_instances(const DleInstanceMap* map, int32_t capacity,
                           DleInstance* instances, int32_t* count) {
  if (!IsUsable(map) || capacity < 0 || (capacity > 0 && !instances) || !count) {
    return DLE_BAD_ARGUMENT;
  }
  try {
    List(*map, capacity, instances, count);
  } catch (const std::bad_alloc&) {
    return DLE_OUT_OF_MEMORY;
  }
  return DLE_OK;
}

int32_t dle_count_overlaps(const DleInstanceMap* first, const DleInstanceMap* second,
                           const int32_t* first_ids, int32_t num_first,
                           const int32_t* second_ids, int32_t num_second,
                           int64_t* intersection) {
  if (!IsUsable(first) || !IsUsable(second) || first->height != second->height ||
      first->width != second->width || num_first < 1 || num_second < 1 || !first_ids ||
      !second_ids || !intersection) {
    return DLE_BAD_ARGUMENT;
  }
  try {
    Places rows(num_first), columns(num_second);
    if (!AddAll(first_ids, num_first, &rows) ||
        !AddAll(second_ids, num_second, &columns)) {
      return DLE_BAD_ARGUMENT;
    }
    std::fill(intersection, intersection + rows.size() * columns.size(), int64_t{0});
    CountOverlaps(first->ids, second->ids, NumPixels(*first), rows, columns,
                  intersection);
  } catch (const std::bad_alloc&) {
    return DLE_OUT_OF_MEMORY;
  }
  return DLE_OK;
}

int32_t dle_rename_instances(const DleInstanceMap* map, int32_t new_divisor,
                             const int32_t* old_ids, const int32_t* new_ids,
                             int32_t num_ids, int32_t* out) {
  if (!IsUsable(map) || new_divisor < 1 || num_ids < 0 || !out ||
      (num_ids > 0 && (!old_ids || !new_ids))) {
    return DLE_BAD_ARGUMENT;
  }
  try {
    Places places(num_ids);
    if (!AddAll(old_ids, num_ids, &places)) return DLE_BAD_ARGUMENT;
    for (int32_t i = 0; i < num_ids; ++i) {
      if (Split(old_ids[i], map->label_divisor).instance >= new_divisor) {
        return DLE_ID_TOO_LARGE;
      }
    }
    const size_t num_pixels = NumPixels(*map);
    for (size_t i = 0; i < num_pixels;) {
      const int32_t id = map->ids[i];
      size_t end = i + 1;
      while (end < num_pixels && map->ids[end] == id) ++end;
      const Id parts = Split(id, map->label_divisor);
      if (parts.instance >= new_divisor) return DLE_ID_TOO_LARGE;
      const int32_t place = places.Find(id);
      // Wraps around as NumPy does.
      const int32_t renamed =
          place >= 0 ? new_ids[place]
                     : static_cast<int32_t>(static_cast<uint32_t>(parts.class_id) *
                                                static_cast<uint32_t>(new_divisor) +
                                            static_cast<uint32_t>(parts.instance));
      std::fill(out + i, out + end, renamed);
      i = end;
    }
  } catch (const std::bad_alloc&) {
    return DLE_OUT_OF_MEMORY;
  }
  return DLE_OK;
}

}  // extern "C"
