// Calls every function of the native core with random and hostile arguments, from one
// and from several threads. Built plainly it compares results; built with sanitizers it
// also finds what no result shows. Usage: driver SEED ROUNDS.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <map>
#include <random>
#include <thread>
#include <vector>

#include "deeplab2_edge.h"
#include "drawing.h"
#include "instances.h"
#include "masks.h"
#include "transforms.h"
#include "two_frames.h"

#define CHECK(condition)                                                      \
  do {                                                                        \
    if (!(condition)) {                                                       \
      std::fprintf(stderr, "line %d: %s (seed %u)\n", __LINE__, #condition, g_seed); \
      std::exit(1);                                                           \
    }                                                                         \
  } while (0)

namespace {

thread_local unsigned g_seed = 0;

class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}
  int Int(int low, int high) {  // both included
    return std::uniform_int_distribution<int>(low, high)(engine_);
  }
  bool Chance(int one_in) { return Int(1, one_in) == 1; }
  float Normal(float scale) { return std::normal_distribution<float>(0, 1)(engine_) * scale; }
  template <typename T>
  T OneOf(std::initializer_list<T> values) {
    return *(values.begin() + Int(0, static_cast<int>(values.size()) - 1));
  }

 private:
  std::mt19937 engine_;
};

// Memory with a wall on both sides.
template <typename T>
class Walled {
 public:
  explicit Walled(size_t size) : all_(size + 2 * kWall, Brick()) {}
  T* data() { return all_.data() + kWall; }
  size_t size() const { return all_.size() - 2 * kWall; }
  T& operator[](size_t i) { return all_[kWall + i]; }
  bool IsWhole() const {
    for (size_t i = 0; i < kWall; ++i) {
      if (all_[i] != Brick() || all_[all_.size() - 1 - i] != Brick()) return false;
    }
    return true;
  }
  bool IsUntouched() const {
    for (const T& value : all_) {
      if (value != Brick()) return false;
    }
    return true;
  }
  bool operator==(const Walled& other) const { return all_ == other.all_; }

 private:
  static constexpr size_t kWall = 64;
  static T Brick() { return static_cast<T>(77); }
  std::vector<T> all_;
};

// A head of any type, with values as networks give them or worse.
struct AnyHead {
  std::vector<float> floats;
  std::vector<int16_t> words;
  std::vector<int8_t> bytes;
  DleHead head;

  AnyHead(Random* random, size_t size, float spread) {
    const int type = random->Int(DLE_FLOAT32, DLE_INT16);
    const int kind = random->Int(0, 9);
    const float steps = random->OneOf({0.5f, 1.0f, 30.0f});
    for (size_t i = 0; i < size; ++i) {
      float value = random->Normal(spread);
      if (kind < 3) value = std::round(value * steps) / steps;  // ties and plateaus
      if (kind == 3) value = 0.25f;
      if (kind == 4 && random->Chance(20)) {
        value = random->OneOf({std::numeric_limits<float>::quiet_NaN(),
                               std::numeric_limits<float>::infinity(),
                               -std::numeric_limits<float>::infinity(), 3e38f, -3e38f});
      }
      floats.push_back(value);
    }
    head = {floats.data(), DLE_FLOAT32, 0.0f, 0};
    if (type == DLE_FLOAT32) return;
    const int largest = type == DLE_INT16 ? 32767 : 127;
    for (size_t i = 0; i < size; ++i) {
      const int step = random->Chance(50) ? -largest - 1 : random->Int(-largest, largest);
      words.push_back(static_cast<int16_t>(step));
      bytes.push_back(static_cast<int8_t>(step));
    }
    const void* const data =
        type == DLE_INT16 ? static_cast<const void*>(words.data()) : bytes.data();
    head = {data, type, (spread + 0.01f) / static_cast<float>(largest) * 3,
            random->Int(-128, 255)};
  }
};

struct MergeResult {
  Walled<int32_t> panoptic, semantic, instance, centers;
  Walled<float> scores, center_scores;
  Walled<int32_t> image_panoptic, image_semantic;
  std::vector<int64_t> segments;

