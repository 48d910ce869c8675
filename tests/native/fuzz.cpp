// Calls the functions of the native core with what a string of bytes says: settings and
// sizes are hostile, buffers are as large as the sizes say, to the byte.
//
// With libFuzzer (clang++ -fsanitize=fuzzer) strings are bred for coverage; built with
// -DDLE_OWN_LOOP they are random. Usage of the latter: fuzz SEED SECONDS.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "deeplab2_edge.h"
#include "drawing.h"
#include "instances.h"
#include "masks.h"
#include "transforms.h"
#include "two_frames.h"

namespace {

constexpr int64_t kMaxBytes = 1 << 20;

class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), left_(size) {}

  uint32_t Bits(int num_bytes) {
    uint32_t bits = 0;
    for (int i = 0; i < num_bytes; ++i) {
      bits = bits << 8 | (left_ ? *data_ : 0);
      if (left_) {
        ++data_;
        --left_;
      }
    }
    return bits;
  }

  // Mostly small and sensible, sometimes anything.
  int32_t Any(int32_t low, int32_t high) {
    const uint32_t kind = Bits(1);
    if (kind < 248) {
      return low + static_cast<int32_t>(Bits(1) % static_cast<uint32_t>(high - low + 1));
    }
    const int32_t edges[] = {0, -1, 1, INT32_MAX, INT32_MIN, 1 << 24, 65536};
    return kind == 255 ? static_cast<int32_t>(Bits(4)) : edges[kind - 248];
  }

  float Float() {
    const uint32_t kind = Bits(1);
    if (kind < 240) return static_cast<float>(static_cast<int32_t>(kind) - 120) / 30;
    const uint32_t bits = Bits(4);
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
  }

 private:
  const uint8_t* data_;
  size_t left_;
};

// Exactly as large as asked for, so that a sanitizer sees any byte beyond.
template <typename T>
struct Buffer {
  explicit Buffer(int64_t wanted) : size(static_cast<size_t>(wanted)), data(new T[size]()) {}
  size_t size;
  std::unique_ptr<T[]> data;
  T* get() { return data.get(); }
};

// Gives the product of sizes; 1 if one of them makes no sense, as nothing may be read
// then; 0 if it is too large to try.
int64_t Size(std::initializer_list<int32_t> sides) {
  int64_t size = 1;
  for (const int32_t side : sides) {
    if (side < 1) return 1;
  }
  for (const int32_t side : sides) {
    size *= side;
    if (size > kMaxBytes) return 0;
  }
  return size;
}

struct AnyHead {
  Buffer<uint8_t> bytes;
  DleHead head;

  AnyHead(Input* input, int64_t size) : bytes(4 * size) {
    const int32_t type = input->Any(DLE_FLOAT32, DLE_INT16);
    if (type == DLE_FLOAT32) {
      for (int64_t i = 0; i < size; ++i) {
        const float value = input->Float();
        std::memcpy(bytes.get() + 4 * i, &value, sizeof(value));
      }
    } else {
      for (size_t i = 0; i < bytes.size; ++i) bytes.get()[i] = static_cast<uint8_t>(input->Bits(1));
    }
    head = {bytes.get(), type, input->Float(), input->Any(-128, 127)};
  }
};

void Merge(Input* input) {
  DleMergeSettings s = {};
  s.head_height = input->Any(1, 9);
  s.head_width = input->Any(1, 9);
  s.num_classes = input->Any(1, 20);
  s.height = input->Any(1, 40);
  s.width = input->Any(1, 40);
  s.label_divisor = input->Any(2, 100);
  s.ignore_label = input->Any(0, 255);
  s.nms_kernel = input->Any(1, 50);
  s.keep_k_centers = input->Any(0, 50);
  s.stuff_area_limit = input->Any(0, 100);
  s.merge_plateaus = input->Any(0, 1);
  s.center_score_threshold = input->Float();
  std::vector<int32_t> things(input->Bits(1) % 8);
  for (int32_t& thing : things) thing = input->Any(0, 20);
  s.num_things = input->Bits(1) < 250 ? static_cast<int32_t>(things.size()) : -1;
  s.thing_ids = things.data();
  s.votes_from = input->Any(0, 1);
  DlePlacement place = {input->Any(1, 60), input->Any(1, 60), input->Any(1, 40),
                        input->Any(1, 40)};
  const int64_t head = Size({s.head_height, s.head_width, s.num_classes});
  const int64_t plane = Size({s.head_height, s.head_width, 2});
  const int64_t canvas = Size({s.height, s.width});
  const int64_t image = Size({place.image_height, place.image_width});
  const int64_t centers = std::max<int64_t>(s.keep_k_centers, 1);
  if (!head || !plane || !canvas || !image || centers > kMaxBytes) return;
  AnyHead logits(input, head), heat(input, plane), offsets(input, plane);
  Buffer<int32_t> panoptic(canvas), semantic(canvas), instance(canvas), places(2 * centers);
  Buffer<float> scores(canvas), center_scores(centers);
  const DleMaps maps = {panoptic.get(), semantic.get(), instance.get(),
                        scores.get(),   places.get(),   center_scores.get()};
  Buffer<int32_t> image_panoptic(image), image_semantic(image);
  DleSegmentation seen = {image_panoptic.get(), image_semantic.get(), 0, 0, nullptr, nullptr};
  DleCore* const core = dle_create(input->Bits(1) % 8 ? 1 : 3);
  dle_panoptic_merge(core, &logits.head, &heat.head, &offsets.head, &s, &maps);
  dle_segment_panoptic(core, &logits.head, &heat.head, &offsets.head, &s, &place, &seen);
  dle_destroy(core);
}

