"""Random events of a sample, each a function of a seed and the event's name.

The same seed gives the same sample, whatever the order, the threads or the
interruptions.
"""

import enum
from collections.abc import Sequence
from typing import Any, Protocol

from deeplab2_edge.optional import require

tf = require("tensorflow", extra="train")


class Event(enum.IntEnum):
    """Names the random events of a sample; the numbers are part of the seed."""

    SCALE = 0
    PAD_Y = 1
    PAD_X = 2
    CROP_Y = 3
    CROP_X = 4
    FLIP = 5
    JITTER_ROW = 6
    JITTER_FIRST = 7
    JITTER_SECOND = 8
    PASTED_COUNT = 9
    PASTED_IDS = 10
    CENTER_NOISE = 11
    FALSE_CENTER = 12
    FALSE_CENTER_NOISE = 13


class Draws(Protocol):
    """Decides the random events of one sample."""

    def uniform(self, event: Event, shape: Sequence[Any] = ()) -> Any:
        """Gives float32 in [0, 1)."""

    def integer(self, event: Event, limit: Any) -> Any:
        """Gives an int32 scalar in 0..limit-1; `limit` is at least 1."""

    def normal(self, event: Event, shape: Sequence[Any]) -> Any:
        """Gives float32 of mean 0 and standard deviation 1."""


class SeededDraws:
    """Draws every event from its own stream of a seed.

    Args:
        seed: `[2]` int64 tensor, for example (seed of the run, position in it).
    """

    def __init__(self, seed: Any) -> None:
        self._seed = seed

    def uniform(self, event: Event, shape: Sequence[Any] = ()) -> Any:
        return tf.random.stateless_uniform(shape, self._stream(event), alg="philox")

    def integer(self, event: Event, limit: Any) -> Any:
        return tf.random.stateless_uniform(
            [],
            self._stream(event),
            minval=0,
            maxval=tf.cast(limit, tf.int32),
            dtype=tf.int32,
            alg="philox",
        )

    def normal(self, event: Event, shape: Sequence[Any]) -> Any:
        return tf.random.stateless_normal(shape, self._stream(event), alg="philox")

    def _stream(self, event: Event) -> Any:
        return fold_in(self._seed, int(event))


def fold_in(seed: Any, number: int) -> Any:
    """Gives another seed, `[2]` int64, for another use of the same sample."""
    return tf.random.experimental.stateless_fold_in(seed, number, alg="philox")
