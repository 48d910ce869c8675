"""Quantizers and configurations for tensorflow-model-optimization.

Its own defaults are not used, for they leave depthwise kernels with one scale for all
channels and let ranges of activations drift with every batch.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="qat")
tf_keras: Any = require("tf_keras", extra="qat")
tfmot: Any = require("tensorflow_model_optimization", extra="qat")

_quantization: Any = tfmot.quantization.keras
_BITS = 8
# What a new range is; no range of a network that is ready equals it.
UNSET = 6.0

_is_bypassed = False


@contextlib.contextmanager
def bypassed() -> Iterator[None]:
    """Makes all quantizers here give what they are given.

    What is traced inside stays without them.
    """
    global _is_bypassed
    before, _is_bypassed = _is_bypassed, True
    try:
        yield
    finally:
        _is_bypassed = before


class PerChannel(_quantization.quantizers.LastValueQuantizer):  # type: ignore[misc, name-defined]
    """Quantizes kernels, symmetric, with a scale for each channel.

    A training step sets the ranges to the largest absolute value of each channel.

    Args:
        axis: The axis of the channels: 3 (the last), or 2 of depthwise kernels
            `[h, w, C, 1]`.
    """

    def __init__(self, axis: int = 3) -> None:
        super().__init__(_BITS, per_axis=True, symmetric=True, narrow_range=True)
        self.axis = axis

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        shape = (int(tensor_shape[self.axis]),)

        def bound(end: str, value: float) -> Any:
            return layer.add_weight(
                f"{name}_{end}",
                shape=shape,
                initializer=tf_keras.initializers.Constant(value),
                trainable=False,
            )

        return {"min_var": bound("min", -UNSET), "max_var": bound("max", UNSET)}

    def __call__(self, inputs: Any, training: Any, weights: Any, **kwargs: Any) -> Any:
        if _is_bypassed:
            return inputs
        if self.axis == 3:
            return super().__call__(inputs, training, weights, **kwargs)
        # The op takes the last axis alone, and no reshape converts as cleanly.
        last = tf.transpose(inputs, (0, 1, 3, 2))
        last = super().__call__(last, training, weights, **kwargs)
        return tf.transpose(last, (0, 1, 3, 2))

    def get_config(self) -> dict[str, Any]:
        return {"axis": self.axis}


class FixedRange(_quantization.quantizers.MovingAverageQuantizer):  # type: ignore[misc, name-defined]
    """Quantizes activations with a range that training does not move."""

    def __init__(self) -> None:
        super().__init__(_BITS, per_axis=False, symmetric=False, narrow_range=False)

    def __call__(self, inputs: Any, training: Any, weights: Any, **kwargs: Any) -> Any:
        if _is_bypassed:
            return inputs
        return super().__call__(inputs, False, weights, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {}


class QuantizeParts(_quantization.QuantizeConfig):  # type: ignore[misc, name-defined]
    """Says what of a layer is quantized.

    Args:
        kernel: Name of the kernel; empty to leave weights alone.
        output: Quantize what the layer gives.
    """

    def __init__(self, kernel: str = "", output: bool = False) -> None:
        self.kernel = kernel
        self.output = output

    def get_weights_and_quantizers(self, layer: Any) -> list[Any]:
        if not self.kernel:
            return []
        axis = 2 if self.kernel == "depthwise_kernel" else 3
        return [(getattr(layer, self.kernel), PerChannel(axis))]

    def set_quantize_weights(self, layer: Any, quantize_weights: Any) -> None:
        if self.kernel:
            setattr(layer, self.kernel, quantize_weights[0])

    def get_activations_and_quantizers(self, layer: Any) -> list[Any]:
        return []

    def set_quantize_activations(self, layer: Any, quantize_activations: Any) -> None:
        # Activations are layers of their own. AutoGraph wants a statement.
        return None

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        return [FixedRange()] if self.output else []

    def get_config(self) -> dict[str, Any]:
        return {"kernel": self.kernel, "output": self.output}
