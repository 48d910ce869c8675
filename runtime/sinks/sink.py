"""What goes into a sink, and what a sink is."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.runtime.results import PanopticResult
from deeplab2_edge.runtime.sources import Frame
from deeplab2_edge.runtime.views import Drawn


@dataclass(frozen=True, eq=False)
class Done:
    """Is a frame with all that was made of it.

    Attributes:
        frame: As it was read.
        result: What the model says.
        drawn: The pictures; None if none are wanted.
    """

    frame: Frame
    result: PanopticResult
    drawn: Drawn | None = None

    @property
    def picture(self) -> NDArray[np.uint8]:
        """The one to look at, uint8 `[H, W, 3]` RGB: the first that was drawn."""
        pictures = self.drawn.pictures if self.drawn is not None else {}
        return next(iter(pictures.values())) if pictures else self.result.overlay()


class Sink(Protocol):
    """Takes frames in order, all in one thread."""

    def write(self, done: Done) -> Mapping[str, str]:
        """Takes the next frame.

        Returns:
            Paths of the files that hold it, by kind.

        Raises:
            OutputError: If it cannot be written.
            Quit: If the user has seen enough.
        """

    def close(self) -> None:
        """Finishes what was written: the files are whole. Of nothing, nothing is left.

        Raises:
            OutputError: If that fails.
        """


class Quit(Exception):
    """Says that the user wants no more frames."""


@contextlib.contextmanager
def closing(sinks: Sequence[Sink]) -> Iterator[None]:
    """Closes all sinks at the end of the block, whatever ends it.

    Raises:
        OutputError: What the first that failed says, unless the block itself raised.
    """
    try:
        yield
    except BaseException:
        for sink in sinks:
            # The first error is the one that tells what happened.
            with contextlib.suppress(OSError):
                sink.close()
        raise
    with contextlib.ExitStack() as stack:
        for sink in sinks:
            stack.callback(sink.close)
