"""The files that are damaged: networks of few ops, of both formats."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.model_file import Golden, InputSpec, ModelMetadata, write_model_file
from deeplab2_edge.runtime.engine import open_engine
from tests.runtime.tiny_model import (
    CANVAS,
    FLOAT_MODEL,
    INT8_MODEL,
    draw_scene,
    tiny_metadata,
)
from tests.runtime.tiny_onnx import build_onnx, tiny_onnx_metadata
from tests.targets.one_op import OpSpec, TensorSpec, constant, model, options

_HEADS = {keys.SEMANTIC_LOGITS: 3, keys.CENTER_HEATMAP: 1, keys.OFFSET_MAP: 2}
_SIZE = (17, 33)


def write_corpus(folder: Path) -> list[Path]:
    """Writes the files and returns their paths."""
    paths = []
    for source in (FLOAT_MODEL, INT8_MODEL):
        paths.append(folder / source.name)
        paths[-1].write_bytes(source.read_bytes())
    pixels = InputSpec("image", (*CANVAS, 3))
    graphs: dict[str, tuple[bytes, ModelMetadata]] = {
        "many_ops.tflite": (
            many_ops(),
            tiny_metadata(inputs={keys.IMAGE: pixels}),
        ),
        "float.onnx": (build_onnx().SerializeToString(), tiny_onnx_metadata()),
        "integer.onnx": (
            build_onnx(integer=True).SerializeToString(),
            tiny_onnx_metadata(),
        ),
    }
    for name, (graph, metadata) in graphs.items():
        path = folder / name
        write_model_file(path, graph, metadata)
        image = {keys.IMAGE: draw_scene()}
        golden = Golden(image, open_engine(path, num_threads=1).run(image))
        write_model_file(path, graph, metadata, golden)
        paths.append(path)
    return paths


def write_images(folder: Path) -> list[Path]:
    """Writes one image in every format that is read, and returns the paths."""
    scene = cv2.resize(draw_scene(), (64, 48))
    paths = []
    for suffix in (".png", ".jpg", ".webp", ".bmp"):
        paths.append(folder / f"scene{suffix}")
        is_written, data = cv2.imencode(suffix, scene)
        assert is_written
        paths[-1].write_bytes(data.tobytes())
    return paths


def many_ops() -> bytes:
    """Writes a network in which most kinds of ops and options take part."""
    return _Chain().content()


class _Chain:
    """Puts ops one behind the other."""

    def __init__(self) -> None:
        self.tensors = [TensorSpec((1, *CANVAS, 3), "uint8", name="image")]
        self.ops: list[OpSpec] = []
        self._draw = np.random.default_rng(1)

    def content(self) -> bytes:
        height, width = _SIZE
        last = self._add("CAST", [0], (1, *CANVAS, 3))
        window: dict[str, Any] = {"strideH": 4, "strideW": 4, "filterHeight": 4}
        pooling = options("Pool2DOptions", filterWidth=4, **window)
        last = self._add("AVERAGE_POOL_2D", [last], (1, *_SIZE, 3), pooling)
        last = self._convolve(last, 3, 8, 1)
        last = self._add("HARD_SWISH", [last], (1, *_SIZE, 8))
        weights = self._constant(self._noise(1, 3, 3, 8))
        bias = self._constant(self._noise(8))
        sides: dict[str, Any] = {"strideH": 1, "strideW": 1, "depthMultiplier": 1}
        last = self._add(
            "DEPTHWISE_CONV_2D",
            [last, weights, bias],
            (1, *_SIZE, 8),
            options("DepthwiseConv2DOptions", **sides),
        )
        axes = self._constant(np.array([1, 2], np.int32))
        mean = self._add(
            "MEAN", [last, axes], (1, 1, 1, 8), options("ReducerOptions", keepDims=True)
        )
        gate = self._add("LOGISTIC", [mean], (1, 1, 1, 8))
        last = self._add("MUL", [last, gate], (1, *_SIZE, 8), options("MulOptions"))
        rows = self._reshape(last, (1, height * width, 8))
        order = self._constant(np.array([0, 2, 1], np.int32))
        turned = self._add("TRANSPOSE", [rows, order], (1, 8, height * width))
        weights = options("BatchMatMulOptions")
        product = self._add("BATCH_MATMUL", [turned, rows], (1, 8, 8), weights)
        product = self._add(
            "SOFTMAX", [product], (1, 8, 8), options("SoftmaxOptions", beta=0.01)
        )
        rows = self._add(
            "BATCH_MATMUL", [rows, product], (1, height * width, 8), weights
        )
        mixed = self._reshape(rows, (1, *_SIZE, 8))
        sizes = self._constant(np.array([3, 5], np.int32))
        axis = self._constant(np.array(3, np.int32))
        first = len(self.tensors)
        self.tensors += [
            TensorSpec((1, *_SIZE, 3), "float32"),
            TensorSpec((1, *_SIZE, 5), "float32"),
        ]
        split = options("SplitVOptions", numSplits=2)
        self.ops.append(
            OpSpec("SPLIT_V", [mixed, sizes, axis], [first, first + 1], split)
        )
        joined = self._add(
            "CONCATENATION",
            [first + 1, first],
            (1, *_SIZE, 8),
            options("ConcatenationOptions", axis=3),
        )
        half = self._constant(np.array([9, 17], np.int32))
        full = self._constant(np.array(_SIZE, np.int32))
        resize = options("ResizeBilinearOptions", alignCorners=True)
        small = self._add("RESIZE_BILINEAR", [joined, half], (1, 9, 17, 8), resize)
        joined = self._add("RESIZE_BILINEAR", [small, full], (1, *_SIZE, 8), resize)
        edges = self._constant(np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))
        wide = self._add("PAD", [joined, edges], (1, height + 2, width + 2, 8))
        begin = self._constant(np.array([0, 1, 1, 0], np.int32))
        size = self._constant(np.array([1, height, width, 8], np.int32))
        joined = self._add("SLICE", [wide, begin, size], (1, *_SIZE, 8))
        order = self._constant(np.array([7, 0, 6, 1, 5, 2, 4, 3], np.int32))
        joined = self._add(
            "GATHER", [joined, order], (1, *_SIZE, 8), options("GatherOptions", axis=3)
        )
        last = self._add(
            "ADD",
            [joined, last],
            (1, *_SIZE, 8),
            options("AddOptions", fusedActivationFunction=1),
        )
        outputs = [
            self._convolve(last, 8, channels, 1, name)
            for name, channels in _HEADS.items()
        ]
        return model(self.tensors, self.ops, [0], outputs)

    def _add(
        self,
        name: str,
        inputs: list[int],
        shape: tuple[int, ...],
        made: Any = None,
        label: str = "",
    ) -> int:
        self.tensors.append(TensorSpec(shape, "float32", name=label))
        index = len(self.tensors) - 1
        self.ops.append(OpSpec(name, inputs, [index], made))
        return index

    def _convolve(
        self, source: int, inner: int, outer: int, side: int, name: str = ""
    ) -> int:
        weights = self._constant(self._noise(outer, side, side, inner))
        bias = self._constant(self._noise(outer))
        made = options(
            "Conv2DOptions",
            strideH=1,
            strideW=1,
            dilationHFactor=1,
            dilationWFactor=1,
        )
        shape = (1, *_SIZE, outer)
        return self._add("CONV_2D", [source, weights, bias], shape, made, name)

    def _reshape(self, source: int, shape: tuple[int, ...]) -> int:
        wanted = self._constant(np.array(shape, np.int32))
        return self._add("RESHAPE", [source, wanted], shape)

    def _constant(self, values: NDArray[Any]) -> int:
        self.tensors.append(constant(values, values.dtype.name))
        return len(self.tensors) - 1

    def _noise(self, *shape: int) -> NDArray[np.float32]:
        return (self._draw.standard_normal(shape) / 4).astype(np.float32)
