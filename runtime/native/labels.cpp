#include "labels.h"

namespace dle {
namespace {

// Above this the counts of one thread are memory enough.
constexpr size_t kMaxShared = 1 << 20;

}  // namespace

template <typename Label>
void Labels<Label>::Read(Frame* frame, Pool* pool) {
  frame_ = frame;
  winners_.resize(static_cast<size_t>(frame->head_height()) * frame->head_width());
  workers_.resize(static_cast<size_t>(pool->num_workers()));
  switch (frame->logits.type) {
    case DLE_INT8:
      return ReadAs<int8_t>(frame, pool);
    case DLE_UINT8:
      return ReadAs<uint8_t>(frame, pool);
    case DLE_INT16:
      return ReadAs<int16_t>(frame, pool);
    default:
      return ReadAs<float>(frame, pool);
  }
}

template <typename Label>
template <typename T>
void Labels<Label>::ReadAs(Frame* frame, Pool* pool) {
  const Classifier<T> classifier(*frame);
  for (Worker& worker : workers_) worker.largest = 0.0f;
  ForEachRow(frame->head_height(), pool, [&](int32_t row, int32_t worker) {
    frame->ReadRow(row);
    const float largest = classifier.FindWinners(
        row, winners_.data() + static_cast<size_t>(row) * frame->head_width());
    workers_[worker].largest = std::max(workers_[worker].largest, largest);
  });
  largest_ = 0.0f;
  for (const Worker& worker : workers_) largest_ = std::max(largest_, worker.largest);
}

template <typename Label>
void Labels<Label>::Fill(const Frame& frame, const CenterIndex& index, int32_t num_centers,
                         Pool* pool) {
  frame_ = &frame;
  index_ = &index;
  num_centers_ = num_centers;
  map.resize(static_cast<size_t>(frame.height()) * frame.width());
  clear_.resize(winners_.size());
  for (Worker& worker : workers_) {
    worker.has_thing.assign(static_cast<size_t>(frame.head_width()) + 5, 0);
  }
  if (num_centers > 0) {
    ForEachRow(frame.head_height(), pool, [&](int32_t row, int32_t worker) {
      FindClear(row, &workers_[worker]);
    });
  }
  switch (frame.logits.type) {
    case DLE_INT8:
      return FillAs<int8_t>(pool);
    case DLE_UINT8:
      return FillAs<uint8_t>(pool);
    case DLE_INT16:
      return FillAs<int16_t>(pool);
    default:
      return FillAs<float>(pool);
  }
}

template <typename Label>
template <typename T>
void Labels<Label>::FillAs(Pool* pool) {
  Classifier<T> classifier(*frame_);
  classifier.SetLargest(largest_);
  const size_t num_ids = static_cast<size_t>(num_centers_) + 1;
  const size_t num_classes = static_cast<size_t>(frame_->num_classes());
  const bool is_shared = num_ids * num_classes <= kMaxShared;
  for (size_t i = 0; i < workers_.size(); ++i) {
    if (i == 0 || is_shared) workers_[i].tally.Clear(num_ids, num_classes);
    workers_[i].cell.Resize(frame_->num_classes());
    workers_[i].labels.resize(num_classes);
    workers_[i].num_pixels.resize(num_classes);
  }
  const int32_t num_rows = frame_->head_height();
  if (is_shared) {
    ForEachRow(num_rows, pool, [&](int32_t row, int32_t worker) {
      FillRow(classifier, row, &workers_[worker]);
    });
    for (size_t i = 1; i < workers_.size(); ++i) workers_[0].tally.Add(workers_[i].tally);
  } else {
    for (int32_t row = 0; row < num_rows; ++row) FillRow(classifier, row, &workers_[0]);
  }
}

// A source row of votes, where things are at or beside them.
template <typename Label>
void Labels<Label>::FindClear(int32_t row, Worker* worker) {
  const Frame& frame = *frame_;
  const int32_t height = frame.head_height(), width = frame.head_width();
  const size_t start = static_cast<size_t>(row) * width;
  int32_t* const clear = clear_.data() + start;
  // With one source pixel along an axis, votes are not between those of the corners.
  const int32_t longest =
      std::max(std::max(frame.height(), frame.width()), frame.settings->votes_from);
  if ((height == 1 && frame.height() > 1) || (width == 1 && frame.width() > 1) ||
      longest > CenterIndex::kMaxClearSide) {
    std::fill(clear, clear + width, 0);
    return;
  }
  const uint16_t* const here = winners_.data() + start;
  const uint16_t* const above = row > 0 ? here - width : here;
  const uint16_t* const below = row + 1 < height ? here + width : here;
  uint8_t* const has_thing = worker->has_thing.data() + 1;
  for (int32_t x = 0; x < width; ++x) {
    has_thing[x] = frame.is_thing[here[x]] | frame.is_thing[above[x]] |
                   frame.is_thing[below[x]];
  }
  const Floats4 y = All4(static_cast<float>(static_cast<double>(frame.height() - 1) * row /
                                            std::max(height - 1, 1)));
  const double step = static_cast<double>(frame.width() - 1) / std::max(width - 1, 1);
  for (int32_t x = 0; x < width; x += 4) {
    Floats4 place = {};
    Ints4 is_wanted = {};
    for (int i = 0; i < 4; ++i) {
      place[i] = static_cast<float>((x + i) * step);
      const bool is_near = has_thing[x + i - 1] | has_thing[x + i] | has_thing[x + i + 1];
      is_wanted[i] = is_near && x + i < width ? -1 : 0;
    }
    Ints4 ids = {};
    if (Any(is_wanted)) {
      const Floats4 dy = Load4(frame.dy.data() + start + x);
      const Floats4 dx = Load4(frame.dx.data() + start + x);
      ids = 1 + index_->ClearNearest(y + dy, place + dx, dy, dx, is_wanted);
    }
    for (int i = 0; i < std::min(width - x, 4); ++i) clear[x + i] = ids[i];
  }
}

// Fills the canvas rows of one row of cells.
template <typename Label>
template <typename T>
void Labels<Label>::FillRow(const Classifier<T>& classifier, int32_t row, Worker* worker) {
  const Frame& frame = *frame_;
  const int32_t num_rows = frame.rows.begin[row + 1] - frame.rows.begin[row];
  if (num_rows == 0) return;
  const int32_t width = frame.head_width();
  const uint16_t* const top = winners_.data() + static_cast<size_t>(row) * width;
  const uint16_t* const bottom = row + 1 < frame.head_height() ? top + width : top;
  const std::vector<int32_t>& begin = frame.columns.begin;
  for (int32_t cell = 0; cell < width;) {
    const int32_t winner = top[cell];
    int32_t end = cell;
    if (bottom[cell] == winner) {
      while (end + 1 < width && top[end + 1] == winner && bottom[end + 1] == winner) ++end;
      if (end + 1 == width) ++end;
    }
    if (end == cell) {
      if (begin[cell] < begin[cell + 1]) FillMixed(classifier, row, cell, worker);
      ++cell;
      continue;
    }
    if (num_centers_ > 0 && frame.is_thing[winner]) {
      GroupRun(row, cell, end, winner, worker);
    } else {
      FillCells(row, cell, end, LabelOf(0, winner));
      Count(0, winner, static_cast<uint32_t>(num_rows * (begin[end] - begin[cell])), worker);
    }
    cell = end;
  }
}

template <typename Label>
void Labels<Label>::FillCells(int32_t row, int32_t cell, int32_t end, Label label) {
  const int32_t first_x = frame_->columns.begin[cell], end_x = frame_->columns.begin[end];
  for (int32_t y = frame_->rows.begin[row]; y < frame_->rows.begin[row + 1]; ++y) {
    Label* const pixels = map.data() + static_cast<size_t>(y) * frame_->width();
    std::fill(pixels + first_x, pixels + end_x, label);
  }
}

// Groups the pixels of cells in a row that are of one thing class.
template <typename Label>
void Labels<Label>::GroupRun(int32_t row, int32_t cell, int32_t end, int32_t thing,
                             Worker* worker) {
  const CellAxis &rows = frame_->rows, &columns = frame_->columns;
  while (cell < end) {
    const int32_t id = ClearId(row, cell);
    int32_t next = cell + 1;
    while (next < end && ClearId(row, next) == id) ++next;
    const int32_t first_x = columns.begin[cell], end_x = columns.begin[next];
    if (id != 0) FillCells(row, cell, next, LabelOf(id, thing));
    if (id == 0) {
      for (; cell < next; ++cell) GroupPixels(row, cell, thing, worker);
    } else if (first_x < end_x) {
      const int32_t num_rows = rows.begin[row + 1] - rows.begin[row];
      Count(id, thing, static_cast<uint32_t>(num_rows * (end_x - first_x)), worker);
      BeginAt(id, rows.begin[row], first_x, worker);
    }
    cell = next;
  }
}

// Fills a cell whose corners are of different classes.
template <typename Label>
template <typename T>
void Labels<Label>::FillMixed(const Classifier<T>& classifier, int32_t row, int32_t cell,
                              Worker* worker) {
  const Frame& frame = *frame_;
  const int32_t next_row = std::min(row + 1, frame.head_height() - 1);
  const int32_t next = std::min(cell + 1, frame.head_width() - 1);
  const T* const corners[4] = {classifier.At(row, cell), classifier.At(row, next),
                               classifier.At(next_row, cell), classifier.At(next_row, next)};
  const size_t width = static_cast<size_t>(frame.head_width());
  const uint16_t winners[4] = {winners_[row * width + cell], winners_[row * width + next],
                               winners_[next_row * width + cell],
                               winners_[next_row * width + next]};
  classifier.FindCandidates(corners, winners, &worker->cell);
  const int32_t count = worker->cell.count;
  const int32_t* const classes = worker->cell.classes.data();
  bool has_thing = false;
  for (int32_t i = 0; i < count; ++i) has_thing |= frame.is_thing[classes[i]] != 0;
  has_thing = has_thing && num_centers_ > 0;
  const int32_t id = has_thing ? ClearId(row, cell) : 0;
  for (int32_t i = 0; i < count; ++i) {
    worker->labels[i] = LabelOf(frame.is_thing[classes[i]] ? id : 0, classes[i]);
    worker->num_pixels[i] = 0;
  }
  const int32_t first_y = frame.rows.begin[row], end_y = frame.rows.begin[row + 1];
  const int32_t first_x = frame.columns.begin[cell], end_x = frame.columns.begin[cell + 1];
  classifier.Interpolate(corners, first_y, end_y, first_x, end_x, worker->labels.data(),
                         &worker->cell, worker->num_pixels.data(), map.data());
  if (has_thing && id == 0) {
    GroupPixels(row, cell, -1, worker);
    return;
  }
  for (int32_t i = 0; i < count; ++i) {
    Count(IdOf(worker->labels[i]), classes[i], worker->num_pixels[i], worker);
  }
  const size_t stride = static_cast<size_t>(frame.width());
  if (id == 0 || worker->tally.first[id] < first_y * stride + first_x) return;
  for (int32_t y = first_y; y < end_y; ++y) {
    for (int32_t x = first_x; x < end_x; ++x) {
      if (IdOf(map[y * stride + x]) == id) BeginAt(id, y, x, worker);
    }
  }
}

// Groups the pixels of a cell one by one. They are of one thing class, or their classes
// are in the map and `thing` is below 0.
template <typename Label>
void Labels<Label>::GroupPixels(int32_t row, int32_t cell, int32_t thing, Worker* worker) {
  const Frame& frame = *frame_;
  const size_t width = static_cast<size_t>(frame.head_width());
  const size_t above = row * width;
  const size_t below = std::min(row + 1, frame.head_height() - 1) * width;
  const size_t next = static_cast<size_t>(std::min(cell + 1, frame.head_width() - 1));
  const int32_t end_y = frame.rows.begin[row + 1], end_x = frame.columns.begin[cell + 1];
  const int32_t from = frame.settings->votes_from;
  for (int32_t y = frame.rows.begin[row]; y < end_y; ++y) {
    const float down = frame.rows.weight[y];
    const auto on_row = [&](const std::vector<float>& plane, size_t column) {
      return Lerp(plane[above + column], plane[below + column], down);
    };
    const float left_dy = on_row(frame.dy, cell), right_dy = on_row(frame.dy, next);
    const float left_dx = on_row(frame.dx, cell), right_dx = on_row(frame.dx, next);
    Label* const pixels = map.data() + static_cast<size_t>(y) * frame.width();
    for (int32_t x = frame.columns.begin[cell]; x < end_x; x += 4) {
      const int32_t count = std::min(end_x - x, 4);
      Ints4 is_thing = FirstOfFour(count);
      for (int32_t i = 0; i < count && thing < 0; ++i) {
        is_thing[i] = -static_cast<int32_t>(frame.is_thing[ClassOf(pixels[x + i])]);
      }
      Ints4 ids = {};
      if (Any(is_thing)) {
        const Floats4 across = Load4(frame.columns.weight.data() + x);
        const Floats4 place = All4(static_cast<float>(x + from)) + Floats4{0, 1, 2, 3};
        ids = 1 + index_->Nearest(All4(static_cast<float>(y)) +
                                      Lerp(All4(left_dy), All4(right_dy), across),
                                  place + (Lerp(All4(left_dx), All4(right_dx), across) -
                                           All4(static_cast<float>(from))),
                                  is_thing);
      }
      if (thing >= 0 && count == 4 && !Any(ids != Ints4{} + ids[0])) {
        std::fill(pixels + x, pixels + x + 4, LabelOf(ids[0], thing));
        BeginAt(ids[0], y, x, worker);
        Count(ids[0], thing, 4, worker);
        continue;
      }
      for (int32_t i = 0; i < count; ++i) {
        const int32_t id = is_thing[i] ? ids[i] : 0;
        const int32_t of_class = thing < 0 ? ClassOf(pixels[x + i]) : thing;
        pixels[x + i] = LabelOf(id, of_class);
        if (id > 0) BeginAt(id, y, x + i, worker);
        Count(id, of_class, 1, worker);
      }
    }
  }
}

// Gives the id of all votes of a cell, or 0 if they may differ.
template <typename Label>
int32_t Labels<Label>::ClearId(int32_t row, int32_t cell) const {
  const int32_t width = frame_->head_width();
  const int32_t* const top = clear_.data() + static_cast<size_t>(row) * width;
  const int32_t* const bottom = row + 1 < frame_->head_height() ? top + width : top;
  const int32_t next = std::min(cell + 1, width - 1);
  const int32_t id = top[cell];
  return id == top[next] && id == bottom[cell] && id == bottom[next] ? id : 0;
}

template <typename Label>
void Labels<Label>::Count(int32_t id, int32_t of_class, uint32_t num_pixels,
                          Worker* worker) const {
  worker->tally.votes[static_cast<size_t>(id) * frame_->num_classes() + of_class] +=
      num_pixels;
}

template <typename Label>
void Labels<Label>::BeginAt(int32_t id, int32_t y, int32_t x, Worker* worker) const {
  uint32_t& first = worker->tally.first[id];
  first = std::min(first, static_cast<uint32_t>(y) * frame_->width() + x);
}

template class Labels<uint32_t>;
template class Labels<uint64_t>;

}  // namespace dle
