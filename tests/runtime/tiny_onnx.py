"""Makes the tiny network of `tiny_model` as an ONNX model, from text."""

from typing import Any

import numpy as np

from deeplab2_edge import keys
from deeplab2_edge.model_file import InputSpec, ModelFile, ModelMetadata
from deeplab2_edge.optional import require
from tests.runtime.tiny_model import CANVAS, HEAD_STRIDE, tiny_metadata

_HEADER = '<ir_version: 8, opset_import: ["" : 17]> network'
_NETWORK = """
(uint8[1,{h},{w},3] image) => (float[1,17,33,3] semantic_logits,
 float[1,17,33,1] center_heatmap, float[1,17,33,2] offset_map)
{{
  sampled = Slice (image, start, end, axes, stride)
  pixels = Cast <to = 1> (sampled)
  scaled = Mul (pixels, scale)
  semantic_logits = MatMul (scaled, semantic)
  centers = MatMul (scaled, center)
  center_heatmap = Add (centers, threshold)
  offset_map = MatMul (scaled, offset)
}}
"""
_INTEGER = """
  heat = Add (centers, threshold)
  levels = QuantizeLinear (heat, step, zero)
  center_heatmap = DequantizeLinear (levels, step, zero)
"""


def build_onnx(*, integer: bool = False) -> Any:
    """Returns the network as `onnx.ModelProto`; its centers may be integers."""
    onnx = require("onnx", extra="onnx")
    text = _NETWORK.format(h=CANVAS[0], w=CANVAS[1])
    if integer:
        text = text.replace(
            "  center_heatmap = Add (centers, threshold)\n", _INTEGER.lstrip("\n")
        )
    model = onnx.parser.parse_model(_HEADER + text)
    constants = {
        "start": np.array([0, 0], np.int64),
        "end": np.array(CANVAS, np.int64),
        "axes": np.array([1, 2], np.int64),
        "stride": np.array([HEAD_STRIDE] * 2, np.int64),
        "scale": np.array(1 / 255, np.float32),
        "semantic": np.array([[-4, 0, 4], [0, 0, 0], [0, 0, 0]], np.float32),
        "center": np.array([[2], [0], [0]], np.float32),
        "threshold": np.array(-1.35, np.float32),
        "offset": np.array([[0, 0], [16, 0], [0, 16]], np.float32),
        "step": np.array(1 / 255, np.float32),
        "zero": np.array(0, np.uint8),
    }
    taken = {name for node in model.graph.node for name in node.input}
    for name, value in constants.items():
        if name in taken:
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    return model


def tiny_onnx_metadata(**changes: Any) -> ModelMetadata:
    """Gives metadata that fits the network."""
    pixels = InputSpec("image", (*CANVAS, 3))
    return tiny_metadata(inputs={keys.IMAGE: pixels}, **changes)


def onnx_file(model: Any = None, **changes: Any) -> ModelFile:
    """Returns a model file in memory."""
    graph = (model or build_onnx()).SerializeToString()
    return ModelFile(graph, tiny_onnx_metadata(**changes))
