// Brings images to the canvas of a network, row by row: what is stored besides the result
// are two resized rows.
//
// The float32 steps are those of deeplab2_edge.runtime.preprocess.resize_image: along x,
// along y, half a level, cut off.

#include "transforms.h"

#include <cstring>
#include <new>
#include <vector>

#include "axis.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace {

using dle::Axis;
using dle::Lerp;

constexpr int32_t kChannels = 3;
// Float32 positions are exact far beyond it, and no product of sides overflows.
constexpr int32_t kMaxSide = 1 << 24;

// Four values at once, of which a pixel uses three: compilers turn these into SSE or NEON.
typedef uint8_t Bytes __attribute__((vector_size(4)));
typedef int32_t Ints __attribute__((vector_size(16)));
typedef float Floats __attribute__((vector_size(16)));

inline Floats LoadPixel(const uint8_t* pixel) {
#if defined(__SSE2__)  // what compilers make of the plain form is twice as slow
  int32_t bytes;
  std::memcpy(&bytes, pixel, sizeof(bytes));
  const __m128i zero = _mm_setzero_si128();
  const __m128i words = _mm_unpacklo_epi8(_mm_cvtsi32_si128(bytes), zero);
  return _mm_cvtepi32_ps(_mm_unpacklo_epi16(words, zero));
#elif defined(__ARM_NEON)
  uint32_t bytes;
  std::memcpy(&bytes, pixel, sizeof(bytes));
  const uint16x8_t words = vmovl_u8(vcreate_u8(bytes));
  return (Floats)vcvtq_f32_u32(vmovl_u16(vget_low_u16(words)));
#else
  Bytes bytes;
  std::memcpy(&bytes, pixel, sizeof(bytes));
  return __builtin_convertvector(__builtin_convertvector(bytes, Ints), Floats);
#endif
}

template <typename Value>
class Placer {
 public:
  Placer(const DlePlacedImage& image, Value* canvas)
      : image_(image),
        table_(static_cast<const Value*>(image.table)),
        canvas_(canvas),
        rows_(image.height, image.resized_height),
        columns_(image.width, image.resized_width) {
    const int32_t width = image.resized_width;
    // Four bytes are read at each pixel; the image's last has only three.
    num_inner_ = static_cast<int32_t>(
        std::lower_bound(columns_.upper.begin(), columns_.upper.end(), image.width - 1) -
        columns_.upper.begin());
    above_.resize(static_cast<size_t>(width) * kChannels + 1);
    below_.resize(above_.size());
    levels_.resize(above_.size());
  }

  void Run() {
    const bool is_resized = image_.resized_height != image_.height ||
                            image_.resized_width != image_.width;
    const size_t width = static_cast<size_t>(image_.resized_width) * kChannels;
    const size_t canvas_width = static_cast<size_t>(image_.canvas_width) * kChannels;
    const Value padding = Of(static_cast<uint8_t>(image_.padding));
    for (int32_t y = 0; y < image_.resized_height; ++y) {
      Value* const out = canvas_ + y * canvas_width;
      Write(is_resized ? Resized(y) : Row(y), width, out);
      std::fill(out + width, out + canvas_width, padding);
    }
    std::fill(canvas_ + image_.resized_height * canvas_width,
              canvas_ + image_.canvas_height * canvas_width, padding);
  }

 private:
  const uint8_t* Row(int32_t y) const { return image_.pixels + y * image_.row_bytes; }

