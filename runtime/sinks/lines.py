"""JSON lines: one file for a video, one line for a frame."""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path

from deeplab2_edge.errors import OutputError
from deeplab2_edge.runtime.sinks.partial import PartialFiles
from deeplab2_edge.runtime.sinks.sink import Done


class JsonLines:
    """Writes `NAME.jsonl`; the file appears when it is closed, with whole lines only.

    Args:
        path: Of the file.

    Raises:
        OutputError: If it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = PartialFiles()
        partial = self._files.add(path)
        try:
            # Without a buffer a line is in the file, or the error comes here.
            self._file = self._files.enter(partial.open("wb", buffering=0))
        except OSError as error:
            raise OutputError(
                f"{path}: cannot be written ({error.strerror})"
            ) from error
        self._size = 0

    def write(self, done: Done) -> Mapping[str, str]:
        """Appends a line.

        Raises:
            OutputError: If the disk is full; the lines before stay.
        """
        place = {"source": done.frame.source, "frame": done.frame.index}
        line = json.dumps({**place, **done.result.to_dict()}).encode() + b"\n"
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._file.truncate(self._size)
            raise OutputError(
                f"{self._path}: cannot be written ({error.strerror}); the lines "
                "before this one are kept"
            ) from error
        self._size += len(line)
        return {"json": str(self._path)}

    def close(self) -> None:
        """Gives the file its name, or removes it if there is no line."""
        self._files.close(keep=self._size > 0)
