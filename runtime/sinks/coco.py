"""One COCO panoptic data set of everything: a folder of PNGs and one JSON file."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from deeplab2_edge.errors import OutputError
from deeplab2_edge.files import ensure_output_dir
from deeplab2_edge.images import write_png
from deeplab2_edge.runtime.classes import Classes
from deeplab2_edge.runtime.sinks.partial import PartialFiles
from deeplab2_edge.runtime.sinks.sink import Done


class CocoDataset:
    """Writes `panoptic/NAME.png`, and `panoptic.json` when it is closed.

    The entries of the JSON file are on disk from the first on: a data set of any length
    takes the same memory.

    Args:
        folder: Exists.

    Raises:
        OutputError: If the files cannot be opened.

    References:
        Kirillov et al., Panoptic Segmentation, CVPR 2019, arXiv:1801.00868; the format
        is that of the panoptic task of COCO, with category ids from 1 in the order of
        the classes.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "panoptic.json"
        self._pngs = ensure_output_dir(folder / "panoptic")
        self._files = PartialFiles()
        partial = self._files.add(self._path)
        try:
            self._json = self._files.enter(partial.open("w", encoding="utf-8"))
        except OSError as error:
            raise OutputError(
                f"{self._path}: cannot be written ({error.strerror})"
            ) from error
        # Goes behind the annotations at the end.
        self._images: IO[str] = self._files.enter(
            tempfile.TemporaryFile("w+", encoding="utf-8")
        )
        self._classes: Classes | None = None
        self._count = 0

    def write(self, done: Done) -> Mapping[str, str]:
        """Adds an image; a frame of a video is `NAME/000012.png`."""
        self._classes = self._classes or done.result.metadata
        source = Path(done.frame.source)
        name, file_name = f"{done.frame.stem}.png", source.name
        if done.frame.is_of_video:
            number = f"{done.frame.index:06d}"
            name, file_name = f"{done.frame.stem}/{number}.png", f"{source}#{number}"
        target = self._pngs / name
        ensure_output_dir(target.parent)
        self._count += 1
        annotation, png = done.result.to_coco(self._count, file_name=name)
        write_png(target, png)
        height, width = done.result.panoptic.shape
        image = {
            "id": self._count,
            "file_name": file_name,
            "height": height,
            "width": width,
        }
        self._append(self._json, '{"annotations": [\n', annotation)
        self._append(self._images, '"images": [\n', image)
        return {"coco": str(self._path), "coco_png": str(target)}

    def close(self) -> None:
        """Finishes the JSON file; without an image there is none."""
        if self._classes is not None:
            self._json.write("\n],\n")
            self._images.seek(0)
            shutil.copyfileobj(self._images, self._json)
            categories = json.dumps(_categories(self._classes), indent=1)
            self._json.write(f'\n],\n"categories": {categories}\n}}\n')
        self._files.close(keep=self._classes is not None)

    def _append(self, file: IO[str], opening: str, entry: dict[str, Any]) -> None:
        file.write((opening if self._count == 1 else ",\n") + json.dumps(entry))


def _categories(classes: Classes) -> list[dict[str, Any]]:
    return [
        {
            "id": number + 1,
            "name": name,
            "isthing": int(number in classes.thing_ids),
            "color": list(classes.colors[number]),
        }
        for number, name in enumerate(classes.class_names)
    ]