  const uint8_t* Resized(int32_t y) {
    // Enlarged images read the same rows several times.
    if (rows_.lower[y] != in_above_) {
      if (rows_.lower[y] == in_below_) {
        above_.swap(below_);
        std::swap(in_above_, in_below_);
      } else {
        Stretch(Row(rows_.lower[y]), above_.data());
        in_above_ = rows_.lower[y];
      }
    }
    if (rows_.upper[y] != in_below_) {
      Stretch(Row(rows_.upper[y]), below_.data());
      in_below_ = rows_.upper[y];
    }
    const float weight = rows_.weight[y];
    const float* const above = above_.data();
    const float* const below = below_.data();
    uint8_t* const levels = levels_.data();
    const size_t count = static_cast<size_t>(image_.resized_width) * kChannels;
    for (size_t i = 0; i < count; ++i) {
      levels[i] = static_cast<uint8_t>(
          static_cast<int32_t>(Lerp(above[i], below[i], weight) + 0.5f));
    }
    return levels;
  }

  // Resizes one row along x.
  void Stretch(const uint8_t* row, float* out) const {
    for (int32_t x = 0; x < num_inner_; ++x, out += kChannels) {
      const uint8_t* const pixel = row + kChannels * static_cast<size_t>(columns_.lower[x]);
      const Floats left = LoadPixel(pixel), right = LoadPixel(pixel + kChannels);
      const Floats value = (right - left) * columns_.weight[x] + left;
      std::memcpy(out, &value, sizeof(value));  // the fourth is overwritten by the next
    }
    for (int32_t x = num_inner_; x < image_.resized_width; ++x, out += kChannels) {
      for (int32_t c = 0; c < kChannels; ++c) {
        out[c] = Lerp(row[kChannels * static_cast<size_t>(columns_.lower[x]) + c],
                      row[kChannels * static_cast<size_t>(columns_.upper[x]) + c],
                      columns_.weight[x]);
      }
    }
  }

  Value Of(uint8_t level) const {
    return table_ ? table_[level] : static_cast<Value>(level);
  }

  void Write(const uint8_t* levels, size_t count, Value* out) const {
    if (!table_) {
      std::copy(levels, levels + count, out);
      return;
    }
    for (size_t i = 0; i < count; ++i) out[i] = table_[levels[i]];
  }

  const DlePlacedImage& image_;
  const Value* const table_;
  Value* const canvas_;
  const Axis rows_, columns_;
  int32_t num_inner_;
  std::vector<float> above_, below_;
  std::vector<uint8_t> levels_;
  int32_t in_above_ = -1, in_below_ = -1;
};

template <typename Value>
int32_t Place(const DlePlacedImage& image, void* canvas) {
  if (reinterpret_cast<uintptr_t>(canvas) % alignof(Value) ||
      reinterpret_cast<uintptr_t>(image.table) % alignof(Value)) {
    return DLE_BAD_ARGUMENT;
  }
  Placer<Value>(image, static_cast<Value*>(canvas)).Run();
  return DLE_OK;
}

bool IsSide(int32_t value, int32_t limit) { return value >= 1 && value <= limit; }

}  // namespace

extern "C" {

int32_t dle_place_image(const DlePlacedImage* image, void* canvas) {
  if (!image || !canvas || !image->pixels || !IsSide(image->height, kMaxSide) ||
      !IsSide(image->width, kMaxSide) || !IsSide(image->canvas_height, kMaxSide) ||
      !IsSide(image->canvas_width, kMaxSide) ||
      !IsSide(image->resized_height, image->canvas_height) ||
      !IsSide(image->resized_width, image->canvas_width) || image->padding < 0 ||
      image->padding > 255 || (!image->table && image->type != DLE_PIXEL_UINT8)) {
    return DLE_BAD_ARGUMENT;
  }
  try {
    switch (image->type) {
      case DLE_PIXEL_UINT8:
        return Place<uint8_t>(*image, canvas);
      case DLE_PIXEL_INT8:
        return Place<int8_t>(*image, canvas);
      case DLE_PIXEL_INT16:
        return Place<int16_t>(*image, canvas);
      case DLE_PIXEL_FLOAT32:
        return Place<float>(*image, canvas);
      default:
        return DLE_BAD_ARGUMENT;
    }
  } catch (const std::bad_alloc&) {
    return DLE_OUT_OF_MEMORY;
  }
}

}  // extern "C"
