"""Predictions as the servers and tools of the data sets want them."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.datasets.info import DatasetInfo
from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.files import atomic_write, ensure_output_dir
from deeplab2_edge.images import write_png
from deeplab2_edge.metrics.overlaps import number_ids

OFFICIAL_FORMATS = ("coco", "cityscapes", "step", "semantic")
_DEPTH_PER_METER = 256
_VOID_CATEGORY = 255
_CITYSCAPES_IMAGE = "_leftImg8bit"


def official_format(info: DatasetInfo) -> str:
    """Returns the format for a data set: `step` for videos, else a COCO JSON."""
    if info.is_video:
        return "step"
    return "cityscapes" if info.name.startswith("cityscapes") else "coco"


class OfficialWriter:
    """Writes predictions in the format of a benchmark; a context manager.

    `coco`: `panoptic_predictions.json` and a folder of the same name with a PNG per
    image (segment id = R + 256 * G + 65536 * B, 0 is void). Image ids are numbers
    where names are. `cityscapes`: the same as `cityscapes_panoptic_predictions.json`,
    with the label ids of the benchmark and ids like `frankfurt_000000_000294`.
    `step`: `<sequence>/<frame>.png`, R the class, 256 * G + B the instance, as
    KITTI-STEP and MOTChallenge-STEP want it; with depth also `<frame>_depth.png`, 16
    bits, 256 per meter. `semantic`: `NAME.png`, 8-bit grey, with the category or label
    ids of the benchmark, void 255.

    PNGs are written at once, the JSON when the context ends without an error.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        info: DatasetInfo,
        *,
        format: str | None = None,
    ) -> None:
        """Makes the folder.

        Args:
            directory: Folder of results; made if it is missing.
            info: The classes; its `category_ids` are those of the benchmark.
            format: One of `OFFICIAL_FORMATS`; by default `official_format(info)`.

        Raises:
            UsageError: If the format is unknown or cannot hold the classes.
            OutputError: If the folder cannot be made.
        """
        self.format = format or official_format(info)
        if self.format not in OFFICIAL_FORMATS:
            raise UsageError(
                f"official format {format!r} is unknown; known are "
                f"{', '.join(OFFICIAL_FORMATS)}"
            )
        if self.format == "step" and max(info.num_classes - 1, info.ignore_label) > 255:
            raise UsageError(
                f"data set {info.name!r} has classes above 255, which the format step "
                "cannot hold; use coco"
            )
        self._categories: Sequence[int] = info.category_ids or range(info.num_classes)
        if self.format == "semantic" and max(self._categories) > _VOID_CATEGORY:
            raise UsageError(
                f"data set {info.name!r} has category ids above 255, which the format "
                "semantic cannot hold"
            )
        self.info = info
        self.directory = ensure_output_dir(directory)
        stem = "panoptic_predictions"
        if self.format == "cityscapes":
            stem = f"cityscapes_{stem}"
        self.json_path = None
        if self.format in ("coco", "cityscapes"):
            self.json_path = self.directory / f"{stem}.json"
        self._annotations: list[dict[str, Any]] = []
        self._written: set[Path] = set()

    @property
    def wants_instances(self) -> bool:
        """Says whether classes alone are not enough."""
        return self.format != "semantic"

    def __enter__(self) -> "OfficialWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()

    def add(
        self,
        name: str,
        panoptic: NDArray[np.integer],
        *,
        scores: Mapping[int, float] | None = None,
        depth: NDArray[np.floating] | None = None,
    ) -> Path:
        """Writes the PNG of one image.

        Args:
            name: Relative path of the image without suffix; for `step`
                `<sequence>/<frame>`.
            panoptic: `[H, W]` panoptic ids.
            scores: Score of segments, noted in the JSON where it is known.
            depth: `[H, W]` meters, written by `step` alone.

        Returns:
            The PNG.

        Raises:
            DataError: If a name comes twice or would leave the folder, or an id does
                not fit the format.
            OutputError: If the file cannot be written.
        """
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts or not relative.name:
            raise DataError(f"name {name!r} must be a path inside the output folder")
        if self.format == "step":
            path = self.directory / f"{relative}.png"
            pixels = self._step(name, panoptic)
        elif self.format == "semantic":
            path = self.directory / f"{self._image_id(relative)}.png"
            pixels = self._semantic(panoptic)
        else:
            assert self.json_path is not None
            image_id = self._image_id(relative)
            path = self.json_path.with_suffix("") / f"{image_id}.png"
            pixels, segments = self._segments(panoptic, scores or {})
            is_number = self.format == "coco" and image_id.isdecimal()
            self._annotations.append(
                {
                    "image_id": int(image_id) if is_number else image_id,
                    "file_name": path.name,
                    "segments_info": segments,
                }
            )
        if path in self._written:
            raise DataError(f"{path}: two images have this name; make names unique")
        self._written.add(path)
        ensure_output_dir(path.parent)
        write_png(path, pixels)
        if depth is not None and self.format == "step":
            stored = np.clip(np.rint(depth * _DEPTH_PER_METER), 0, 65535)
            write_png(
                path.with_name(f"{path.stem}_depth.png"), stored.astype(np.uint16)
            )
        return path

    def _image_id(self, relative: PurePosixPath) -> str:
        # Frames are numbered anew in each video.
        name = "_".join(relative.parts) if self.info.is_video else relative.name
        return name.removesuffix(_CITYSCAPES_IMAGE)

    def close(self) -> None:
        """Writes the JSON file, where the format has one.

        Raises:
            OutputError: If it cannot be written.
        """
        if self.json_path is None:
            return
        document = {"annotations": self._annotations}
        with atomic_write(self.json_path) as temporary:
            temporary.write_text(json.dumps(document), encoding="utf-8")

    def _step(self, name: str, panoptic: NDArray[np.integer]) -> NDArray[np.uint8]:
        semantic, instance = np.divmod(panoptic, self.info.label_divisor)
        if semantic.size and not (0 <= semantic.min() <= semantic.max() <= 255):
            raise DataError(f"{name}: a class is outside 0 to 255")
        if instance.size and instance.max() > 65535:
            raise DataError(
                f"{name}: instance id {instance.max()} does not fit 16 bits; number "
                "the instances from 1"
            )
        channels = semantic, instance // 256, instance % 256
        return np.stack(channels, axis=-1).astype(np.uint8)

    def _semantic(self, panoptic: NDArray[np.integer]) -> NDArray[np.uint8]:
        classes = panoptic // self.info.label_divisor
        is_void = classes == self.info.ignore_label
        found = classes[~is_void]
        if found.size and not 0 <= found.min() <= found.max() < self.info.num_classes:
            raise DataError(
                f"a class is {found.max()}; data set {self.info.name!r} has classes 0 "
                f"to {self.info.num_classes - 1}"
            )
        table = np.array(self._categories, np.uint8)
        known = table[np.where(is_void, 0, classes)]
        return np.where(is_void, np.uint8(_VOID_CATEGORY), known)

    def _segments(
        self, panoptic: NDArray[np.integer], scores: Mapping[int, float]
    ) -> tuple[NDArray[np.uint8], list[dict[str, Any]]]:
        ids, index = number_ids(panoptic)
        numbers = np.zeros(ids.size, np.int64)
        index = index.reshape(panoptic.shape)
        areas = np.bincount(index.reshape(-1), minlength=ids.size)
        boxes = _boxes(index, ids.size)
        segments: list[dict[str, Any]] = []
        for place, panoptic_id in enumerate(ids.tolist()):
            class_id = panoptic_id // self.info.label_divisor
            if class_id == self.info.ignore_label:
                continue
            if not 0 <= class_id < self.info.num_classes:
                raise DataError(
                    f"panoptic id {panoptic_id} has class {class_id}; data set "
                    f"{self.info.name!r} has classes 0 to {self.info.num_classes - 1}"
                )
            numbers[place] = len(segments) + 1
            segment: dict[str, Any] = {
                "id": len(segments) + 1,
                "category_id": int(self._categories[class_id]),
                "area": int(areas[place]),
                "bbox": boxes[place],
                "iscrowd": 0,
            }
            if panoptic_id in scores:
                segment["score"] = float(scores[panoptic_id])
            segments.append(segment)
        pixels = numbers[index]
        channels = pixels % 256, pixels // 256 % 256, pixels // 65536
        return np.stack(channels, axis=-1).astype(np.uint8), segments


def _boxes(index: NDArray[np.intp], count: int) -> list[list[int]]:
    """Gives left, top, width, height of every segment of a map of places."""
    height, width = index.shape
    edges = np.zeros((4, count), np.int64)
    edges[:2] = max(height, width)
    for row in range(height):
        present = np.unique(index[row])
        edges[0, present] = np.minimum(edges[0, present], row)
        edges[2, present] = row + 1
    for column in range(width):
        present = np.unique(index[:, column])
        edges[1, present] = np.minimum(edges[1, present], column)
        edges[3, present] = column + 1
    top, left, bottom, right = edges
    boxes: list[list[int]] = np.stack(
        (left, top, right - left, bottom - top), axis=1
    ).tolist()
    return boxes
