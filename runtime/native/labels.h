// What every canvas pixel is: its class and its instance, in as few bytes as they need.

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

// `Class` holds every class, `Id` every instance plus 1.
template <typename Class, typename Id>
class Labels {
 public:
  std::vector<Class> classes;  // [H, W]
  std::vector<Id> ids;         // [H, W] the n-th center + 1 on things, else 0

  // Reads all heads and finds the best classes of the source pixels.
  void Read(Frame* frame, Pool* pool);

  // Fills the maps; `index` has the centers, of which there are num_centers.
  void Fill(const Frame& frame, const CenterIndex& index, int32_t num_centers, Pool* pool);

  // What was seen in the maps.
  const Tally& tally() const { return workers_[0].tally; }

 private:
  struct Worker {
    Tally tally;
    CellScratch cell;
    uint32_t largest;
  };

  template <typename T>
  void ReadAs(Frame* frame, Pool* pool);
  template <typename T>
  void FillAs(Pool* pool);
  void FindClear(int32_t row);
  template <typename T>
  void FillRow(const Classifier<T>& classifier, int32_t row, Worker* worker);
  void GroupRun(int32_t row, int32_t cell, int32_t end, int32_t thing, Worker* worker);
  template <typename T>
  void FillMixed(const Classifier<T>& classifier, int32_t row, int32_t cell, Worker* worker);
  void GroupPixels(int32_t row, int32_t cell, Worker* worker);

  // Gives the id of all votes of a cell, or 0 if they may differ.
  Id ClearId(int32_t row, int32_t cell) const {
    const int32_t width = frame_->head_width();
    const Id* const top = clear_.data() + static_cast<size_t>(row) * width;
    const Id* const bottom = row + 1 < frame_->head_height() ? top + width : top;
    const int32_t next = std::min(cell + 1, width - 1);
    const Id id = top[cell];
    return id == top[next] && id == bottom[cell] && id == bottom[next] ? id : Id{0};
  }

  void Count(int32_t id, int32_t thing, int32_t num_pixels, int32_t y, int32_t x,
             Worker* worker) const {
    Tally& tally = worker->tally;
    const size_t num_classes = static_cast<size_t>(frame_->num_classes());
    tally.votes[id * num_classes + thing] += static_cast<uint32_t>(num_pixels);
    const uint32_t pixel = static_cast<uint32_t>(y) * frame_->width() + x;
    tally.first[id] = std::min(tally.first[id], pixel);
  }

  const Frame* frame_ = nullptr;
  const CenterIndex* index_ = nullptr;
  int32_t num_centers_ = 0;
  uint32_t largest_ = 0;
  std::vector<Class> winners_;  // [h, w]
  std::vector<Id> clear_;       // [h, w] id of votes that no rounding changes, or 0
  std::vector<Worker> workers_;
};

// Few blocks cost little, many share the work well.
inline int32_t RowsPerBlock(int32_t num_rows, const Pool& pool) {
  return std::max(num_rows / (8 * pool.num_workers()), 1);
}

template <typename Body>
void ForEachRow(int32_t num_rows, Pool* pool, const Body& body) {
  const int32_t height = RowsPerBlock(num_rows, *pool);
  pool->ForEach((num_rows + height - 1) / height, [&](int32_t block, int32_t worker) {
    const int32_t end = std::min((block + 1) * height, num_rows);
    for (int32_t row = block * height; row < end; ++row) body(row, worker);
  });
}

}  // namespace dle

#endif  // DEEPLAB2_EDGE_LABELS_H_
