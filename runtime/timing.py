"""Times the stages of a prediction."""

import contextlib
import time
from collections.abc import Iterator

# In the order they happen; `draw` is timed only where something is drawn. What comes
# live or through a pipe also has `WAIT`, which is no work of this machine.
STAGES = ("decode", "preprocess", "network", "merge", "draw")
WAIT = "wait"


class StageTimer:
    """Adds up monotonic time per stage; one within another counts for the inner alone.

    Example:
        >>> timer = StageTimer()
        >>> with timer.stage("network"):
        ...     pass
        >>> sorted(timer.milliseconds)
        ['network']
    """

    def __init__(self) -> None:
        self._nanoseconds: dict[str, int] = {}
        self._within = 0  # time of the stages inside the present one

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time the block takes to a stage."""
        before, self._within = self._within, 0
        start = time.perf_counter_ns()
        try:
            yield
        finally:
            elapsed = time.perf_counter_ns() - start
            own = elapsed - self._within
            self._nanoseconds[name] = self._nanoseconds.get(name, 0) + own
            self._within = before + elapsed

    def take(self) -> dict[str, float]:
        """Gives `milliseconds` and begins anew."""
        taken = self.milliseconds
        self._nanoseconds.clear()
        return taken

    @property
    def milliseconds(self) -> dict[str, float]:
        """Time per stage so far, in the order the stages first ran."""
        return {name: ns / 1e6 for name, ns in self._nanoseconds.items()}
