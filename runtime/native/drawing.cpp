// Draws segments over an image in one pass: colors by tables, lines by comparing numbers.

#include "drawing.h"

#include <algorithm>
#include <cstring>

namespace {

constexpr int32_t kChannels = 3;
constexpr int32_t kLevels = 256;

class Drawing {
 public:
  Drawing(const DleOverlay& overlay, uint8_t* out) : o_(overlay), out_(out) {}

  bool Run() const {
    const size_t width = o_.width;
    if (!IsKnown(o_.segment_map)) return false;
    for (int32_t y = 0; y < o_.height; ++y) {
      const uint16_t* const row = o_.segment_map + y * width;
      const uint16_t* const below = y + 1 < o_.height ? row + width : row;
      if (!IsKnown(below)) return false;
      DrawRow(o_.pixels + y * o_.row_bytes, row, below, out_ + y * width * kChannels);
    }
    return true;
  }

 private:
  bool IsKnown(const uint16_t* row) const {
    uint16_t largest = 0;
    for (int32_t x = 0; x < o_.width; ++x) largest = std::max(largest, row[x]);
    return largest < o_.num_segments;
  }

  void DrawRow(const uint8_t* pixels, const uint16_t* row, const uint16_t* below,
               uint8_t* out) const {
    for (int32_t x = 0; x < o_.width; ++x, pixels += kChannels, out += kChannels) {
      const uint16_t number = row[x], beside = row[std::min(x + 1, o_.width - 1)];
      if ((number != beside || number != below[x]) &&
          (Thing(number) != Thing(beside) || Thing(number) != Thing(below[x]))) {
        std::memset(out, o_.contour, kChannels);
        continue;
      }
      const uint8_t* const levels =
          o_.levels + static_cast<size_t>(number) * kChannels * kLevels;
      for (int32_t c = 0; c < kChannels; ++c) out[c] = levels[c * kLevels + pixels[c]];
    }
  }

  int32_t Thing(uint16_t number) const { return o_.is_thing[number] ? number : -1; }

  const DleOverlay& o_;
  uint8_t* const out_;
};

}  // namespace

extern "C" {

int32_t dle_draw_overlay(const DleOverlay* overlay, uint8_t* out) {
  if (!overlay || !out || !overlay->pixels || !overlay->segment_map ||
      !overlay->levels || !overlay->is_thing || overlay->height < 1 ||
      overlay->width < 1 || overlay->num_segments < 1 || overlay->contour < 0 ||
      overlay->contour > 255) {
    return DLE_BAD_ARGUMENT;
  }
  return Drawing(*overlay, out).Run() ? DLE_OK : DLE_BAD_ARGUMENT;
}

}  // extern "C"
