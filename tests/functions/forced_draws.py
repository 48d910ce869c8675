"""Random events with a fixed outcome."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


class ForcedDraws:
    """Gives the smallest or the largest integers, one float, and no normal noise."""

    def __init__(self, integers: str, uniform: float) -> None:
        self._integers, self._uniform = integers, uniform

    def uniform(self, event: Any, shape: Sequence[Any] = ()) -> Any:
        return tf.fill(shape, tf.constant(self._uniform, tf.float32))

    def integer(self, event: Any, limit: Any) -> Any:
        return limit - 1 if self._integers == "hi" else tf.constant(0)

    def normal(self, event: Any, shape: Sequence[Any]) -> Any:
        return tf.zeros(shape)
