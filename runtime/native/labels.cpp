#include "labels.h"

namespace dle {
namespace {

// Above this the counts of one thread are memory enough.
constexpr size_t kMaxShared = 1 << 20;

}  // namespace

template <typename Class, typename Id>
void Labels<Class, Id>::Read(Frame* frame, Pool* pool) {
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

template <typename Class, typename Id>
template <typename T>
void Labels<Class, Id>::ReadAs(Frame* frame, Pool* pool) {
  const Classifier<T> classifier(*frame);
  for (Worker& worker : workers_) worker.largest = 0;
  ForEachRow(frame->head_height(), pool, [&](int32_t row, int32_t worker) {
    frame->ReadRow(row);
    const uint32_t largest = classifier.FindWinners(
        row, winners_.data() + static_cast<size_t>(row) * frame->head_width());
    workers_[worker].largest = std::max(workers_[worker].largest, largest);
  });
  largest_ = 0;
  for (const Worker& worker : workers_) largest_ = std::max(largest_, worker.largest);
}

template <typename Class, typename Id>
void Labels<Class, Id>::Fill(const Frame& frame, const CenterIndex& index,
                             int32_t num_centers, Pool* pool) {
  frame_ = &frame;
  index_ = &index;
  num_centers_ = num_centers;
  const size_t num_pixels = static_cast<size_t>(frame.height()) * frame.width();
  classes.resize(num_pixels);
  ids.resize(num_pixels);
  if (num_centers > 0) {
    clear_.resize(winners_.size());
    ForEachRow(frame.head_height(), pool, [&](int32_t row, int32_t) { FindClear(row); });
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

template <typename Class, typename Id>
template <typename T>
void Labels<Class, Id>::FillAs(Pool* pool) {
  Classifier<T> classifier(*frame_);
  classifier.SetLargest(largest_);
  const size_t num_ids = static_cast<size_t>(num_centers_) + 1;
  const size_t num_classes = static_cast<size_t>(frame_->num_classes());
  const bool is_shared = num_ids * num_classes <= kMaxShared;
  for (size_t i = 0; i < workers_.size(); ++i) {
    if (i == 0 || is_shared) workers_[i].tally.Clear(num_ids, num_classes);
    workers_[i].cell.Resize(frame_->num_classes());
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
template <typename Class, typename Id>
void Labels<Class, Id>::FindClear(int32_t row) {
  const Frame& frame = *frame_;
  const int32_t height = frame.head_height(), width = frame.head_width();
  const size_t start = static_cast<size_t>(row) * width;
  Id* const clear = clear_.data() + start;
  // With one source pixel along an axis, votes are not between those of the corners.
  if ((height == 1 && frame.height() > 1) || (width == 1 && frame.width() > 1)) {
    std::fill(clear, clear + width, Id{0});
    return;
  }
  const Class* const here = winners_.data() + start;
  const Class* const above = row > 0 ? here - width : here;
  const Class* const below = row + 1 < height ? here + width : here;
  const float y = static_cast<float>(static_cast<double>(frame.height() - 1) * row /
                                     std::max(height - 1, 1));
  const double step = static_cast<double>(frame.width() - 1) / std::max(width - 1, 1);
  const auto has_thing = [&](int32_t x) {
    return x < width && (frame.is_thing[here[x]] | frame.is_thing[above[x]] |
                         frame.is_thing[below[x]]);
  };
  bool is_left = false, is_here = has_thing(0);
  for (int32_t x = 0; x < width; ++x) {
    const bool is_right = has_thing(x + 1);
    clear[x] = 0;
    if (is_left || is_here || is_right) {
      const float dy = frame.dy[start + x], dx = frame.dx[start + x];
      const int32_t nearest =
          index_->ClearNearest(y + dy, static_cast<float>(x * step) + dx, dy, dx);
      clear[x] = static_cast<Id>(nearest + 1);
    }
    is_left = is_here;
    is_here = is_right;
  }
}

// Fills the canvas rows of one row of cells.
template <typename Class, typename Id>
template <typename T>
void Labels<Class, Id>::FillRow(const Classifier<T>& classifier, int32_t row,
                                Worker* worker) {
  const Frame& frame = *frame_;
  const int32_t first_y = frame.rows.begin[row], end_y = frame.rows.begin[row + 1];
  if (first_y == end_y) return;
  const size_t stride = static_cast<size_t>(frame.width());
  std::fill(ids.begin() + first_y * stride, ids.begin() + end_y * stride, Id{0});
  const int32_t width = frame.head_width();
  const Class* const top = winners_.data() + static_cast<size_t>(row) * width;
  const Class* const bottom = row + 1 < frame.head_height() ? top + width : top;
  const std::vector<int32_t>& begin = frame.columns.begin;
  for (int32_t cell = 0; cell < width;) {
    const Class winner = top[cell];
    int32_t end = cell;
    if (bottom[cell] == winner) {
      while (end < width) {
        const int32_t next = std::min(end + 1, width - 1);
        if (top[next] != winner || bottom[next] != winner) break;
        ++end;
      }
    }
    if (end == cell) {
      if (begin[cell] < begin[cell + 1]) FillMixed(classifier, row, cell, worker);
      ++cell;
      continue;
    }
    const int32_t first_x = begin[cell], end_x = begin[end];
    if (first_x < end_x) {
      for (int32_t y = first_y; y < end_y; ++y) {
        std::fill(classes.begin() + y * stride + first_x, classes.begin() + y * stride + end_x,
                  winner);
      }
      if (num_centers_ > 0 && frame.is_thing[winner]) {
        GroupRun(row, cell, end, winner, worker);
      } else {
        worker->tally.votes[winner] +=
            static_cast<uint32_t>((end_y - first_y) * (end_x - first_x));
      }
    }
    cell = end;
  }
}

// Groups the pixels of cells in a row that are of one thing class.
template <typename Class, typename Id>
void Labels<Class, Id>::GroupRun(int32_t row, int32_t cell, int32_t end, int32_t thing,
                                 Worker* worker) {
  const Frame& frame = *frame_;
  const int32_t first_y = frame.rows.begin[row], end_y = frame.rows.begin[row + 1];
  while (cell < end) {
    const Id id = ClearId(row, cell);
    int32_t next = cell + 1;
    while (next < end && id != 0 && ClearId(row, next) == id) ++next;
    const int32_t first_x = frame.columns.begin[cell], end_x = frame.columns.begin[next];
    if (first_x < end_x) {
      if (id == 0) {
        GroupPixels(row, cell, worker);
      } else {
        for (int32_t y = first_y; y < end_y; ++y) {
          Id* const pixels = ids.data() + static_cast<size_t>(y) * frame.width();
          std::fill(pixels + first_x, pixels + end_x, id);
        }
        Count(id, thing, (end_y - first_y) * (end_x - first_x), first_y, first_x, worker);
      }
    }
    cell = next;
  }
}

// Fills a cell whose corners are of different classes.
template <typename Class, typename Id>
template <typename T>
void Labels<Class, Id>::FillMixed(const Classifier<T>& classifier, int32_t row, int32_t cell,
                                  Worker* worker) {
  const Frame& frame = *frame_;
  const int32_t next_row = std::min(row + 1, frame.head_height() - 1);
  const int32_t next = std::min(cell + 1, frame.head_width() - 1);
  const T* const corners[4] = {classifier.At(row, cell), classifier.At(row, next),
                               classifier.At(next_row, cell), classifier.At(next_row, next)};
  const size_t width = static_cast<size_t>(frame.head_width());
  const Class winners[4] = {winners_[row * width + cell], winners_[row * width + next],
                            winners_[next_row * width + cell],
                            winners_[next_row * width + next]};
  classifier.FindCandidates(corners, winners, &worker->cell);
  const int32_t first_y = frame.rows.begin[row], end_y = frame.rows.begin[row + 1];
  const int32_t first_x = frame.columns.begin[cell], end_x = frame.columns.begin[cell + 1];
  classifier.Interpolate(corners, first_y, end_y, first_x, end_x, &worker->cell,
                         classes.data());
  bool has_thing = false;
  for (int32_t i = 0; i < worker->cell.count; ++i) {
    has_thing |= frame.is_thing[worker->cell.classes[i]] != 0;
  }
  const bool is_grouped = has_thing && num_centers_ > 0;
  const Id id = is_grouped ? ClearId(row, cell) : Id{0};
  if (is_grouped && id == 0) {
    GroupPixels(row, cell, worker);
    return;
  }
  for (int32_t y = first_y; y < end_y; ++y) {
    const Class* const of_row = classes.data() + static_cast<size_t>(y) * frame.width();
    Id* const id_row = ids.data() + static_cast<size_t>(y) * frame.width();
    for (int32_t x = first_x; x < end_x; ++x) {
      if (id != 0 && frame.is_thing[of_row[x]]) {
        id_row[x] = id;
        Count(id, of_row[x], 1, y, x, worker);
      } else {
        ++worker->tally.votes[of_row[x]];
      }
    }
  }
}

// Groups the pixels of a cell one by one; their classes are known.
template <typename Class, typename Id>
void Labels<Class, Id>::GroupPixels(int32_t row, int32_t cell, Worker* worker) {
  const Frame& frame = *frame_;
  const size_t width = static_cast<size_t>(frame.head_width());
  const size_t above = row * width;
  const size_t below = std::min(row + 1, frame.head_height() - 1) * width;
  const size_t next = static_cast<size_t>(std::min(cell + 1, frame.head_width() - 1));
  const int32_t end_y = frame.rows.begin[row + 1], end_x = frame.columns.begin[cell + 1];
  for (int32_t y = frame.rows.begin[row]; y < end_y; ++y) {
    const float down = frame.rows.weight[y];
    const auto on_row = [&](const std::vector<float>& plane, size_t column) {
      return Lerp(plane[above + column], plane[below + column], down);
    };
    const float left_dy = on_row(frame.dy, cell), right_dy = on_row(frame.dy, next);
    const float left_dx = on_row(frame.dx, cell), right_dx = on_row(frame.dx, next);
    const Class* const of_row = classes.data() + static_cast<size_t>(y) * frame.width();
    Id* const id_row = ids.data() + static_cast<size_t>(y) * frame.width();
    for (int32_t x = frame.columns.begin[cell]; x < end_x; ++x) {
      if (!frame.is_thing[of_row[x]]) {
        ++worker->tally.votes[of_row[x]];
        continue;
      }
      const float across = frame.columns.weight[x];
      const int32_t id = 1 + index_->Nearest(
          static_cast<float>(y) + Lerp(left_dy, right_dy, across),
          static_cast<float>(x) + Lerp(left_dx, right_dx, across));
      id_row[x] = static_cast<Id>(id);
      Count(id, of_row[x], 1, y, x, worker);
    }
  }
}

template class Labels<uint8_t, uint16_t>;
template class Labels<uint16_t, uint32_t>;

}  // namespace dle
