// Runs the custom op DeepLabEdgePanopticMerge of a TFLite file, as an external delegate:
// whoever loads this library with load_delegate() gives the op to the interpreter.
//
// The op takes semantic_logits, center_heatmap and offset_map, [1, h, w, C] as float32,
// int8 or uint8, and gives, in this order, panoptic_pred, semantic_pred, instance_pred
// (int32 [1, H, W]), instance_scores (float32 [1, H, W]), instance_centers
// (int32 [1, K, 2]) and instance_center_scores (float32 [1, K]). Its options are
// little-endian int32: version, label_divisor, ignore_label, nms_kernel,
// keep_k_centers, stuff_area_limit, merge_plateaus, the bits of the float32
// center_score_threshold, and the ids of things.

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "deeplab2_edge.h"
#include "tflite_abi.h"

namespace {

constexpr char kOpName[] = "DeepLabEdgePanopticMerge";
constexpr int32_t kOptionsVersion = 1;
constexpr int kNumInputs = 3;
constexpr int kNumOutputs = 6;
constexpr int kNumOptions = 8;

struct Op {
  DleCore* core = nullptr;
  int node = 0;
  int inputs[kNumInputs] = {};
  int outputs[kNumOutputs] = {};
  DleMergeSettings settings = {};
  std::vector<int32_t> thing_ids;
};

struct Delegate {
  ~Delegate() { dle_destroy(core); }

