"""Makes the tiny model files that the runtime tests use, from TensorFlow.

`PYTHONPATH=. python tests/runtime/tiny_model.py` writes the files in
tests/golden/runtime again. The network is wired by hand, not trained, so its answer
is known: it classifies by red alone (0 is sky, 64 road, 180 and more car), sees an
instance center where red is 255, and reads offsets off green and blue (128 is none).
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.families import PANOPTIC
from deeplab2_edge.model_file import (
    Golden,
    InputSpec,
    ModelMetadata,
    OutputSpec,
    write_model_file,
)
from deeplab2_edge.panoptic import MergeSettings

CANVAS = (65, 129)
HEAD_STRIDE = 4
FLOAT_MODEL = Path(__file__).parents[1] / "golden/runtime/tiny_float.tflite"
INT8_MODEL = Path(__file__).parents[1] / "golden/runtime/tiny_int8.tflite"

SKY, ROAD, CAR = 0, 64, 180  # red
SKY_CLASS, ROAD_CLASS, CAR_CLASS = 0, 1, 2
CLASSES: dict[str, Any] = {
    "thing_ids": (CAR_CLASS,),
    "label_divisor": 1000,
    "ignore_label": 255,
}
CHANNELS = {keys.SEMANTIC_LOGITS: 3, keys.CENTER_HEATMAP: 1, keys.OFFSET_MAP: 2}


def draw_scene() -> NDArray[np.uint8]:
    """Draws sky above a road with two cars that touch, `[65, 129, 3]`.

    The left car spans rows 36-51 and columns 20-47, the right one columns 48-79.
    """
    scene = np.full((*CANVAS, 3), 128, np.uint8)
    scene[:32, :, 0] = SKY
    scene[32:, :, 0] = ROAD
    scene[36:52, 20:80, 0] = CAR
    scene[44, 32, 0] = scene[44, 64, 0] = 255
    return scene


def tiny_outputs(
    names: Mapping[str, str] | None = None, stride: int = HEAD_STRIDE
) -> dict[str, OutputSpec]:
    """Describes the heads; tensors go by the names of the heads if not given."""
    height, width = ((side - 1) // stride + 1 for side in CANVAS)
    return {
        key: OutputSpec((names or {}).get(key, key), (height, width, channels))
        for key, channels in CHANNELS.items()
    }


def tiny_metadata(**changes: Any) -> ModelMetadata:
    """Gives metadata that fits the tiny network."""
    fields: dict[str, Any] = {
        "name": "tiny",
        "family": PANOPTIC,
        "meta_architecture": "panoptic_deeplab",
        "backbone": "by_hand",
        "output_stride": 4,
        "canvas": CANVAS,
        "inputs": {keys.IMAGE: InputSpec("image", (*CANVAS, 3), dtype="float32")},
        "outputs": tiny_outputs(),
        "class_names": ("sky", "road", "car"),
        "colors": ((70, 130, 180), (128, 64, 128), (0, 0, 142)),
        **CLASSES,
        "merge": MergeSettings(**CLASSES, nms_kernel=9),
        "provenance": {"checkpoint": "none", "tool_versions": {}},
        **changes,
    }
    return ModelMetadata(**fields)


def write_tiny_model(path: Path, *, integer: bool) -> None:
    """Builds the network with float or int8 arithmetic and writes its model file."""
    from ai_edge_litert.interpreter import Interpreter

    graph = build_graph(integer=integer)
    interpreter = Interpreter(model_content=graph)
    runner = interpreter.get_signature_runner()
    outputs = {key: d["name"] for key, d in runner.get_output_details().items()}
    (model_input,) = interpreter.get_input_details()
    values = runner(image=draw_scene()[None].astype(model_input["dtype"]))
    heads = {}
    for key, details in runner.get_output_details().items():
        scale, zero_point = details["quantization"]
        head = values[key][0].astype(np.float32)
        heads[key] = (head - zero_point) * np.float32(scale) if scale else head
    metadata = tiny_metadata(
        inputs={
            keys.IMAGE: InputSpec(
                model_input["name"],
                (*CANVAS, 3),
                dtype=np.dtype(model_input["dtype"]).name,
            )
        },
        outputs=tiny_outputs(outputs),
        quantization="int8" if integer else "none",
    )
    write_model_file(path, graph, metadata, Golden({keys.IMAGE: draw_scene()}, heads))


def build_graph(*, integer: bool) -> bytes:
    """Converts the network, with float or with int8 arithmetic and heads."""
    import tensorflow as tf
    import tf_keras

    image = tf_keras.Input((*CANVAS, 3), batch_size=1, name="image")
    sampled = tf_keras.layers.Conv2D(3, 1, strides=HEAD_STRIDE, use_bias=False)
    semantic = tf_keras.layers.Conv2D(3, 1)
    center = tf_keras.layers.Conv2D(1, 1)
    offset = tf_keras.layers.Conv2D(2, 1)
    features = sampled(image)
    model = tf_keras.Model(
        image,
        {
            keys.SEMANTIC_LOGITS: semantic(features),
            keys.CENTER_HEATMAP: center(features),
            keys.OFFSET_MAP: offset(features),
        },
    )
    sampled.set_weights([np.eye(3, dtype=np.float32)[None, None] / 255])
    semantic.set_weights(_linear([[-4, 0, 4], [0, 0, 0], [0, 0, 0]], [0.5, 0, -2]))
    center.set_weights(_linear([[2], [0], [0]], [-1.35]))
    offset.set_weights(_linear([[0, 0], [16, 0], [0, 16]], [-8, -8]))

    @tf.function(input_signature=[tf.TensorSpec((1, *CANVAS, 3), tf.float32, "image")])
    def serve(image: Any) -> Any:
        return model(image)

    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [serve.get_concrete_function()], model
    )
    if integer:
        extremes = np.zeros((1, *CANVAS, 3), np.float32)
        extremes[:, ::8] = 255
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([extremes],)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def _linear(kernel: Any, bias: Any) -> list[NDArray[np.float32]]:
    return [np.asarray(kernel, np.float32)[None, None], np.asarray(bias, np.float32)]


if __name__ == "__main__":
    for target, is_integer in ((FLOAT_MODEL, False), (INT8_MODEL, True)):
        write_tiny_model(target, integer=is_integer)
        print(f"{target}: {target.stat().st_size} bytes", file=sys.stderr)
