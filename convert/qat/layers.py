"""Layers of which a network for quantization-aware training is written.

Each does what one integer op of a device does, so that there is a place for a quantizer
between any two of them.
"""

from typing import Any

from deeplab2_edge.optional import require

tf_keras: Any = require("tf_keras", extra="qat")

_serializable = tf_keras.utils.register_keras_serializable(package="deeplab2_edge.qat")


@_serializable
class Scale(tf_keras.layers.Layer):  # type: ignore[misc]
    """Multiplies by a constant."""

    def __init__(self, factor: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs: Any) -> Any:
        return inputs * self.factor

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


@_serializable
class Shift(tf_keras.layers.Layer):  # type: ignore[misc]
    """Adds a constant."""

    def __init__(self, offset: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.offset = offset

    def call(self, inputs: Any) -> Any:
        return inputs + self.offset

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "offset": self.offset}


@_serializable
class FrozenBatchNormalization(tf_keras.layers.BatchNormalization):  # type: ignore[misc]
    """Normalizes with its stored statistics in training, too; scale and offset learn.

    Fine-tuning with statistics of small batches loses more than quantization does.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return super().call(inputs, training=False)