  MergeResult(size_t canvas, size_t image, size_t num_centers)
      : panoptic(canvas),
        semantic(canvas),
        instance(canvas),
        centers(2 * num_centers),
        scores(canvas),
        center_scores(num_centers),
        image_panoptic(image),
        image_semantic(image) {}
};

void Merge(Random* random) {
  DleMergeSettings s = {};
  s.head_height = random->Int(1, 12);
  s.head_width = random->Int(1, 16);
  s.num_classes = random->OneOf({1, 2, 5, 19, 300});
  s.height = random->Int(1, 50);
  s.width = random->Int(1, 70);
  s.label_divisor = random->OneOf({2, 4, 1000});
  s.ignore_label = random->OneOf({0, 3, 255});
  s.nms_kernel = random->OneOf({1, 2, 3, 7, 41});
  s.keep_k_centers = random->OneOf({1, 3, 400});
  s.stuff_area_limit = random->OneOf({0, 5, 200});
  s.merge_plateaus = random->Int(0, 1);
  s.center_score_threshold = random->OneOf({-1.0f, 0.0f, 0.1f, 0.9f});
  const int32_t things[] = {0, 1, 4, 250, 299, 7000, -3};
  s.thing_ids = things;
  s.num_things = random->Int(0, 7);
  s.votes_from = random->OneOf({0, 0, 2049, 1 << 14});
  const size_t head = static_cast<size_t>(s.head_height) * s.head_width;
  const AnyHead logits(random, head * s.num_classes, 4), heat(random, head, 0.4f);
  const AnyHead offsets(random, head * 2, random->OneOf({0.0f, 3.0f, 1e4f}));
  DlePlacement place = {random->Int(1, 80), random->Int(1, 80), random->Int(1, s.height),
                        random->Int(1, s.width)};
  const size_t canvas = static_cast<size_t>(s.height) * s.width;
  const size_t image = static_cast<size_t>(place.image_height) * place.image_width;
  std::vector<MergeResult> results;
  for (const int num_threads : {1, 3}) {
    DleCore* const core = dle_create(num_threads);
    CHECK(core);
    results.emplace_back(canvas, image, s.keep_k_centers);
    MergeResult& r = results.back();
    const DleMaps maps = {r.panoptic.data(), r.semantic.data(), r.instance.data(),
                          r.scores.data(),   r.centers.data(),  r.center_scores.data()};
    DleSegmentation seen = {};
    seen.panoptic = r.image_panoptic.data();
    seen.semantic = r.image_semantic.data();
    for (int again = 0; again < 2; ++again) {
      CHECK(dle_panoptic_merge(core, &logits.head, &heat.head, &offsets.head, &s, &maps) ==
            DLE_OK);
      CHECK(dle_segment_panoptic(core, &logits.head, &heat.head, &offsets.head, &s, &place,
                                 &seen) == DLE_OK);
    }
    std::map<int32_t, int64_t> areas;
    for (size_t i = 0; i < image; ++i) ++areas[r.image_panoptic[i]];
    for (int32_t i = 0; i < seen.num_segments; ++i) {
      const DleSegment& segment = seen.segments[i];
      CHECK(areas[segment.id] == segment.area);
      CHECK(0 <= segment.left && segment.left < segment.right &&
            segment.right <= place.image_width);
      CHECK(0 <= segment.top && segment.top < segment.bottom &&
            segment.bottom <= place.image_height);
      r.segments.push_back(segment.id);
    }
    for (size_t i = 0; i < canvas; ++i) {
      CHECK(0 <= r.semantic[i] && r.semantic[i] < s.num_classes);
      CHECK(0 <= r.instance[i] && r.instance[i] <= s.keep_k_centers);
    }
    CHECK(r.panoptic.IsWhole() && r.semantic.IsWhole() && r.instance.IsWhole() &&
          r.scores.IsWhole() && r.centers.IsWhole() && r.center_scores.IsWhole() &&
          r.image_panoptic.IsWhole() && r.image_semantic.IsWhole());
    dle_destroy(core);
  }
  CHECK(results[0].panoptic == results[1].panoptic);
  CHECK(results[0].instance == results[1].instance);
  CHECK(results[0].centers == results[1].centers);
  CHECK(results[0].image_panoptic == results[1].image_panoptic);
  CHECK(results[0].image_semantic == results[1].image_semantic);
  CHECK(results[0].segments == results[1].segments);
}

