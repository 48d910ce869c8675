"""Converted model files, and what they say about themselves."""

from deeplab2_edge.graph_limits import GraphLimits
from deeplab2_edge.model_file.container import (
    MAX_FILE_BYTES,
    MAX_METADATA_BYTES,
    ONNX,
    TFLITE,
    ModelFile,
    format_of,
    read_graph_bytes,
    read_model_file,
    write_model_file,
)
from deeplab2_edge.model_file.golden import GOLDEN_NAME, MAX_GOLDEN_BYTES, Golden
from deeplab2_edge.model_file.metadata import (
    CUSTOM_OP,
    FORMAT_VERSION,
    GRAPH,
    HOST,
    MAX_CANVAS_PIXELS,
    MERGE_PLACES,
    METADATA_NAME,
    InputSpec,
    ModelMetadata,
    OutputSpec,
    ResizeRule,
    is_picture,
)
from deeplab2_edge.model_file.safety import check_graph

__all__ = [
    "CUSTOM_OP",
    "FORMAT_VERSION",
    "GOLDEN_NAME",
    "GRAPH",
    "HOST",
    "MAX_CANVAS_PIXELS",
    "MAX_FILE_BYTES",
    "MAX_GOLDEN_BYTES",
    "MAX_METADATA_BYTES",
    "MERGE_PLACES",
    "METADATA_NAME",
    "ONNX",
    "TFLITE",
    "Golden",
    "GraphLimits",
    "InputSpec",
    "ModelFile",
    "ModelMetadata",
    "OutputSpec",
    "ResizeRule",
    "check_graph",
    "format_of",
    "is_picture",
    "read_graph_bytes",
    "read_model_file",
    "write_model_file",
]
