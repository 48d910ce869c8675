"""What processes tell each other of a model: JSON documents and raw bytes.

A process that has run a strange model may say anything. So nothing is unpickled, and
what it says is checked here before it is believed.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import (
    DataError,
    DeepLabEdgeError,
    MissingExtraError,
    ModelFileError,
    UsageError,
)
from deeplab2_edge.model_file import (
    CUSTOM_OP,
    GraphLimits,
    ModelFile,
    ModelMetadata,
    is_picture,
)
from deeplab2_edge.runtime.custom_op import op_outputs
from deeplab2_edge.runtime.heads import RawHead

Document = dict[str, Any]

_MAX_LETTERS = 600
_ERRORS = {
    error.__name__: error
    for error in (DataError, MissingExtraError, ModelFileError, UsageError)
}
_MAX_ZERO_POINT = 1 << 31
_DTYPES = frozenset({"float32", "int8", "uint8", "int16", "int32"})


def describe_model(model: ModelFile) -> tuple[Document, tuple[bytes, bytes]]:
    """Gives what `read_model` takes: a document, metadata and graph."""
    document = {
        "path": None if model.path is None else str(model.path),
        "allow_ops": model.allow_ops,
        "limits": dataclasses.asdict(model.limits),
    }
    return document, (model.metadata.to_json().encode(), model.graph)


def read_model(document: Document, metadata: bytes, graph: bytes) -> ModelFile:
    """Makes a model again, without its self test."""
    path = document["path"]
    return ModelFile(
        graph,
        ModelMetadata.from_json(metadata),
        path=None if path is None else Path(path),
        allow_ops=tuple(document["allow_ops"]),
        limits=GraphLimits(**document["limits"]),
    )


def read_inputs(
    metadata: ModelMetadata, names: Sequence[str], parts: Sequence[Any]
) -> dict[str, NDArray[Any]]:
    """Makes inputs of a network of their bytes."""
    return {
        name: np.frombuffer(part, np.uint8 if is_picture(name) else np.float32).reshape(
            metadata.inputs[name].shape
        )
        for name, part in zip(names, parts, strict=True)
    }


def describe_heads(
    heads: Mapping[str, RawHead],
) -> tuple[list[Document], list[NDArray[Any]]]:
    """Gives what `room_for_heads` takes, and the arrays themselves."""
    values = [np.ascontiguousarray(head.values) for head in heads.values()]
    described = [
        {
            "name": name,
            "shape": array.shape,
            "dtype": array.dtype.name,
            "scale": float(head.scale),
            "zero_point": int(head.zero_point),
        }
        for (name, head), array in zip(heads.items(), values, strict=True)
    ]
    return described, values


def room_for_heads(metadata: ModelMetadata, described: Any) -> dict[str, RawHead]:
    """Makes room for the heads that another process announces.

    Args:
        metadata: Of the model, which says what heads there can be.
        described: What `describe_heads` gave there.

    Raises:
        ValueError: If they cannot be right.
    """
    specs = dict(metadata.outputs)
    if metadata.merge_place == CUSTOM_OP:
        specs |= {spec.name: spec for spec in op_outputs(metadata)}
    heads: dict[str, RawHead] = {}
    try:
        for entry in described:
            name, dtype = entry["name"], entry["dtype"]
            scale, zero_point = float(entry["scale"]), int(entry["zero_point"])
            shape = specs[name].shape
            if tuple(entry["shape"]) != shape or dtype not in _DTYPES:
                raise ValueError(f"{name} is no {dtype} {entry['shape']}")
            if not (math.isfinite(scale) and abs(zero_point) < _MAX_ZERO_POINT):
                raise ValueError(f"{name} has the scale {scale} and {zero_point}")
            heads[name] = RawHead(np.empty(shape, dtype), scale, zero_point)
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"heads are not described: {error!r}") from None
    if not set(metadata.outputs) <= set(heads):
        raise ValueError(f"there are only {sorted(heads)}")
    return heads


def describe_error(error: DeepLabEdgeError) -> Document:
    """Gives what `read_error` takes."""
    return {"error": type(error).__name__, "message": str(error)}


def read_error(document: Document, label: str) -> DeepLabEdgeError:
    """Makes an error again.

    Args:
        document: With `error`; a word that is no error of ours means ModelFileError.
        label: Of the model; the message names it.
    """
    message = printable(document.get("message"))
    if label not in message:
        message = f"{label}: {message}"
    return _ERRORS.get(str(document["error"]), ModelFileError)(message)


def printable(text: object) -> str:
    """Makes one line of what another process says, which a terminal can show."""
    letters = str(text)[:_MAX_LETTERS]
    return "".join(letter if letter.isprintable() else " " for letter in letters)