  TfLiteDelegate base = {};
  DleCore* core = nullptr;
  std::vector<std::unique_ptr<Op>> ops;
};

TfLiteStatus Fail(TfLiteContext* context, const char* reason) {
  context->ReportError(context, "%s: %s", kOpName, reason);
  return kTfLiteError;
}

bool HasShape(const TfLiteTensor& tensor, std::initializer_list<int> sides) {
  if (!tensor.dims || tensor.dims->size != static_cast<int>(sides.size())) return false;
  const int* side = tensor.dims->data;
  for (const int wanted : sides) {
    if (*side++ != wanted) return false;
  }
  return true;
}

bool ReadOptions(const TfLiteNode& node, Op* op) {
  const int count = node.custom_initial_data_size / static_cast<int>(sizeof(int32_t));
  if (!node.custom_initial_data || count < kNumOptions) return false;
  std::vector<int32_t> values(static_cast<size_t>(count));
  std::memcpy(values.data(), node.custom_initial_data, values.size() * sizeof(int32_t));
  if (values[0] != kOptionsVersion) return false;
  DleMergeSettings& s = op->settings;
  s.label_divisor = values[1];
  s.ignore_label = values[2];
  s.nms_kernel = values[3];
  s.keep_k_centers = values[4];
  s.stuff_area_limit = values[5];
  s.merge_plateaus = values[6];
  std::memcpy(&s.center_score_threshold, &values[7], sizeof(float));
  op->thing_ids.assign(values.begin() + kNumOptions, values.end());
  s.num_things = static_cast<int32_t>(op->thing_ids.size());
  s.thing_ids = op->thing_ids.data();
  return true;
}

// Checks every shape, so that a file cannot make the kernel read or write elsewhere; and
// with it that the structs of tflite_abi.h are those of this runtime.
bool FindShapes(const TfLiteContext& context, Op* op) {
  for (const int index : op->inputs) {
    if (index < 0 || static_cast<size_t>(index) >= context.tensors_size) return false;
  }
  for (const int index : op->outputs) {
    if (index < 0 || static_cast<size_t>(index) >= context.tensors_size) return false;
  }
  const TfLiteTensor& logits = context.tensors[op->inputs[0]];
  const TfLiteTensor& panoptic = context.tensors[op->outputs[0]];
  if (!logits.dims || logits.dims->size != 4 || !panoptic.dims ||
      panoptic.dims->size != 3) {
    return false;
  }
  DleMergeSettings& s = op->settings;
  s.head_height = logits.dims->data[1];
  s.head_width = logits.dims->data[2];
  s.num_classes = logits.dims->data[3];
  s.height = panoptic.dims->data[1];
  s.width = panoptic.dims->data[2];
  const int channels[kNumInputs] = {s.num_classes, 1, 2};
  for (int i = 0; i < kNumInputs; ++i) {
    const TfLiteTensor& head = context.tensors[op->inputs[i]];
    const bool is_known = head.type == kTfLiteFloat32 || head.type == kTfLiteInt8 ||
                          head.type == kTfLiteUInt8 || head.type == kTfLiteInt16;
    if (!is_known || !HasShape(head, {1, s.head_height, s.head_width, channels[i]})) {
      return false;
    }
  }
  const int types[kNumOutputs] = {kTfLiteInt32,   kTfLiteInt32, kTfLiteInt32,
                                  kTfLiteFloat32, kTfLiteInt32, kTfLiteFloat32};
  for (int i = 0; i < kNumOutputs; ++i) {
    const TfLiteTensor& map = context.tensors[op->outputs[i]];
    const bool fits = i < 4    ? HasShape(map, {1, s.height, s.width})
                      : i == 4 ? HasShape(map, {1, s.keep_k_centers, 2})
                               : HasShape(map, {1, s.keep_k_centers});
    if (map.type != types[i] || !fits) return false;
  }
  return true;
}

DleHead HeadOf(const TfLiteTensor& tensor) {
  const int32_t type = tensor.type == kTfLiteFloat32 ? DLE_FLOAT32
                       : tensor.type == kTfLiteInt8  ? DLE_INT8
                       : tensor.type == kTfLiteInt16 ? DLE_INT16
                                                     : DLE_UINT8;
  return {tensor.data, type, tensor.params.scale, tensor.params.zero_point};
}

void* Init(TfLiteContext*, const char* buffer, size_t) {
  const auto* params = reinterpret_cast<const TfLiteDelegateParams*>(buffer);
  const auto* delegate = static_cast<Delegate*>(params->delegate->data_);
  for (const auto& op : delegate->ops) {
    if (params->nodes_to_replace->size == 1 &&
        params->nodes_to_replace->data[0] == op->node) {
      return op.get();
    }
  }
  return nullptr;
}

// Outputs have the static shapes of the file, which were checked.
TfLiteStatus PrepareOp(TfLiteContext* context, TfLiteNode* node) {
  return node->user_data ? kTfLiteOk : Fail(context, "unknown node");
}

TfLiteStatus Invoke(TfLiteContext* context, TfLiteNode* node) {
  const Op& op = *static_cast<const Op*>(node->user_data);
  const auto data = [&](int i) { return context->tensors[op.outputs[i]].data; };
  const DleMaps maps = {static_cast<int32_t*>(data(0)), static_cast<int32_t*>(data(1)),
                        static_cast<int32_t*>(data(2)), static_cast<float*>(data(3)),
                        static_cast<int32_t*>(data(4)), static_cast<float*>(data(5))};
  if (!maps.panoptic || !maps.semantic || !maps.instance || !maps.instance_scores ||
      !maps.centers_yx || !maps.center_scores) {
    return Fail(context, "an output has no memory");
  }
  const DleHead logits = HeadOf(context->tensors[op.inputs[0]]);
  const DleHead heatmap = HeadOf(context->tensors[op.inputs[1]]);
  const DleHead offsets = HeadOf(context->tensors[op.inputs[2]]);
  switch (dle_panoptic_merge(op.core, &logits, &heatmap, &offsets, &op.settings, &maps)) {
    case DLE_OK:
      return kTfLiteOk;
    case DLE_OUT_OF_MEMORY:
      return Fail(context, "out of memory");
    default:
      return Fail(context, "settings that make no sense");
  }
}

TfLiteStatus Prepare(TfLiteContext* context, TfLiteDelegate* base) {
  auto* const delegate = static_cast<Delegate*>(base->data_);
  TfLiteIntArray* plan = nullptr;
  if (context->GetExecutionPlan(context, &plan) != kTfLiteOk) return kTfLiteError;
  // The plan may change while nodes are replaced.
  const std::vector<int> nodes(plan->data, plan->data + plan->size);
  for (const int index : nodes) {
    TfLiteNode* node = nullptr;
    TfLiteRegistration* known = nullptr;
    if (context->GetNodeAndRegistration(context, index, &node, &known) != kTfLiteOk) {
      return kTfLiteError;
    }
    if (known->builtin_code != kTfLiteBuiltinCustom || !known->custom_name ||
        std::strcmp(known->custom_name, kOpName) != 0) {
      continue;
    }
    auto op = std::make_unique<Op>();
    op->core = delegate->core;
    op->node = index;
    if (node->inputs->size != kNumInputs || node->outputs->size != kNumOutputs ||
        !ReadOptions(*node, op.get())) {
      return Fail(context, "made by another version");
    }
    std::memcpy(op->inputs, node->inputs->data, sizeof(op->inputs));
    std::memcpy(op->outputs, node->outputs->data, sizeof(op->outputs));
    if (!FindShapes(*context, op.get())) return Fail(context, "shapes do not fit");
    delegate->ops.push_back(std::move(op));
    TfLiteRegistration registration = {};
    registration.init = Init;
    registration.prepare = PrepareOp;
    registration.invoke = Invoke;
    registration.custom_name = kOpName;
    registration.version = 1;
    const TfLiteIntArray one = {1, {index}};
    if (context->ReplaceNodeSubsetsWithDelegateKernels(context, registration, &one,
                                                       base) != kTfLiteOk) {
      return kTfLiteError;
    }
  }
  return kTfLiteOk;
}

}  // namespace

extern "C" {

DLE_EXPORT TfLiteDelegate* tflite_plugin_create_delegate(
    const char* const*, const char* const*, size_t, void (*report_error)(const char*)) {
  auto* const delegate = new (std::nothrow) Delegate;
  if (delegate) delegate->core = dle_create(1);
  if (!delegate || !delegate->core) {
    delete delegate;
    if (report_error) report_error("out of memory");
    return nullptr;
  }
  delegate->base.data_ = delegate;
  delegate->base.Prepare = Prepare;
  delegate->base.flags = kTfLiteDelegateFlagsAllowDynamicTensors;
  return &delegate->base;
}

DLE_EXPORT void tflite_plugin_destroy_delegate(TfLiteDelegate* delegate) {
  if (delegate) delete static_cast<Delegate*>(delegate->data_);
}

}  // extern "C"
