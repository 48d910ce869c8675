"""Randomness in training that a resumed run repeats exactly."""

import zlib
from collections.abc import Callable
from typing import Any

from deeplab2_edge.layers.replay import current_draws, is_repeated
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")
tf_keras: Any = require("tf_keras", extra="train")


class Replayable(tf_keras.layers.Layer):  # type: ignore[misc]
    """Draws from a stream that depends on the training step alone.

    A layer that is called several times in a step, as by the encoder of two frames,
    has a stream for each of the passes that `replay.draws_of` tells apart.

    Keras' own layers draw from a hidden generator, which no checkpoint holds: a run
    that was killed and resumed would see other masks than an uninterrupted one.

    Attributes:
        seed_source: Returns an int64 tensor that changes every step, normally the
            trainer's global step. Without it masks are drawn at random.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed_source: Callable[[], Any] | None = None

    def uniform(self, shape: Any) -> Any:
        """Draws float32 numbers in [0, 1)."""
        if self.seed_source is None:
            if is_repeated():
                raise ValueError(
                    f"{self.name} draws a mask in a pass that is computed twice; set "
                    "its seed_source, so that both see the same one"
                )
            return tf.random.uniform(shape)
        # One stream per layer and pass: their names pick it. The algorithm is named
        # so that compiled steps draw the same masks on every device.
        words = [self.name, *map(str, current_draws())]
        stream = zlib.crc32("#".join(words).encode())
        seed = tf.stack([tf.constant(stream, tf.int64), self.seed_source()])
        return tf.random.stateless_uniform(shape, seed=seed, alg="philox")


@tf_keras.utils.register_keras_serializable(package="deeplab2_edge")
class ReplayableDropout(Replayable):
    """Drops units with a mask that depends on the training step alone."""

    def __init__(self, rate: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = rate

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if not training:
            return inputs
        kept = tf.cast(self.uniform(tf.shape(inputs)) >= self.rate, inputs.dtype)
        return inputs * (kept / (1.0 - self.rate))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate}


@tf_keras.utils.register_keras_serializable(package="deeplab2_edge")
class DropPath(Replayable):
    """Silences a residual branch for some samples of a batch (stochastic depth).

    A kept sample is scaled by `1 / keep_prob`.

    Args:
        keep_prob: Probability in (0, 1] that a sample keeps the branch.

    References:
        Huang et al., Deep Networks with Stochastic Depth, arXiv:1603.09382.
    """

    def __init__(self, keep_prob: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.keep_prob = keep_prob

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if not training:
            return inputs
        shape = tf.concat([tf.shape(inputs)[:1], [1] * (inputs.shape.rank - 1)], axis=0)
        kept = tf.cast(self.uniform(shape) < self.keep_prob, inputs.dtype)
        return inputs * (kept / self.keep_prob)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "keep_prob": self.keep_prob}


def drop_path(x: Any, name: str, keep_prob: float) -> Any:
    """Adds `DropPath`, or nothing where every sample is kept."""
    return x if keep_prob == 1.0 else DropPath(keep_prob, name=name)(x)