void Place(Input* input) {
  DlePlacedImage p = {};
  p.height = input->Any(1, 30);
  p.width = input->Any(1, 30);
  p.resized_height = input->Any(1, 20);
  p.resized_width = input->Any(1, 20);
  p.canvas_height = input->Any(20, 40);
  p.canvas_width = input->Any(20, 40);
  p.padding = input->Any(0, 255);
  p.type = input->Any(0, 3);
  const int64_t image = Size({p.height, p.width, 3});
  const int64_t canvas = Size({p.canvas_height, p.canvas_width, 3});
  if (!image || !canvas) return;
  const int64_t gap = input->Bits(1);
  p.row_bytes = 3 * static_cast<int64_t>(std::max(p.width, 1)) + gap;
  const int64_t gaps = gap * (std::max(p.height, 1) - 1);
  if (gaps > kMaxBytes) return;
  Buffer<uint8_t> pixels(image + gaps);
  for (size_t i = 0; i < pixels.size; i += 1 + i / 64) pixels.get()[i] = static_cast<uint8_t>(input->Bits(1));
  p.pixels = pixels.get();
  Buffer<float> table(256);
  p.table = input->Bits(1) < 128 ? nullptr : table.get();
  const int64_t bytes = p.type == DLE_PIXEL_FLOAT32 ? 4 : p.type == DLE_PIXEL_INT16 ? 2 : 1;
  Buffer<uint8_t> out(canvas * bytes);
  dle_place_image(&p, out.get());
}

void Masks(Input* input) {
  DleMaskSettings s = {};
  s.head_height = input->Any(1, 8);
  s.head_width = input->Any(1, 8);
  s.num_masks = input->Any(1, 20);
  s.height = input->Any(1, 30);
  s.width = input->Any(1, 30);
  s.num_threads = input->Any(1, 3);
  s.pixel_confidence_threshold = input->Float();
  const int64_t head = Size({s.head_height, s.head_width, s.num_masks});
  const int64_t canvas = Size({s.height, s.width});
  const int64_t masks = Size({s.num_masks});
  if (!head || !canvas || !masks) return;
  Buffer<uint8_t> is_detected(masks), state(canvas);
  for (int64_t i = 0; i < masks; ++i) is_detected.get()[i] = input->Bits(1) & 1;
  s.is_detected = is_detected.get();
  AnyHead logits(input, head);
  Buffer<int32_t> best(canvas), winner(canvas);
  Buffer<float> confidence(canvas);
  Buffer<int64_t> area(masks);
  const DleMaskPixels pixels = {best.get(), winner.get(), confidence.get(), state.get(),
                                area.get()};
  if (dle_mask_pixels(&logits.head, &s, &pixels) != DLE_OK) return;
  Buffer<int32_t> table(masks), maps(canvas);
  Buffer<float> confidences(masks), scores(canvas);
  const DleMaskMaps made = {table.get(), table.get(), confidences.get(), input->Any(0, 9),
                            maps.get(),  maps.get(),  maps.get(),        maps.get(),
                            scores.get()};
  dle_mask_maps(&s, &pixels, &made);
}

