"""Where the results of `deeplab2-edge run` go."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deeplab2_edge.files import ensure_output_dir

if TYPE_CHECKING:
    from deeplab2_edge.runtime.sinks import Sink
    from deeplab2_edge.runtime.sources import Source

_DEFAULT_FOLDER = "results"


class Outputs:
    """Opens the sinks that the options ask for.

    Args:
        args: Of `run`.
        kinds: Pictures that are drawn.

    Attributes:
        folder: Of the files; None if none are written.
        shared: Sinks for everything; the others are opened for each video.

    Raises:
        OutputError: If the folder cannot be written.
    """

    def __init__(self, args: argparse.Namespace, kinds: Sequence[str]) -> None:
        self.folder: Path | None = None
        self.shared: list[Sink] = []
        self._kinds = tuple(kinds)
        if args.output is not None or not args.json:
            self.folder = ensure_output_dir(args.output or _DEFAULT_FOLDER)

    @property
    def wants_pictures(self) -> bool:
        """Whether anything must be drawn."""
        return bool(self._kinds) and self.folder is not None

    def open(self, source: "Source") -> "list[Sink]":
        """Opens the sinks of a video, or of images.

        Raises:
            OutputError: If a file cannot be opened.
        """
        from deeplab2_edge.runtime.sinks import ImageFiles, JsonLines, Videos

        if self.folder is None:
            return []
        if source.kind == "image":
            return [ImageFiles(self.folder)]
        sinks: list[Sink] = [JsonLines(self.folder / f"{source.stem}.jsonl")]
        if self._kinds:
            sinks.append(Videos(self.folder, source.stem, self._kinds, source.fps))
        return sinks
