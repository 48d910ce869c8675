"""Means of losses, and where the time goes, over an interval of steps."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from deeplab2_edge.optional import require
from deeplab2_edge.train.losses import TOTAL_LOSS
from deeplab2_edge.train.step import SKIPPED

tf = require("tensorflow", extra="train")


class Meter:
    """Averages losses over an interval without waiting for every step.

    Attributes:
        last_means: The means that `means` gave last.
        waited_seconds: Time that was spent `waiting`, in all intervals.
    """

    def __init__(self) -> None:
        self.last_means: dict[str, float] = {}
        self.waited_seconds = 0.0
        self.start_interval()

    def start_interval(self) -> None:
        """Forgets all steps."""
        self._sums: dict[str, Any] = {}
        self._count = 0
        self._waited_before = self.waited_seconds
        self._started = time.monotonic()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside as waiting for a batch."""
        started = time.monotonic()
        yield
        self.waited_seconds += time.monotonic() - started

    def add(self, losses: dict[str, Any]) -> None:
        """Counts what a step gave."""
        self._count += 1
        # A step that is not finite must not poison the mean.
        kept = 1.0 - losses[SKIPPED]
        for name, value in losses.items():
            clean = value if name == SKIPPED else tf.math.multiply_no_nan(value, kept)
            self._sums[name] = self._sums.get(name, 0.0) + clean

    def means(self) -> dict[str, float]:
        """Returns the mean of every loss over the steps that were not left out."""
        kept = max(self._count - self.count_skipped(), 1)
        self.last_means = {
            name: float(total) / kept
            for name, total in self._sums.items()
            if name != SKIPPED
        }
        return self.last_means

    def count_skipped(self) -> int:
        """Counts the steps that were left out."""
        return int(float(self._sums.get(SKIPPED, 0.0)))

    def steps_per_second(self) -> float:
        """Returns the speed since the interval began."""
        return self._count / self._seconds()

    def input_wait_fraction(self) -> float:
        """Returns the share of the interval that was spent waiting for batches."""
        return (self.waited_seconds - self._waited_before) / self._seconds()

    def _seconds(self) -> float:
        return max(time.monotonic() - self._started, 1e-9)

    def status(self) -> str:
        """Says the mean loss for a line of progress."""
        total = self.means().get(TOTAL_LOSS) if self._count else None
        return "" if total is None else f"loss {total:.3f}"
