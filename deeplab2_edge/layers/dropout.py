"""Dropout that a resumed training run repeats exactly."""

import zlib
from collections.abc import Callable
from typing import Any

from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")
tf_keras: Any = require("tf_keras", extra="train")


@tf_keras.utils.register_keras_serializable(package="deeplab2_edge")
class ReplayableDropout(tf_keras.layers.Layer):  # type: ignore[misc]
    """Drops units with a mask that depends on the training step alone.

    Keras' own layer draws from a hidden generator, which no checkpoint holds: a run
    that was killed and resumed would see other masks than an uninterrupted one.

    Attributes:
        seed_source: Returns an int64 tensor that changes every step, normally the
            trainer's global step. Without it masks are drawn at random.
    """

    def __init__(self, rate: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = rate
        self.seed_source: Callable[[], Any] | None = None

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if not training:
            return inputs
        if self.seed_source is None:
            return tf.nn.dropout(inputs, self.rate)
        # One stream per layer: the layer's name picks it.
        name = zlib.crc32(self.name.encode())
        seed = tf.stack([tf.constant(name, tf.int64), self.seed_source()])
        return tf.nn.experimental.stateless_dropout(inputs, self.rate, seed=seed)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate}
