"""Activations by their configuration name."""

from typing import Any

from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")
tf_keras: Any = require("tf_keras", extra="train")


@tf_keras.utils.register_keras_serializable(package="deeplab2_edge")
class HardSwish(tf_keras.layers.Layer):  # type: ignore[misc]
    """Computes `x * relu6(x + 3) / 6` (Howard et al., MobileNetV3, section 5.2).

    LiteRT recognizes the fused order and emits its HARD_SWISH op, for which XNNPACK
    has no int8 kernel (LiteRT 2.3): an int8 MobileNetV3 falls into some twenty
    partitions. The decomposed order keeps ADD and MUL, which it does take.
    """

    def __init__(self, form: str = "fused", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if form not in ("fused", "decomposed"):
            raise ValueError(f"form is {form!r}; must be 'fused' or 'decomposed'")
        self.form = form

    def call(self, inputs: Any) -> Any:
        gate = tf.nn.relu6(inputs + 3.0)
        if self.form == "fused":
            return inputs * gate * (1.0 / 6.0)
        return (inputs * (1.0 / 6.0)) * gate

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "form": self.form}


@tf_keras.utils.register_keras_serializable(package="deeplab2_edge")
class HardSigmoid(tf_keras.layers.Layer):  # type: ignore[misc]
    """Computes `relu6(x + 3) * 0.16667`.

    The rounded constant is that of the published weights: 1.00002 where it saturates.
    """

    def call(self, inputs: Any) -> Any:
        return tf.nn.relu6(inputs + 3.0) * 0.16667


def activate(x: Any, name: str, activation: str, hard_swish: str) -> Any:
    """Adds the activation called `activation` as a layer called `name`."""
    if activation == "none":
        return x
    if activation == "relu":
        return tf_keras.layers.ReLU(name=name)(x)
    if activation == "relu6":
        return tf_keras.layers.ReLU(6.0, name=name)(x)
    if activation == "hard_swish":
        return HardSwish(hard_swish, name=name)(x)
    if activation == "hard_sigmoid":
        return HardSigmoid(name=name)(x)
    raise ValueError(f"unknown activation {activation!r}")