// The same as the library, without anything clever.
float Resized(const std::vector<uint8_t>& image, const DlePlacedImage& p, int y, int x,
              int c) {
  const auto find = [](int i, int n_in, int n_out, int* lower, int* upper) {
    const float scale =
        static_cast<float>(n_in - 1) / static_cast<float>(n_out > 1 ? n_out - 1 : 1);
    const float position = static_cast<float>(i) * scale;
    *lower = std::min(static_cast<int>(position), n_in - 1);
    *upper = std::min(*lower + 1, n_in - 1);
    return position - static_cast<float>(*lower);
  };
  int top, bottom, left, right;
  const float down = find(y, p.height, p.resized_height, &top, &bottom);
  const float across = find(x, p.width, p.resized_width, &left, &right);
  const auto at = [&](int row, int column) {
    return static_cast<float>(
        image[static_cast<size_t>(row * p.row_bytes) + 3 * static_cast<size_t>(column) + c]);
  };
  const float upper = (at(top, right) - at(top, left)) * across + at(top, left);
  const float lower = (at(bottom, right) - at(bottom, left)) * across + at(bottom, left);
  return std::floor((lower - upper) * down + upper + 0.5f);
}

template <typename Value>
void PlaceAs(Random* random, int32_t type) {
  DlePlacedImage p = {};
  p.height = random->Int(1, 40);
  p.width = random->Int(1, 50);
  p.row_bytes = 3 * p.width + random->OneOf({0, 1, 64});
  p.canvas_height = random->Int(1, 40);
  p.canvas_width = random->Int(1, 50);
  p.resized_height = random->Int(1, p.canvas_height);
  p.resized_width = random->Int(1, p.canvas_width);
  p.padding = random->Int(0, 255);
  p.type = type;
  // No byte after the last pixel.
  std::vector<uint8_t> image(static_cast<size_t>(p.row_bytes) * (p.height - 1) +
                             3 * static_cast<size_t>(p.width));
  for (uint8_t& level : image) level = static_cast<uint8_t>(random->Int(0, 255));
  p.pixels = image.data();
  std::vector<Value> table(256);
  for (int i = 0; i < 256; ++i) table[i] = static_cast<Value>(i - 128);
  const bool has_table = type != DLE_PIXEL_UINT8 || random->Chance(2);
  p.table = has_table ? table.data() : nullptr;
  Walled<Value> canvas(3 * static_cast<size_t>(p.canvas_height) * p.canvas_width);
  CHECK(dle_place_image(&p, canvas.data()) == DLE_OK);
  CHECK(canvas.IsWhole());
  size_t i = 0;
  for (int y = 0; y < p.canvas_height; ++y) {
    for (int x = 0; x < p.canvas_width; ++x) {
      for (int c = 0; c < 3; ++c, ++i) {
        const bool is_inside = y < p.resized_height && x < p.resized_width;
        const int level =
            is_inside ? static_cast<int>(Resized(image, p, y, x, c)) : p.padding;
        CHECK(canvas[i] == (has_table ? table[level] : static_cast<Value>(level)));
      }
    }
  }
}

void Place(Random* random) {
  PlaceAs<uint8_t>(random, DLE_PIXEL_UINT8);
  PlaceAs<int8_t>(random, DLE_PIXEL_INT8);
  PlaceAs<int16_t>(random, DLE_PIXEL_INT16);
  PlaceAs<float>(random, DLE_PIXEL_FLOAT32);
}

