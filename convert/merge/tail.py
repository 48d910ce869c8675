"""What makes a result of heads, as a graph of its own that follows a network.

A network is converted and quantized by itself; its tail is traced and converted apart,
always in float32, and appended to the finished file. So whatever a quantizer does to
the network, the tail computes what `deeplab2_edge.panoptic` computes of the same heads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deeplab2_edge import families, keys
from deeplab2_edge.convert.quiet import quiet_native_notes
from deeplab2_edge.errors import ConversionError, UsageError
from deeplab2_edge.optional import require
from deeplab2_edge.panoptic import MaskSettings, MergeSettings
from deeplab2_edge.postprocess import decode_masks, merge_heads, upsample_argmax

tf = require("tensorflow", extra="convert")

# What each family's tail gives, and of which entry of `postprocess` it is made.
_PANOPTIC = {
    keys.PANOPTIC_PRED: "panoptic",
    keys.SEMANTIC_PRED: "semantic",
    keys.INSTANCE_PRED: "instance",
    keys.INSTANCE_SCORES: "instance_scores",
    keys.INSTANCE_CENTERS: "centers_yx",
    keys.INSTANCE_CENTER_SCORES: "center_scores",
}
_MASKS = {
    keys.PANOPTIC_PRED: "panoptic",
    keys.SEMANTIC_PRED: "semantic",
    keys.INSTANCE_PRED: "mask_id",
    keys.MASK_SEMANTIC_PRED: "mask_semantic",
    keys.INSTANCE_SCORES: "instance_scores",
    keys.SEMANTIC_SCORES: "semantic_scores",
}
OUTPUTS: Mapping[str, Mapping[str, str]] = {
    families.SEMANTIC: {keys.SEMANTIC_PRED: "semantic"},
    families.PANOPTIC: _PANOPTIC,
    families.MASKS: _MASKS,
    families.MOTION: _PANOPTIC,
}


@dataclass(frozen=True)
class Tail:
    """Is a traced tail, ready for a converter.

    Attributes:
        function: Concrete function from keyword arguments, float32 heads `[1, h, w, C]`
            by the names in `keys`, to maps `[1, H, W]` by the names in `keys`.
        module: Must live as long as `function` is used.
        inputs: Names of the heads it reads.
        outputs: Names of what it gives.
    """

    function: Any
    module: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def trace_tail(
    family: str,
    head_shapes: Mapping[str, Sequence[int]],
    *,
    canvas: tuple[int, int],
    merge: MergeSettings | None = None,
    masks: MaskSettings | None = None,
) -> Tail:
    """Traces what follows the network of a family.

    Args:
        family: One of `families.FAMILIES`.
        head_shapes: Shape of each head by name, without batch; others than the tail
            reads may be among them.
        canvas: (H, W) of the network input.
        merge: Of families with centers; plateaus are merged if it says so.
        masks: Of mask transformers.

    Raises:
        UsageError: If the family needs more than one frame for a result, or the
            settings do not fit a graph of static shapes.
    """
    if family not in OUTPUTS:
        raise UsageError(
            "--merge graph: a model of two frames makes its result of the heads of "
            "both, and keeps ids over a video; that stays on the host: use --merge host"
        )
    names = tuple(n for n in families.HEADS[family] if n != keys.FRAME_OFFSET_MAP)

    def follow(**heads: Any) -> dict[str, Any]:
        maps = _follow(family, {n: heads[n][0] for n in names}, canvas, merge, masks)
        wanted = OUTPUTS[family]
        return {key: maps[name][tf.newaxis] for key, name in wanted.items()}

    module = tf.Module()
    module.follow = tf.function(follow, autograph=False)
    try:
        function = module.follow.get_concrete_function(
            **{n: tf.TensorSpec((1, *head_shapes[n]), tf.float32, n) for n in names}
        )
    except UsageError as error:
        raise UsageError(f"--merge graph: {error}; or use --merge host") from None
    return Tail(function, module, names, tuple(OUTPUTS[family]))


def _follow(
    family: str,
    heads: Mapping[str, Any],
    canvas: tuple[int, int],
    merge: MergeSettings | None,
    masks: MaskSettings | None,
) -> dict[str, Any]:
    if family == families.SEMANTIC:
        return {"semantic": upsample_argmax(heads[keys.SEMANTIC_LOGITS], canvas)}
    if family == families.MASKS:
        assert masks is not None
        return decode_masks(
            heads[keys.PIXEL_SPACE_MASK_LOGITS],
            heads[keys.TRANSFORMER_CLASS_LOGITS],
            canvas=canvas,
            settings=masks,
        )
    assert merge is not None
    return merge_heads(
        heads[keys.SEMANTIC_LOGITS],
        heads[keys.CENTER_HEATMAP][..., 0],
        heads[keys.OFFSET_MAP],
        canvas=canvas,
        settings=merge,
    )


def tail_as_tflite(tail: Tail) -> bytes:
    """Converts a tail to a flatbuffer of builtin ops.

    Raises:
        ConversionError: If the converter fails.
    """
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [tail.function], tail.module
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    with quiet_native_notes():
        try:
            return bytes(converter.convert())
        except MemoryError:
            raise
        except Exception as error:  # the converter raises whatever its parts raise
            reason = " ".join(str(error).split())[:500]
            raise ConversionError(f"--merge graph: {reason}") from error


def tail_as_onnx(tail: Tail, *, opset: int) -> Any:
    """Translates a tail to an ONNX model of standard ops.

    Args:
        tail: Of `trace_tail`.
        opset: 16 or more, so that ScatterElements can add.

    Raises:
        ConversionError: If the translation fails.
        MissingExtraError: If tf2onnx is not installed.
    """
    require("tf2onnx", extra="onnx")
    from tf2onnx import optimizer, tf_loader
    from tf2onnx.tfonnx import process_tf_graph

    function = tail.function
    inputs = [tensor.name for tensor in function.inputs]
    outputs = [tensor.name for tensor in function.outputs]
    with quiet_native_notes(), tf.device("/cpu:0"):
        try:
            frozen = tf_loader.from_function(function, inputs, outputs)
            with tf.Graph().as_default() as network:
                tf.import_graph_def(frozen, name="")
                graph = process_tf_graph(
                    network,
                    opset=opset,
                    input_names=inputs,
                    output_names=outputs,
                    custom_op_handlers={"UnsortedSegmentSum": (_scatter, [])},
                )
            graph = optimizer.optimize_graph(graph, catch_errors=False)
        except MemoryError:
            raise
        except Exception as error:  # tf2onnx raises whatever its parts raise
            reason = " ".join(str(error).split())[:500]
            raise ConversionError(f"--merge graph: {reason}") from error
    model = graph.make_model("tail")
    # A dictionary is flattened in the order of its sorted keys.
    _rename(
        model,
        {tensor.name: tensor.op.name for tensor in function.inputs}
        | dict(zip(outputs, sorted(function.structured_outputs), strict=True)),
    )
    return model


def _scatter(context: Any, node: Any, name: str, _: Any) -> Any:
    """Writes a sum per segment as ScatterElements that adds to zeros."""
    from onnx import numpy_helper

    values, segments, _ = node.input
    count = int(node.inputs[2].get_tensor_value())
    outputs, shapes, dtypes = node.output, node.output_shapes, node.output_dtypes
    context.remove_node(node.name)
    shape = context.make_const(f"{name}_shape", np.array([count], np.int64))
    zero = numpy_helper.from_array(np.zeros(1, np.int32), f"{name}_zero")
    zeros = context.make_node(
        "ConstantOfShape", [shape.output[0]], attr={"value": zero}
    )
    context.make_node(
        "ScatterElements",
        [zeros.output[0], segments, values],
        attr={"axis": 0, "reduction": "add"},
        name=name,
        outputs=outputs,
        shapes=shapes,
        dtypes=dtypes,
    )


def _rename(model: Any, names: Mapping[str, str]) -> None:
    """Gives tensors of the main graph other names, in loops too."""
    pending = [model.graph]
    while pending:
        graph = pending.pop()
        for value in (*graph.input, *graph.output, *graph.value_info):
            value.name = names.get(value.name, value.name)
        for node in graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
            pending += [a.g for a in node.attribute if a.HasField("g")]
