"""Files that grow frame by frame under a temporary name."""

import contextlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from deeplab2_edge.files import atomic_write

T = TypeVar("T")


class PartialFiles:
    """Holds what is open until it is known whether it is kept."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def add(self, path: Path) -> Path:
        """Gives the temporary path of a file, see `files.atomic_write`."""
        return self.enter(atomic_write(path))

    def enter(self, context: AbstractContextManager[T]) -> T:
        """Enters what must be left before the files get their names."""
        return self._stack.enter_context(context)

    def close(self, *, keep: bool) -> None:
        """Gives the files their names, or leaves nothing.

        Raises:
            OutputError: If a file cannot be kept.
        """
        if keep:
            self._stack.close()
            return
        with contextlib.suppress(_NotKept), self._stack:
            raise _NotKept


class _NotKept(Exception):
    """Makes `atomic_write` remove what it holds."""