void Draw(Input* input) {
  DleOverlay o = {};
  o.height = input->Any(1, 20);
  o.width = input->Any(1, 20);
  o.num_segments = input->Any(1, 9);
  o.contour = input->Any(0, 255);
  o.row_bytes = 3 * static_cast<int64_t>(std::max(o.width, 1));
  const int64_t size = Size({o.height, o.width, 3}), segments = Size({o.num_segments, 768});
  if (!size || !segments) return;
  Buffer<uint8_t> image(size), levels(segments), is_thing(std::max(o.num_segments, 1));
  Buffer<uint8_t> out(size);
  Buffer<uint16_t> map(Size({o.height, o.width}));
  for (size_t i = 0; i < map.size; ++i) map.get()[i] = static_cast<uint16_t>(input->Any(0, 8));
  is_thing.get()[0] = input->Bits(1) & 1;
  o.pixels = image.get();
  o.segment_map = map.get();
  o.levels = levels.get();
  o.is_thing = is_thing.get();
  dle_draw_overlay(&o, out.get());
}

void Instances(Input* input) {
  DleInstanceMap map = {nullptr, input->Any(1, 20), input->Any(1, 20), input->Any(1, 50)};
  const int64_t size = Size({map.height, map.width});
  if (!size) return;
  Buffer<int32_t> ids(size), others(size), out(size);
  for (int64_t i = 0; i < size; ++i) {
    ids.get()[i] = input->Any(0, 200);
    others.get()[i] = input->Any(0, 200);
  }
  map.ids = ids.get();
  const int32_t capacity = static_cast<int32_t>(input->Bits(1));
  Buffer<DleInstance> found(std::max(capacity, 1));
  int32_t count = 0;
  dle_list_instances(&map, capacity, found.get(), &count);
  std::vector<int32_t> old_ids(1 + input->Bits(1) % 40);
  for (int32_t& id : old_ids) id = input->Any(0, 200);
  if (input->Bits(1) & 1) {
    std::sort(old_ids.begin(), old_ids.end());
    old_ids.erase(std::unique(old_ids.begin(), old_ids.end()), old_ids.end());
  }
  const int32_t num_ids = static_cast<int32_t>(old_ids.size());
  const std::vector<int32_t> new_ids(old_ids.rbegin(), old_ids.rend());
  dle_rename_instances(&map, input->Any(1, 300), old_ids.data(), new_ids.data(), num_ids,
                       out.get());
  DleInstanceMap other = map;
  other.ids = others.get();
  Buffer<int64_t> pairs(static_cast<int64_t>(num_ids) * num_ids);
  dle_count_overlaps(&map, &other, old_ids.data(), num_ids, new_ids.data(), num_ids,
                     pairs.get());
}

void Halves(Input* input) {
  DleMergeSettings s = {};
  s.num_classes = input->Any(1, 9);
  s.height = input->Any(1, 20);
  s.width = input->Any(1, 20);
  s.label_divisor = input->Any(2, 100);
  s.ignore_label = input->Any(0, 255);
  s.stuff_area_limit = input->Any(0, 100);
  const int32_t things[] = {input->Any(0, 9), input->Any(0, 9)};
  s.thing_ids = things;
  s.num_things = 2;
  const int64_t size = Size({s.height, s.width});
  if (!size) return;
  Buffer<int32_t> semantic(size), instance(size), left(size), right(size);
  for (int64_t i = 0; i < size; ++i) {
    semantic.get()[i] = input->Any(0, 8);
    instance.get()[i] = input->Any(0, 8);
  }
  const DleHalf halves[] = {{semantic.get(), instance.get(), left.get()},
                            {instance.get(), semantic.get(), right.get()}};
  dle_merge_halves(&s, input->Any(0, 9), &halves[0], &halves[1]);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  void (*const functions[])(Input*) = {Merge, Place, Masks, Draw, Instances, Halves};
  functions[input.Bits(1) % 6](&input);
  return 0;
}

#ifdef DLE_OWN_LOOP
int main(int argc, char** argv) {
  std::mt19937 random(argc > 1 ? static_cast<unsigned>(std::atoi(argv[1])) : 0);
  const auto end = std::chrono::steady_clock::now() +
                   std::chrono::seconds(argc > 2 ? std::atoi(argv[2]) : 60);
  int64_t count = 0;
  std::vector<uint8_t> data;
  while (std::chrono::steady_clock::now() < end) {
    // Strings that end early leave zeros, which are plain.
    data.resize(random() % (random() % 4 ? 4096 : 64));
    for (uint8_t& byte : data) byte = static_cast<uint8_t>(random());
    LLVMFuzzerTestOneInput(data.data(), data.size());
    ++count;
  }
  std::printf("%lld inputs\n", static_cast<long long>(count));
  return 0;
}
#endif
