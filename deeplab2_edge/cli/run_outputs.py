"""Where the results of `deeplab2-edge run` go."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deeplab2_edge.errors import UsageError
from deeplab2_edge.files import ensure_output_dir

if TYPE_CHECKING:
    from deeplab2_edge.runtime.sinks import Sink
    from deeplab2_edge.runtime.sources import Source

_DEFAULT_FOLDER = "results"


_COCO = "coco"


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say where results go."""
    parser.add_argument(
        "--output",
        metavar="DIR",
        help=f"folder for results (default: {_DEFAULT_FOLDER}; with --json, --show or "
        "--serve no files are written without it)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document instead of text"
    )
    parser.add_argument(
        "--show",
        action="store_true",
        help="show the pictures in a window; q or Esc ends, any other key goes on to "
        "the next image",
    )
    parser.add_argument(
        "--serve",
        metavar="[HOST:]PORT",
        help="show the pictures in a browser; HOST is 127.0.0.1, others need --token",
    )
    parser.add_argument(
        "--token",
        metavar="WORD",
        help="that browsers must show with --serve; auto makes one",
    )


def take_coco(save: str | None) -> tuple[bool, str | None]:
    """Tells the data set from the pictures in the list of `--save`.

    Returns:
        Whether a COCO data set is wanted, and the list without it; an empty one if it
        named nothing else.
    """
    if save is None:
        return False, None
    words = [word.strip() for word in save.split(",")]
    return _COCO in words, ",".join(word for word in words if word != _COCO)


class Outputs:
    """Opens the sinks that the options ask for.

    Args:
        args: Of `run`.
        kinds: Pictures that are drawn.
        has_coco: Whether a COCO data set is written, in place of the maps and the JSON
            of each image.
        waits: Whether a window waits for a key after each picture.
        should_stop: Ends such a wait.

    Attributes:
        folder: Of the files; None if none are written.
        shared: Sinks for everything; the others are opened for each video.

    Raises:
        UsageError: If a window or a live view cannot be had.
        OutputError: If the folder cannot be written, or the port is taken.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        kinds: Sequence[str],
        *,
        has_coco: bool,
        waits: bool,
        should_stop: Callable[[], bool],
    ) -> None:
        self.folder: Path | None = None
        self.shared: list[Sink] = []
        self._kinds = tuple(kinds)
        self._has_coco = has_coco
        self._is_seen = args.show or args.serve is not None
        if args.token is not None and args.serve is None:
            raise UsageError("--token goes with --serve")
        if args.output is not None or has_coco or not (args.json or self._is_seen):
            self.folder = ensure_output_dir(args.output or _DEFAULT_FOLDER)
        if args.show:
            from deeplab2_edge.runtime.sinks.window import Window

            self.shared.append(Window(waits=waits, should_stop=should_stop))
        if args.serve is not None:
            self.shared.append(_live(args.serve, args.token))
        if has_coco and self.folder is not None:
            from deeplab2_edge.runtime.sinks.coco import CocoDataset

            self.shared.append(CocoDataset(self.folder))

    @property
    def wants_pictures(self) -> bool:
        """Whether anything must be drawn."""
        return bool(self._kinds) and (self.folder is not None or self._is_seen)

    def open(self, source: "Source") -> "list[Sink]":
        """Opens the sinks of a video, or of images.

        Raises:
            OutputError: If a file cannot be opened.
        """
        from deeplab2_edge.runtime.sinks import ImageFiles, JsonLines, Videos

        if self.folder is None:
            return []
        if source.kind == "image":
            return [ImageFiles(self.folder, with_maps=not self._has_coco)]
        sinks: list[Sink] = [JsonLines(self.folder / f"{source.stem}.jsonl")]
        if self._kinds:
            sinks.append(Videos(self.folder, source.stem, self._kinds, source.fps))
        return sinks


def _live(address: str, token: str | None) -> "Sink":
    from deeplab2_edge.runtime.serve import LiveView, parse_address
    from deeplab2_edge.runtime.sinks.live import Live

    host, port = parse_address(address)
    view = LiveView(host, port, token=token)
    view.__enter__()  # closed by the sink
    print(f"live view: {view.url}", file=sys.stderr, flush=True)
    return Live(view)