void Masks(Random* random) {
  DleMaskSettings s = {};
  s.head_height = random->Int(1, 9);
  s.head_width = random->Int(1, 12);
  s.num_masks = random->OneOf({1, 3, 4, 33, 128});
  s.height = random->Int(1, 40);
  s.width = random->Int(1, 50);
  s.pixel_confidence_threshold = random->OneOf({0.0f, 0.25f, 0.4f, 1.0f});
  std::vector<uint8_t> is_detected;
  std::vector<int32_t> ids;
  std::vector<float> confidences;
  for (int i = 0; i < s.num_masks; ++i) {
    is_detected.push_back(static_cast<uint8_t>(random->Int(0, 1)));
    ids.push_back(1000 * i);
    confidences.push_back(0.5f);
  }
  s.is_detected = is_detected.data();
  const size_t head = static_cast<size_t>(s.head_height) * s.head_width * s.num_masks;
  const AnyHead logits(random, head, random->OneOf({0.0f, 1.0f, 20.0f}));
  const size_t size = static_cast<size_t>(s.height) * s.width;
  std::vector<Walled<int32_t>> panoptics;
  for (const int num_threads : {1, 3}) {
    s.num_threads = num_threads;
    Walled<int32_t> best(size), winner(size);
    Walled<float> confidence(size), score(size);
    Walled<uint8_t> state(size);
    Walled<int64_t> area(s.num_masks);
    const DleMaskPixels pixels = {best.data(), winner.data(), confidence.data(),
                                  state.data(), area.data()};
    const int32_t code = dle_mask_pixels(&logits.head, &s, &pixels);
    if (code == DLE_NOT_FINITE) {
      CHECK(best.IsUntouched() && confidence.IsUntouched());
      return;
    }
    CHECK(code == DLE_OK);
    std::vector<int64_t> areas(s.num_masks, 0);
    for (size_t i = 0; i < size; ++i) {
      CHECK(0 <= best[i] && best[i] < s.num_masks);
      CHECK(0 <= winner[i] && winner[i] < s.num_masks);
      CHECK(0 <= confidence[i] && confidence[i] <= 1.00001f);
      CHECK(state[i] <= DLE_PIXEL_UNDECIDED);
      areas[winner[i]] += state[i] == DLE_PIXEL_CONFIDENT;
    }
    for (int i = 0; i < s.num_masks; ++i) CHECK(areas[i] == area[i]);
    Walled<int32_t> panoptic(size), semantic(size), mask_id(size), mask_semantic(size);
    const DleMaskMaps maps = {ids.data(),      ids.data(),      confidences.data(), -5,
                              panoptic.data(), semantic.data(), mask_id.data(),
                              mask_semantic.data(), score.data()};
    CHECK(dle_mask_maps(&s, &pixels, &maps) == DLE_OK);
    CHECK(best.IsWhole() && winner.IsWhole() && confidence.IsWhole() && state.IsWhole() &&
          area.IsWhole() && panoptic.IsWhole() && semantic.IsWhole() &&
          mask_id.IsWhole() && mask_semantic.IsWhole() && score.IsWhole());
    panoptics.push_back(panoptic);
  }
  CHECK(panoptics[0] == panoptics[1]);
}

void Draw(Random* random) {
  DleOverlay o = {};
  o.height = random->Int(1, 20);
  o.width = random->Int(1, 30);
  o.num_segments = random->Int(1, 9);
  o.contour = 255;
  o.row_bytes = 3 * o.width;
  const size_t size = static_cast<size_t>(o.height) * o.width;
  std::vector<uint8_t> image(3 * size, 9), levels(768 * static_cast<size_t>(o.num_segments), 8);
  std::vector<uint8_t> is_thing(o.num_segments, 1);
  std::vector<uint16_t> map(size);
  for (uint16_t& number : map) number = static_cast<uint16_t>(random->Int(0, o.num_segments - 1));
  o.pixels = image.data();
  o.levels = levels.data();
  o.is_thing = is_thing.data();
  o.segment_map = map.data();
  Walled<uint8_t> out(3 * size);
  CHECK(dle_draw_overlay(&o, out.data()) == DLE_OK && out.IsWhole());
  map[random->Int(0, static_cast<int>(size) - 1)] =
      static_cast<uint16_t>(random->Int(o.num_segments, 65535));
  CHECK(dle_draw_overlay(&o, out.data()) == DLE_BAD_ARGUMENT && out.IsWhole());
}

