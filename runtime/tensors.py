"""Tensors of a graph: what they hold, and what images and states become in them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.model_file import InputSpec


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """Describes one tensor of a graph.

    Attributes:
        scale: Quantization scale; 0.0 for float tensors.
        zero_point: Quantization zero point.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int


@dataclasses.dataclass(frozen=True)
class GraphInfo:
    """Describes what is inside a graph.

    Attributes:
        op_counts: Number of ops by builtin name, most frequent first.
        num_tensors: All tensors, constants included.
        inputs: In the order of the graph.
        outputs: In the order of the graph.
    """

    op_counts: Mapping[str, int]
    num_tensors: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


def quantized(values: NDArray[Any], tensor: TensorInfo) -> NDArray[Any]:
    """Turns float32 into what a tensor holds."""
    if not tensor.scale:
        return values
    dtype = np.dtype(tensor.dtype)
    bounds = np.iinfo(dtype)
    steps = np.rint(values / np.float32(tensor.scale)) + np.float32(tensor.zero_point)
    return np.clip(steps, bounds.min, bounds.max).astype(dtype)


def input_table(spec: InputSpec, tensor: TensorInfo) -> NDArray[Any] | None:
    """Gives the input value of each of the 256 pixel values, None if unchanged."""
    low, high = spec.range
    real = np.arange(256) * ((high - low) / 255) + low
    dtype = np.dtype(tensor.dtype)
    if dtype == np.float32:
        return real.astype(np.float32)
    if tensor.scale:
        # The file's own scale and zero point: an exact one can be half-integer.
        real = np.rint(real / tensor.scale) + tensor.zero_point
    bounds = np.iinfo(dtype)
    table = np.clip(np.rint(real), bounds.min, bounds.max).astype(dtype)
    is_identity = dtype == np.uint8 and np.array_equal(table, np.arange(256))
    return None if is_identity else table


def tensor_info(details: Mapping[str, Any]) -> TensorInfo:
    """Reads what an interpreter says of a tensor."""
    dtype = np.dtype(details["dtype"])
    is_integer = np.issubdtype(dtype, np.integer)
    scale, zero_point = details["quantization"] if is_integer else (0.0, 0)
    return TensorInfo(
        name=details["name"],
        shape=tuple(int(side) for side in details["shape"]),
        dtype=dtype.name,
        scale=float(scale),
        zero_point=int(zero_point),
    )
