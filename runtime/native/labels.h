// What every canvas pixel is: its class and its instance.

#ifndef DEEPLAB2_EDGE_LABELS_H_
#define DEEPLAB2_EDGE_LABELS_H_

#include <stddef.h>
#include <stdint.h>

#include <algorithm>
#include <vector>

#include "classes.h"
#include "deeplab2_edge.h"
#include "frame.h"
#include "grouping.h"
#include "pool.h"

namespace dle {

// How often which class was seen in which instance (0: none), and where each began.
struct Tally {
  std::vector<uint32_t> votes;  // [num_ids, C] pixels
  std::vector<uint32_t> first;  // [num_ids] canvas pixels, in raster order

  void Clear(size_t num_ids, size_t num_classes) {
    votes.assign(num_ids * num_classes, 0);
    first.assign(num_ids, UINT32_MAX);
  }

  void Add(const Tally& other) {
    for (size_t i = 0; i < votes.size(); ++i) votes[i] += other.votes[i];
    for (size_t i = 0; i < first.size(); ++i) first[i] = std::min(first[i], other.first[i]);
  }
};

// `Label` holds class and instance of a pixel: uint32_t for up to 256 classes, else
// uint64_t.
template <typename Label>
class Labels {
 public:
  std::vector<Label> map;  // [H, W]

  static int32_t ClassOf(Label label) {
    return static_cast<int32_t>(label & ((Label{1} << kClassBits) - 1));
  }

  // The n-th center + 1 on things, else 0.
  static int32_t IdOf(Label label) { return static_cast<int32_t>(label >> kClassBits); }

  // Reads all heads and finds the best classes of the source pixels.
  void Read(Frame* frame, Pool* pool);

  // Fills the map; `index` has the centers, of which there are num_centers.
  void Fill(const Frame& frame, const CenterIndex& index, int32_t num_centers, Pool* pool);

  // What was seen in the map.
  const Tally& tally() const { return workers_[0].tally; }

 private:
  static constexpr int kClassBits = sizeof(Label) * 2;

  struct Worker {
    Tally tally;
    CellScratch cell;
    std::vector<Label> labels;         // of the candidates of a cell
    std::vector<uint32_t> num_pixels;  // that have them
    std::vector<uint8_t> has_thing;    // of a source row, with a margin
    std::vector<int32_t> things;       // classes of pixels of a cell
    Rivals rivals;
    float largest;
  };

  static Label LabelOf(int32_t id, int32_t of_class) {
    return static_cast<Label>(id) << kClassBits | static_cast<Label>(of_class);
  }

  template <typename T>
  void ReadAs(Frame* frame, Pool* pool);
  template <typename T>
  void FillAs(Pool* pool);
  void FindClear(int32_t row, Worker* worker);
  template <typename T>
  void FillRow(const Classifier<T>& classifier, int32_t row, Worker* worker);
  void GroupRun(int32_t row, int32_t cell, int32_t end, int32_t thing, Worker* worker);
  template <typename T>
  void FillMixed(const Classifier<T>& classifier, int32_t row, int32_t cell, Worker* worker);
  void GroupCell(int32_t row, int32_t cell, Worker* worker);
  bool FindRivals(int32_t row, int32_t cell, Rivals* rivals) const;
  template <int32_t kNumRivals>
  void GroupAmong(int32_t row, int32_t cell, Worker* worker);
  void GroupPixels(int32_t row, int32_t cell, Worker* worker);
  void BeginWithin(int32_t id, int32_t row, int32_t cell, Worker* worker) const;
  void FillCells(int32_t row, int32_t cell, int32_t end, Label label);
  int32_t ClearId(int32_t row, int32_t cell) const;
  void Count(int32_t id, int32_t of_class, uint32_t num_pixels, Worker* worker) const;
  void BeginAt(int32_t id, int32_t y, int32_t x, Worker* worker) const;

  const Frame* frame_ = nullptr;
  const CenterIndex* index_ = nullptr;
  int32_t num_centers_ = 0;
  float largest_ = 0.0f;
  std::vector<uint16_t> winners_;  // [h, w]
  std::vector<int32_t> nearest_;   // [h, w] as CenterIndex::ClearNearest gives them
  std::vector<Worker> workers_;
};

// Few blocks cost little, many share the work well.
template <typename Body>
void ForEachRow(int32_t num_rows, Pool* pool, const Body& body) {
  const int32_t height = std::max(num_rows / (8 * pool->num_workers()), 1);
  pool->ForEach((num_rows + height - 1) / height, [&](int32_t block, int32_t worker) {
    const int32_t end = std::min((block + 1) * height, num_rows);
    for (int32_t row = block * height; row < end; ++row) body(row, worker);
  });
}

}  // namespace dle

#endif  // DEEPLAB2_EDGE_LABELS_H_
