// A TFLite external delegate of the tests. It takes CONV_2D of 1x1 in float32, which is
// all that the tiny float model has, and its option "mode" says how it behaves.

#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "tflite_abi.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr int kConv2d = 3;  // of the builtin ops

struct Conv {
  int node, image, filter, bias, output;
};

struct Delegate {
  TfLiteDelegate base = {};
  std::string mode = "right";
  std::vector<std::unique_ptr<Conv>> convs;
};

void* Init(TfLiteContext*, const char* buffer, size_t) {
  const auto* params = reinterpret_cast<const TfLiteDelegateParams*>(buffer);
  const auto* delegate = static_cast<Delegate*>(params->delegate->data_);
  for (const auto& conv : delegate->convs) {
    if (conv->node == params->nodes_to_replace->data[0]) return conv.get();
  }
  return nullptr;
}

TfLiteStatus PrepareConv(TfLiteContext*, TfLiteNode* node) {
  return node->user_data ? kTfLiteOk : kTfLiteError;
}

TfLiteStatus Invoke(TfLiteContext* context, TfLiteNode* node) {
  const Conv& conv = *static_cast<const Conv*>(node->user_data);
  const auto& delegate = *static_cast<const Delegate*>(node->delegate->data_);
  const TfLiteTensor& image = context->tensors[conv.image];
  const TfLiteTensor& output = context->tensors[conv.output];
  const auto* pixels = static_cast<const float*>(image.data);
  const auto* filter = static_cast<const float*>(context->tensors[conv.filter].data);
  const auto* bias = static_cast<const float*>(context->tensors[conv.bias].data);
  auto* results = static_cast<float*>(output.data);
  const int *from = image.dims->data, *to = output.dims->data;
  const int stride = (from[1] - 1) / (to[1] - 1);
  for (int y = 0; y < to[1]; ++y) {
    for (int x = 0; x < to[2]; ++x) {
      const float* pixel = pixels + (y * stride * from[2] + x * stride) * from[3];
      for (int c = 0; c < to[3]; ++c) {
        float sum = bias[c];
        for (int i = 0; i < from[3]; ++i) sum += pixel[i] * filter[c * from[3] + i];
        *results++ = delegate.mode == "wrong" ? 1 - sum / 2 : sum;
      }
    }
  }
  if (delegate.mode == "nan") results[-1] = __builtin_nanf("");
  return kTfLiteOk;
}

TfLiteStatus Prepare(TfLiteContext* context, TfLiteDelegate* base) {
  auto* const delegate = static_cast<Delegate*>(base->data_);
  if (delegate->mode == "unprepared") {
    context->ReportError(context, "no memory on the device");
    return kTfLiteError;
  }
  if (delegate->mode == "idle") return kTfLiteOk;
  TfLiteIntArray* plan = nullptr;
  if (context->GetExecutionPlan(context, &plan) != kTfLiteOk) return kTfLiteError;
  const std::vector<int> nodes(plan->data, plan->data + plan->size);
  for (const int index : nodes) {
    TfLiteNode* node = nullptr;
    TfLiteRegistration* known = nullptr;
    if (context->GetNodeAndRegistration(context, index, &node, &known) != kTfLiteOk) {
      return kTfLiteError;
    }
    if (known->builtin_code != kConv2d) continue;
    const int* inputs = node->inputs->data;
    if (context->tensors[inputs[0]].type != kTfLiteFloat32) continue;
    delegate->convs.push_back(std::make_unique<Conv>(
        Conv{index, inputs[0], inputs[1], inputs[2], node->outputs->data[0]}));
    TfLiteRegistration registration = {};
    registration.init = Init;
    registration.prepare = PrepareConv;
    registration.invoke = Invoke;
    registration.custom_name = "TestDelegate";
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

EXPORT TfLiteDelegate* tflite_plugin_create_delegate(const char* const* names,
                                                     const char* const* values,
                                                     size_t count,
                                                     void (*report)(const char*)) {
  auto* const delegate = new Delegate;
  // The runtimes' loaders pass an int.
  for (int i = 0; i < static_cast<int>(count); ++i) {
    if (std::strcmp(names[i], "mode") == 0) delegate->mode = values[i];
  }
  std::puts("a note on standard output");
  std::fflush(stdout);
  if (delegate->mode == "deviceless") {
    report("no device");
    return nullptr;
  }
  if (delegate->mode == "busy") {  // when opened the second time
    const char* const mark = std::getenv("TEST_DELEGATE_MARK");
    if (std::FILE* const file = std::fopen(mark, "r")) {
      std::fclose(file);
      std::remove(mark);
      report("busy");
      return nullptr;
    }
    std::fclose(std::fopen(mark, "w"));
  }
  if (delegate->mode == "crash") {
    std::fputs("symbol of another TFLite\n", stderr);
    raise(SIGSEGV);
  }
  if (delegate->mode == "hang") sleep(600);
  delegate->base.data_ = delegate;
  delegate->base.Prepare = Prepare;
  return &delegate->base;
}

EXPORT void tflite_plugin_destroy_delegate(TfLiteDelegate* delegate) {
  if (delegate) delete static_cast<Delegate*>(delegate->data_);
}
