"""Files for each image."""

from collections.abc import Mapping
from pathlib import Path

from deeplab2_edge.runtime.sinks.sink import Done
from deeplab2_edge.runtime.views import save_drawn


class ImageFiles:
    """Writes the pictures, the panoptic PNG and the JSON of each image.

    Args:
        folder: Exists.
        with_maps: Write the PNG and the JSON; else the pictures alone.
    """

    def __init__(self, folder: Path, *, with_maps: bool = True) -> None:
        self._folder = folder
        self._with_maps = with_maps

    def write(self, done: Done) -> Mapping[str, str]:
        """Writes the files, the JSON last: its presence says that all is there."""
        paths: dict[str, Path] = {}
        if done.drawn is not None:
            paths |= save_drawn(self._folder, done.frame.stem, done.drawn)
        if self._with_maps:
            paths |= done.result.save(self._folder, done.frame.stem, overlay=False)
        return {kind: str(path) for kind, path in paths.items()}

    def close(self) -> None:
        """Does nothing: each file was whole when it appeared."""