void Instances(Random* random) {
  DleInstanceMap map = {};
  map.height = random->Int(1, 20);
  map.width = random->Int(1, 40);
  map.label_divisor = random->OneOf({1, 2, 1000});
  const size_t size = static_cast<size_t>(map.height) * map.width;
  std::vector<int32_t> ids(size), others(size);
  std::map<int32_t, int64_t> areas;
  for (size_t i = 0; i < size; ++i) {
    const bool is_new = i == 0 || random->Chance(3);
    ids[i] = !is_new             ? ids[i - 1]
             : random->Chance(9) ? random->OneOf({INT32_MIN, INT32_MAX, -1, 0})
                                 : random->Int(-5, 5000);
    others[i] = random->Chance(5) ? ids[random->Int(0, static_cast<int>(i))] : ids[i];
    if (ids[i] % map.label_divisor) ++areas[ids[i]];
  }
  map.ids = ids.data();
  std::vector<DleInstance> found(size);
  int32_t count = -1;
  CHECK(dle_list_instances(&map, static_cast<int32_t>(size), found.data(), &count) == DLE_OK);
  CHECK(static_cast<size_t>(count) == areas.size());
  std::vector<int32_t> old_ids, new_ids;
  for (int32_t i = 0; i < count; ++i) {
    CHECK(areas[found[i].id] == found[i].area_px);
    old_ids.push_back(found[i].id);
    new_ids.push_back(i);
  }
  CHECK(dle_list_instances(&map, 0, nullptr, &count) == DLE_OK);
  Walled<int32_t> renamed(size);
  CHECK(dle_rename_instances(&map, map.label_divisor, old_ids.data(), new_ids.data(), count,
                             renamed.data()) == DLE_OK);
  CHECK(renamed.IsWhole());
  if (!count) return;
  DleInstanceMap other = map;
  other.ids = others.data();
  Walled<int64_t> pairs(static_cast<size_t>(count) * count);
  CHECK(dle_count_overlaps(&map, &other, old_ids.data(), count, old_ids.data(), count,
                           pairs.data()) == DLE_OK);
  CHECK(pairs.IsWhole());
  int64_t all = 0, expected = 0;
  for (size_t i = 0; i < pairs.size(); ++i) all += pairs[i];
  for (size_t i = 0; i < size; ++i) {
    expected += areas.count(ids[i]) && areas.count(others[i]);
  }
  CHECK(all == expected);
}

void Halves(Random* random) {
  DleMergeSettings s = {};
  s.num_classes = random->Int(1, 7);
  s.height = random->Int(1, 12);
  s.width = random->Int(1, 12);
  s.label_divisor = random->OneOf({2, 1000});
  s.ignore_label = 255;
  s.stuff_area_limit = random->OneOf({0, 9});
  const int32_t things[] = {1, 3, 900};
  s.thing_ids = things;
  s.num_things = 3;
  const int32_t num_instances = random->Int(0, 9);
  const size_t size = static_cast<size_t>(s.height) * s.width;
  std::vector<int32_t> semantic(size), instance(size);
  for (size_t i = 0; i < size; ++i) {
    semantic[i] = random->Int(0, s.num_classes - 1);
    instance[i] = semantic[i] % 2 ? random->Int(0, num_instances) : 0;
  }
  Walled<int32_t> left(size), right(size);
  const DleHalf halves[] = {{semantic.data(), instance.data(), left.data()},
                            {semantic.data(), instance.data(), right.data()}};
  CHECK(dle_merge_halves(&s, num_instances, &halves[0], &halves[1]) == DLE_OK);
  CHECK(left.IsWhole() && left == right);
  for (size_t i = 0; i < size; ++i) {
    CHECK(instance[i] || left[i] % s.label_divisor == 0);
  }
  semantic[size - 1] = random->OneOf({-1, s.num_classes, INT32_MAX, INT32_MIN});
  Walled<int32_t> untouched(size);
  const DleHalf wrong = {semantic.data(), instance.data(), untouched.data()};
  CHECK(dle_merge_halves(&s, num_instances, &wrong, &wrong) == DLE_BAD_ARGUMENT);
  CHECK(untouched.IsUntouched());
}

