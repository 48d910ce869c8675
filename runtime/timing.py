"""Times the stages of a prediction."""

import contextlib
import time
from collections.abc import Iterator

# In the order they happen; `draw` is timed only where something is drawn.
STAGES = ("decode", "preprocess", "network", "merge", "draw")


class StageTimer:
    """Adds up monotonic time per stage.

    Example:
        >>> timer = StageTimer()
        >>> with timer.stage("network"):
        ...     pass
        >>> sorted(timer.milliseconds)
        ['network']
    """

    def __init__(self) -> None:
        self._nanoseconds: dict[str, int] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time the block takes to a stage."""
        start = time.perf_counter_ns()
        try:
            yield
        finally:
            elapsed = time.perf_counter_ns() - start
            self._nanoseconds[name] = self._nanoseconds.get(name, 0) + elapsed

    @property
    def milliseconds(self) -> dict[str, float]:
        """Time per stage so far, in the order the stages first ran."""
        return {name: ns / 1e6 for name, ns in self._nanoseconds.items()}
