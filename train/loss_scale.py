"""Loss scaling: keeps small gradients in the range of float16.

References:
    Micikevicius et al., Mixed Precision Training, arXiv:1710.03740, section 3.2.
"""

from collections.abc import Sequence
from typing import Any

from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")

_FIRST_SCALE = 2.0**15
_SMALLEST_SCALE = 1.0
_LARGEST_SCALE = 2.0**24
# Finite steps in a row after which a larger scale is tried.
_GROWTH_INTERVAL = 2000


class LossScale(tf.Module):  # type: ignore[misc]
    """Holds the factor of the loss; a part of the checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = _counter(_FIRST_SCALE, tf.float32)
        self.good_steps = _counter(0, tf.int64)

    def is_smallest(self) -> bool:
        """Tells whether the factor can sink no further."""
        return float(self.scale.numpy()) <= _SMALLEST_SCALE

    def apply(self, loss: Any) -> Any:
        """Multiplies a loss."""
        return loss * tf.cast(self.scale.read_value(), loss.dtype)

    def remove(self, gradients: Sequence[Any]) -> list[Any]:
        """Divides the gradients of a multiplied loss; None stays."""
        factor = 1.0 / self.scale.read_value()
        return [None if g is None else g * tf.cast(factor, g.dtype) for g in gradients]

    def adapt(self, is_finite: Any) -> None:
        """Halves the factor after a step that overflowed, doubles it after many good.

        Args:
            is_finite: Whether the gradients were finite.
        """
        is_due = is_finite & (self.good_steps + 1 >= _GROWTH_INTERVAL)
        grown = tf.where(is_due, self.scale * 2.0, self.scale)
        scale = tf.where(is_finite, grown, self.scale * 0.5)
        good_steps = tf.where(
            is_finite & ~is_due, self.good_steps + 1, tf.zeros_like(self.good_steps)
        )
        self.scale.assign(tf.clip_by_value(scale, _SMALLEST_SCALE, _LARGEST_SCALE))
        self.good_steps.assign(good_steps)


def _counter(value: float, dtype: Any) -> Any:
    return tf.Variable(
        value,
        dtype=dtype,
        trainable=False,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )
