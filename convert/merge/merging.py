"""Where heads become maps: on the host, or inside the file."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import families
from deeplab2_edge.convert.merge.joining import (
    append_custom_op,
    join_onnx,
    join_tflite,
)
from deeplab2_edge.convert.merge.tail import tail_as_onnx, tail_as_tflite, trace_tail
from deeplab2_edge.convert.tflite import ConvertedGraph
from deeplab2_edge.errors import ConversionError, UsageError
from deeplab2_edge.model_file import (
    CUSTOM_OP,
    GRAPH,
    ONNX,
    ModelFile,
    ModelMetadata,
    OutputSpec,
)
from deeplab2_edge.optional import require
from deeplab2_edge.runtime.engine import Engine
from deeplab2_edge.runtime.interpreter import describe_graph
from deeplab2_edge.runtime.predictors.maps import (
    mask_maps,
    panoptic_maps,
    semantic_map,
)

# Exponentials are rounded by each runtime in its own way: at most so many pixels may
# fall on the other side of a threshold of MaX-DeepLab. All else is equal.
_MASK_DIFFERENCE = 1e-4


def merge_in_graph(
    converted: ConvertedGraph,
    metadata: ModelMetadata,
    file_format: str,
    place: str = GRAPH,
) -> tuple[ConvertedGraph, ModelMetadata]:
    """Appends to a converted network what makes maps of its heads.

    Args:
        converted: The network, quantized or not.
        metadata: As its engine gives it, which knows whether peaks are flat.
        file_format: `tflite` or `onnx`.
        place: `graph`, in builtin ops, or `custom-op`, in one op of the native library
            (TFLite files with centers only), whose maps are outputs beside the heads.

    Returns:
        The graph and the metadata of the whole.

    Raises:
        UsageError: As `tail.trace_tail`.
        ConversionError: If a converter fails.
    """
    if place == CUSTOM_OP:
        return _with_custom_op(converted, metadata)
    tail = trace_tail(
        metadata.family,
        {name: spec.shape for name, spec in metadata.outputs.items()},
        canvas=metadata.canvas,
        merge=metadata.merge,
        masks=metadata.masks,
    )
    outputs = {
        name: spec for name, spec in metadata.outputs.items() if name not in tail.inputs
    }
    outputs |= {
        name: OutputSpec(name, tuple(int(n) for n in tensor.shape[1:]))
        for name, tensor in tail.function.structured_outputs.items()
    }
    metadata = replace(metadata, outputs=outputs, merge_place=GRAPH)
    if file_format == ONNX:
        graph, op_counts = _append_onnx(converted.graph, tail)
    else:
        graph = join_tflite(
            converted.graph, tail_as_tflite(tail), converted.output_names
        )
        op_counts = describe_graph(ModelFile(graph, metadata)).op_counts
    names = {name: spec.name for name, spec in outputs.items()}
    made = replace(converted, graph=graph, output_names=names, op_counts=op_counts)
    return made, metadata


def check_maps(
    network: Engine, merged: Engine, inputs: Iterable[Mapping[str, NDArray[Any]]]
) -> None:
    """Checks that a file makes the maps that the host makes of the same heads.

    Args:
        network: The network alone.
        merged: The network and what follows it.
        inputs: Of the network, once per image.

    Raises:
        ConversionError: If a map differs.
    """
    family = network.metadata.family
    make = {families.SEMANTIC: semantic_map, families.MASKS: mask_maps}.get(
        family, panoptic_maps
    )
    for values in inputs:
        expected, found = (
            make(engine.run(values), engine.metadata) for engine in (network, merged)
        )
        maps = ["semantic", "panoptic"]
        if family == families.SEMANTIC:
            pairs = {"semantic": (expected, found)}
        else:
            pairs = {n: (getattr(expected, n), getattr(found, n)) for n in maps}
        limit = _MASK_DIFFERENCE if family == families.MASKS else 0.0
        for name, (wanted, given) in pairs.items():
            share = float(np.mean(wanted != given))
            if share > limit:
                place = merged.metadata.merge_place
                raise ConversionError(
                    f"--merge {place}: {share:.2%} of the {name} map differ from what "
                    "the host makes of the same heads; use --merge host, and report "
                    "this with the versions of TensorFlow and the runtime"
                )


def _with_custom_op(
    converted: ConvertedGraph, metadata: ModelMetadata
) -> tuple[ConvertedGraph, ModelMetadata]:
    merge = metadata.merge
    if merge is None or merge.keep_k_centers < 1:
        raise UsageError(
            "--merge custom-op is for models with centers and a limit of them "
            "(evaluator_options.keep_k_centers); use --merge host"
        )
    graph = append_custom_op(
        converted.graph, converted.output_names, canvas=metadata.canvas, settings=merge
    )
    metadata = replace(metadata, merge_place=CUSTOM_OP)
    op_counts = describe_graph(ModelFile(graph, metadata)).op_counts
    return replace(converted, graph=graph, op_counts=op_counts), metadata


def _append_onnx(graph: bytes, tail: Any) -> tuple[bytes, Mapping[str, int]]:
    from deeplab2_edge.convert.onnx.translation import OPSET, count_ops

    onnx: Any = require("onnx", extra="onnx")
    joined = join_onnx(onnx.load_from_string(graph), tail_as_onnx(tail, opset=OPSET))
    onnx.checker.check_model(joined)
    return joined.SerializeToString(deterministic=True), count_ops(joined)
