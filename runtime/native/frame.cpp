#include "frame.h"

namespace dle {
namespace {

template <typename T>
void ReadSteps(const DleHead& head, size_t start, int32_t step, int32_t count, float* out) {
  const T* const from = static_cast<const T*>(head.data) + start;
  for (int32_t i = 0; i < count; ++i) {
    out[i] = static_cast<float>(from[static_cast<size_t>(i) * step] - head.zero_point) *
             head.scale;
  }
}

float Growth(int32_t n_in, int32_t n_out) {
  return static_cast<float>(static_cast<double>(n_out - 1) / std::max(n_in - 1, 1));
}

}  // namespace

CellAxis::CellAxis(int32_t in, int32_t out)
    : Axis(in, out),
      n_in(in),
      n_out(out),
      begin(static_cast<size_t>(in) + 1, out),
      place(static_cast<size_t>(in) + 3) {
  for (int32_t i = out - 1; i >= 0; --i) begin[lower[i]] = i;
  for (int32_t cell = in - 1; cell >= 0; --cell) {
    begin[cell] = std::min(begin[cell], begin[cell + 1]);
  }
  step = out < in ? 0.0 : 1.0;
  for (int32_t i = 1; i < out; ++i) {
    const int32_t cells = lower[i] - lower[i - 1];
    const double from_last = cells + static_cast<double>(weight[i]) - weight[i - 1];
    step = cells > 1 ? 0.0 : std::min(step, from_last);
  }
  is_aligned = true;
  for (int32_t cell = 0; cell < in; ++cell) {
    is_aligned = is_aligned && begin[cell] < begin[cell + 1] && weight[begin[cell]] == 0.0f;
  }
  weight.resize(static_cast<size_t>(out) + 3);
  for (int32_t i = 0; i < in; ++i) {
    place[i] = static_cast<float>(static_cast<double>(out - 1) * i / std::max(in - 1, 1));
  }
}

void Frame::Begin(const DleHead& semantic_logits, const DleHead& center_heatmap,
                  const DleHead& offset_map, const DleMergeSettings& merge_settings) {
  logits = semantic_logits;
  heatmap = center_heatmap;
  offsets = offset_map;
  settings = &merge_settings;
  if (rows.n_in != head_height() || rows.n_out != height()) {
    rows = CellAxis(head_height(), height());
  }
  if (columns.n_in != head_width() || columns.n_out != width()) {
    columns = CellAxis(head_width(), width());
  }
  is_thing.assign(static_cast<size_t>(num_classes()), 0);
  for (int32_t i = 0; i < settings->num_things; ++i) {
    const int32_t thing = settings->thing_ids[i];
    if (thing >= 0 && thing < num_classes()) is_thing[thing] = 1;
  }
  const size_t size = static_cast<size_t>(head_height()) * head_width();
  heat.resize(size + 4);
  dy.resize(size + 3);
  dx.resize(size + 3);
}

void Frame::ReadRow(int32_t row) {
  const int32_t width = head_width();
  const size_t start = static_cast<size_t>(row) * width;
  ReadReal(heatmap, start, 1, width, heat.data() + start);
  ReadReal(offsets, 2 * start, 2, width, dy.data() + start);
  ReadReal(offsets, 2 * start + 1, 2, width, dx.data() + start);
  const float y_growth = Growth(head_height(), settings->height);
  const float x_growth = Growth(head_width(), settings->width);
  for (size_t i = start; i < start + width; ++i) {
    dy[i] *= y_growth;
    dx[i] *= x_growth;
  }
}

void ReadReal(const DleHead& head, size_t start, int32_t step, int32_t count, float* out) {
  switch (head.type) {
    case DLE_INT8:
      return ReadSteps<int8_t>(head, start, step, count, out);
    case DLE_UINT8:
      return ReadSteps<uint8_t>(head, start, step, count, out);
    case DLE_INT16:
      return ReadSteps<int16_t>(head, start, step, count, out);
    default: {
      const float* const from = static_cast<const float*>(head.data) + start;
      for (int32_t i = 0; i < count; ++i) out[i] = from[static_cast<size_t>(i) * step];
    }
  }
}

}  // namespace dle
