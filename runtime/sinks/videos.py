"""Videos of what is drawn."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from deeplab2_edge.runtime.sinks.partial import PartialFiles
from deeplab2_edge.runtime.sinks.sink import Done
from deeplab2_edge.runtime.views import open_views

_log = logging.getLogger("deeplab2_edge")


class Videos:
    """Writes one video for each kind of picture; they appear when they are closed.

    Args:
        folder: Exists.
        stem: Start of the names of the files.
        kinds: Of `views.KINDS`.
        fps: Frames per second.
    """

    def __init__(
        self, folder: Path, stem: str, kinds: Sequence[str], fps: float
    ) -> None:
        self._files = PartialFiles()
        self._views = self._files.enter(open_views(folder, stem, kinds, fps))
        self._stem = stem
        self._size: tuple[int, ...] | None = None
        self._has_told = False

    def write(self, done: Done) -> Mapping[str, str]:
        """Appends a frame; one of another size is brought to that of the first.

        Raises:
            OutputError: If it cannot be written.
        """
        if done.drawn is None:
            return {}
        size = done.frame.image.shape[:2]
        if self._size is None:
            self._size = size
        elif size != self._size and not self._has_told:
            self._has_told = True
            _log.warning(
                "%s: from frame %d on the images have %dx%d pixels, before %dx%d; the "
                "videos keep the first size",
                *(self._stem, done.frame.index, *size, *self._size),
            )
        self._views.write(done.drawn)
        return {kind: str(path) for kind, path in self._views.paths.items()}

    def close(self) -> None:
        """Finishes the videos; without a frame there are none."""
        self._files.close(keep=self._size is not None)
