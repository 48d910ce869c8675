"""Forms of a network: which ops express what it computes.

A network may be written in several ways that give the same values. Devices take some
ops and not others, so each target has forms that are known to be good there. Nothing
here needs TensorFlow.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deeplab2_edge.errors import UsageError

CPU = "cpu"
GPU = "gpu"
EDGE_TPU = "edgetpu"
ONNX = "onnx"
TARGETS = (CPU, GPU, EDGE_TPU, ONNX)

HARD_SWISH_FORMS = ("fused", "decomposed")
AXIAL_FORMS = ("builtin", "einsum")
RESIZE_FORMS = ("native", "matmul", "spread")
POOL_FORMS = ("native", "separable")
MERGE_FORMS = ("host", "graph", "custom-op")

# Modes whose hard-swish runs on 8-bit or 16-bit integers.
_INTEGER_MODES = ("int8", "int8-mixed", "int16x8")


@dataclass(frozen=True)
class Forms:
    """Says in which ops a network is written.

    Attributes:
        hard_swish: `"fused"`, one HARD_SWISH op, or `"decomposed"`, ADD and MUL. See
            `layers.activations`.
        axial: How attention is written. `"builtin"`: with all normalizations folded,
            and relative positions as products with the table of all `2 L - 1`
            distances, shifted into place by padding and slicing; constants grow with
            the length of an axis. `"einsum"`: as in training, with products with
            looked-up vectors; constants grow with the square of the length.
        resize: `"native"`, RESIZE_BILINEAR with aligned corners; `"matmul"`, products
            with two constant matrices, for delegates that do not align corners; or
            `"spread"`, RESIZE_BILINEAR, but pooled features are spread by a product.
        pool: `"native"`, AVERAGE_POOL_2D where a canvas is larger than the training
            crop, so that the ASPP pools a window, or `"separable"`, two depthwise
            convolutions.
        merge: Who makes panoptic maps of heads: the `"host"`, the `"graph"` in builtin
            ops, or a `"custom-op"`.

    Raises:
        UsageError: If a form is unknown.
    """

    hard_swish: str = "fused"
    axial: str = "einsum"
    resize: str = "native"
    pool: str = "native"
    merge: str = "host"

    def __post_init__(self) -> None:
        for name, known in (
            ("hard_swish", HARD_SWISH_FORMS),
            ("axial", AXIAL_FORMS),
            ("resize", RESIZE_FORMS),
            ("pool", POOL_FORMS),
            ("merge", MERGE_FORMS),
        ):
            value = getattr(self, name)
            if value not in known:
                raise UsageError(f"{name} is {value!r}; must be {', '.join(known)}")

    @property
    def has_custom_ops(self) -> bool:
        """Is whether the file needs ops that are not builtin."""
        return self.merge == "custom-op"

    def replace(self, **forms: Any) -> "Forms":
        """Returns a copy with some forms changed."""
        return dataclasses.replace(self, **forms)

    def build_options(self) -> Mapping[str, Any]:
        """Returns the keyword arguments of `models.build_model` for these forms."""
        return {
            "hard_swish": self.hard_swish,
            "axial": self.axial,
            "resize": self.resize,
            "pool": self.pool,
        }


def forms_for(target: str, quantization: str) -> Forms:
    """Returns the forms that are known to be good on a target.

    Args:
        target: One of `TARGETS`.
        quantization: One of `modes.MODE_NAMES`.

    Raises:
        UsageError: If the target is unknown.
    """
    if target not in TARGETS:
        raise UsageError(f"target is {target!r}; must be {', '.join(TARGETS)}")
    return Forms(
        # int8 HARD_SWISH has no XNNPACK kernel (LiteRT 2.3) and would cut the graph
        # into some twenty parts; the converter refuses it with 16-bit activations.
        hard_swish="decomposed" if quantization in _INTEGER_MODES else "fused",
        # Delegates for GPUs hold constants in memory of their own: small tables.
        axial="builtin" if target in (GPU, EDGE_TPU) else "einsum",
        resize={GPU: "matmul", EDGE_TPU: "spread"}.get(target, "native"),
        # int8 AVERAGE_POOL_2D has no XNNPACK kernel either; large windows are slow on
        # every device.
        pool="separable" if quantization in _INTEGER_MODES[:2] else "native",
    )