// Settings without sense are refused before anything is read or written.
void Refuse(Random* random) {
  const float value = 0.5f;
  const DleHead head = {&value, DLE_FLOAT32, 1.0f, 0};
  const int32_t hostile = random->OneOf({0, -1, INT32_MIN, INT32_MAX});
  int32_t cell = 77;
  float score = 77;
  uint8_t state = 77;
  int64_t area = 77;
  DleCore* const core = dle_create(1);
  DleMergeSettings s = {1, 1, 1, 1, 1, 2, 0, 1, 1, 0, 0, 0.1f, 0, nullptr, 0};
  int32_t* const sizes[] = {&s.head_height, &s.head_width,    &s.num_classes,
                            &s.height,      &s.width,         &s.label_divisor,
                            &s.nms_kernel};
  const int chosen = random->Int(0, 6);
  *sizes[chosen] = hostile;
  const DleMaps maps = {&cell, &cell, &cell, &score, &cell, &score};
  if (hostile < 1 || chosen < 5) {
    CHECK(dle_panoptic_merge(core, &head, &head, &head, &s, &maps) == DLE_BAD_ARGUMENT);
  }
  CHECK(dle_panoptic_merge(nullptr, &head, &head, &head, &s, &maps) == DLE_BAD_ARGUMENT);
  CHECK(dle_panoptic_merge(core, nullptr, &head, &head, &s, &maps) == DLE_BAD_ARGUMENT);
  dle_destroy(core);
  dle_destroy(nullptr);
  CHECK(!dle_create(hostile));

  const uint8_t detected = 1;
  DleMaskSettings m = {1, 1, 1, 1, 1, 1, 0.4f, &detected};
  int32_t* const mask_sizes[] = {&m.head_height, &m.head_width, &m.num_masks,
                                 &m.height,      &m.width,      &m.num_threads};
  *mask_sizes[random->Int(0, 5)] = hostile;
  const DleMaskPixels pixels = {&cell, &cell, &score, &state, &area};
  CHECK(dle_mask_pixels(&head, &m, &pixels) == DLE_BAD_ARGUMENT);

  const uint8_t pixel[3] = {1, 2, 3};
  DlePlacedImage p = {pixel, 3, 1, 1, 1, 1, 1, 1, 128, DLE_PIXEL_UINT8, nullptr};
  int32_t* const image_sizes[] = {&p.height,        &p.width,         &p.resized_height,
                                  &p.resized_width, &p.canvas_height, &p.canvas_width};
  *image_sizes[random->Int(0, 5)] = hostile;
  CHECK(dle_place_image(&p, &state) == DLE_BAD_ARGUMENT);

  const DleInstanceMap map = {&cell, random->Chance(2) ? 1 : hostile, hostile, 2};
  CHECK(dle_list_instances(&map, 0, nullptr, &cell) == DLE_BAD_ARGUMENT);
  CHECK(cell == 77 && score == 77 && state == 77 && area == 77);
}

void Round(unsigned seed) {
  g_seed = seed;
  Random random(seed);
  Merge(&random);
  Place(&random);
  Masks(&random);
  Draw(&random);
  Instances(&random);
  Halves(&random);
  Refuse(&random);
}

}  // namespace

int main(int argc, char** argv) {
  const unsigned seed = argc > 1 ? static_cast<unsigned>(std::atoi(argv[1])) : 0;
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 100;
  CHECK(dle_abi_version() == DLE_ABI_VERSION);
  for (int i = 0; i < rounds; ++i) Round(seed + static_cast<unsigned>(i));
  // The functions are reentrant: several callers at once.
  std::vector<std::thread> callers;
  for (unsigned caller = 0; caller < 4; ++caller) {
    callers.emplace_back([=] {
      for (int i = 0; i < rounds / 4; ++i) {
        Round(seed + 1000003u * (caller + 1) + static_cast<unsigned>(i));
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  std::printf("%d rounds\n", rounds + rounds / 4 * 4);
  return 0;
}
