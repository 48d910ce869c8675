"""What a prediction gives: one frozen result with maps and segments."""

import dataclasses
import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.files import atomic_write, ensure_output_dir
from deeplab2_edge.images import write_png
from deeplab2_edge.model_file import ModelMetadata
from deeplab2_edge.panoptic import PanopticMaps, resize_nearest
from deeplab2_edge.runtime.draw import draw_overlay
from deeplab2_edge.runtime.preprocess import Placement

# Up to this largest panoptic id a table finds the segment of a pixel: 16 MiB.
_MAX_TABLE_ID = 1 << 22


@dataclasses.dataclass(frozen=True, eq=False)
class Segment:
    """Is one thing, or all pixels of one stuff class.

    Attributes:
        id: Panoptic id, `class_id * label_divisor + number`.
        class_id: Index of the class.
        class_name: Its name.
        is_thing: Whether the class has instances.
        score: Things: how sure the network is of the instance's center, 0 to 1
            (mean over the pixels of the score of the center they belong to). Stuff:
            None, since the network gives no confidence that could be compared.
        area_px: Number of pixels in the original image.
        box_xyxy: Left, top, right, bottom in pixels of the original image; right and
            bottom lie just outside, so `image[top:bottom, left:right]` is the box.
    """

    id: int
    class_id: int
    class_name: str
    is_thing: bool
    score: float | None
    area_px: int
    box_xyxy: tuple[int, int, int, int]
    _panoptic: NDArray[np.int32] = dataclasses.field(repr=False)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """`[H, W]`, True on the pixels of the segment; computed on each access."""
        return np.equal(self._panoptic, self.id)

    def to_dict(self) -> dict[str, Any]:
        """Gives everything but the mask, ready for JSON."""
        return {
            "id": self.id,
            "class_id": self.class_id,
            "class_name": self.class_name,
            "is_thing": self.is_thing,
            "score": self.score,
            "area_px": self.area_px,
            "box_xyxy": list(self.box_xyxy),
        }


@dataclasses.dataclass(frozen=True, eq=False)
class PanopticResult:
    """Holds the panoptic segmentation of one image, at the image's own size.

    Attributes:
        image: uint8 `[H, W, 3]` RGB, the image itself (not a copy).
        panoptic: int32 `[H, W]`, `class_id * label_divisor + number`; read-only.
        semantic: int32 `[H, W]`, class ids before merging, never void; read-only.
        segments: In ascending order of id, without void.
        metadata: Of the model: class names, colors, label divisor.
        timings_ms: Milliseconds per stage (`decode` only if a file was read).

    Raises:
        DataError: If the maps do not have the size of the image.
    """

    image: NDArray[np.uint8]
    panoptic: NDArray[np.int32]
    semantic: NDArray[np.int32]
    segments: tuple[Segment, ...]
    metadata: ModelMetadata
    timings_ms: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, array in (("panoptic", self.panoptic), ("semantic", self.semantic)):
            if array.shape != self.image.shape[:2]:
                raise DataError(
                    f"{name} has shape {list(array.shape)}; the image has "
                    f"{list(self.image.shape[:2])}"
                )
            array.setflags(write=False)

    def __repr__(self) -> str:
        height, width = self.panoptic.shape
        names = ", ".join(segment.class_name for segment in self.segments)
        return f"PanopticResult({height}x{width}: {names or 'no segments'})"

    @functools.cached_property
    def segment_map(self) -> NDArray[np.uint16]:
        """`[H, W]`: `n + 1` on the pixels of `segments[n]`, 0 on void."""
        ids = np.array([segment.id for segment in self.segments], np.int64)
        top = int(self.panoptic.max(initial=0))
        if top <= _MAX_TABLE_ID:
            table = np.zeros(top + 1, np.uint16)
            table[ids] = np.arange(1, len(ids) + 1)
            return np.take(table, self.panoptic)
        if not len(ids):
            return np.zeros(self.panoptic.shape, np.uint16)
        place = np.minimum(np.searchsorted(ids, self.panoptic), len(ids) - 1)
        return np.where(ids[place] == self.panoptic, place + 1, 0).astype(np.uint16)

    def overlay(self, *, alpha: float = 0.5, labels: bool = True) -> NDArray[np.uint8]:
        """Draws the segments over the image.

        Args:
            alpha: 0 shows the image alone, 1 the colors alone.
            labels: Write names on things and a legend of the classes.

        Returns:
            uint8 `[H, W, 3]` RGB, a new array; wider than the image where a legend
            stands beside it, see `draw_overlay`.

        Raises:
            UsageError: If `alpha` is not within 0 to 1.
        """
        if not 0.0 <= alpha <= 1.0:
            raise UsageError(f"alpha is {alpha}; it must be 0 to 1")
        return draw_overlay(
            self.image,
            self.segment_map,
            self.segments,
            self.metadata.colors,
            alpha=alpha,
            labels=labels,
        )

    def to_coco(
        self,
        image_id: int | str,
        *,
        file_name: str | None = None,
        category_ids: Sequence[int] | None = None,
    ) -> tuple[dict[str, Any], NDArray[np.uint8]]:
        """Gives the result in the COCO panoptic format.

        Args:
            image_id: Of the image in the data set.
            file_name: Of the PNG; default: `<image_id>.png`.
            category_ids: Category id of each class; default: class id + 1, since
                COCO does not use 0.

        Returns:
            The annotation, and uint8 `[H, W, 3]` to be saved as an RGB PNG: a pixel
            belongs to the segment with id `R + 256 * G + 65536 * B`, 0 is void. The
            segment ids are 1, 2, ... in the order of `segments`.

        Raises:
            UsageError: If `category_ids` has not one entry per class.
        """
        count = self.metadata.num_classes
        if category_ids is None:
            category_ids = range(1, count + 1)
        if len(category_ids) != count:
            raise UsageError(
                f"category_ids has {len(category_ids)} entries; the model has {count} "
                "classes"
            )
        infos = []
        for number, segment in enumerate(self.segments, start=1):
            left, top, right, bottom = segment.box_xyxy
            info: dict[str, Any] = {
                "id": number,
                "category_id": int(category_ids[segment.class_id]),
                "area": segment.area_px,
                "bbox": [left, top, right - left, bottom - top],
                "iscrowd": 0,
            }
            if segment.score is not None:
                info["score"] = segment.score
            infos.append(info)
        annotation = {
            "image_id": image_id,
            "file_name": file_name or f"{image_id}.png",
            "segments_info": infos,
        }
        png = np.zeros((*self.panoptic.shape, 3), np.uint8)
        png[..., 0] = self.segment_map & 0xFF
        png[..., 1] = self.segment_map >> 8
        return annotation, png

    def to_dict(self) -> dict[str, Any]:
        """Gives everything but the maps, ready for JSON."""
        return {
            "model": self.metadata.name,
            "image_size": list(self.panoptic.shape),
            "label_divisor": self.metadata.label_divisor,
            "segments": [segment.to_dict() for segment in self.segments],
            "timings_ms": {k: round(v, 3) for k, v in self.timings_ms.items()},
        }

    def save(
        self,
        directory: str | os.PathLike[str],
        stem: str,
        *,
        overlay: NDArray[np.uint8] | bool = True,
    ) -> dict[str, Path]:
        """Writes the result as files, each whole or not at all, the JSON last.

        Args:
            directory: Made if it is missing.
            stem: Start of the file names.
            overlay: False writes none; an array is written instead of a new drawing.

        Returns:
            Paths by kind: `overlay` (`<stem>_overlay.png`), `panoptic`
            (`<stem>_panoptic.png`, COCO panoptic format) and `json` (`<stem>.json`:
            segments and the COCO annotation).

        Raises:
            OutputError: If a file cannot be written.
        """
        folder = ensure_output_dir(directory)
        paths = {"panoptic": folder / f"{stem}_panoptic.png"}
        if overlay is True:
            overlay = self.overlay()
        if isinstance(overlay, np.ndarray):
            paths["overlay"] = folder / f"{stem}_overlay.png"
            write_png(paths["overlay"], overlay)
        annotation, png = self.to_coco(stem, file_name=paths["panoptic"].name)
        write_png(paths["panoptic"], png)
        paths["json"] = folder / f"{stem}.json"
        document = {**self.to_dict(), "coco": annotation}
        with atomic_write(paths["json"]) as temporary:
            temporary.write_text(json.dumps(document, indent=1), encoding="utf-8")
        return paths


def build_result(
    image: NDArray[np.uint8],
    maps: PanopticMaps,
    placement: Placement,
    metadata: ModelMetadata,
) -> PanopticResult:
    """Brings the maps of a canvas back to the original image and lists its segments.

    Args:
        image: uint8 `[H, W, 3]`, the original.
        maps: Of the whole canvas.
        placement: Where the image lies on the canvas.
        metadata: Of the model.
    """
    height, width = placement.resized_size
    cut = maps.panoptic[:height, :width]
    rows = _nearest_positions(height, placement.image_size[0])
    columns = _nearest_positions(width, placement.image_size[1])
    panoptic = _gather(cut, rows, columns)
    return PanopticResult(
        image=image,
        panoptic=panoptic,
        semantic=_gather(maps.semantic[:height, :width], rows, columns),
        segments=_find_segments(
            panoptic,
            cut,
            maps.instance_scores[:height, :width],
            np.bincount(rows, minlength=height),
            np.bincount(columns, minlength=width),
            metadata,
        ),
        metadata=metadata,
    )


def _nearest_positions(n_in: int, n_out: int) -> NDArray[np.intp]:
    """Gives the canvas row (or column) that each row of the image reads."""
    return resize_nearest(np.arange(n_in)[:, None], (n_out, 1))[:, 0].astype(np.intp)


def _gather(
    cut: NDArray[np.int32], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> NDArray[np.int32]:
    if cut.shape == (len(rows), len(columns)):  # nearest of the same size: identity
        return np.ascontiguousarray(cut, np.int32)
    # Columns first: the second, larger step then copies whole rows.
    return np.take(np.take(cut, columns, axis=1), rows, axis=0)


def _find_segments(
    panoptic: NDArray[np.int32],
    cut: NDArray[np.int32],
    scores: NDArray[np.float32],
    row_counts: NDArray[np.intp],
    column_counts: NDArray[np.intp],
    metadata: ModelMetadata,
) -> tuple[Segment, ...]:
    """Lists the segments of the original image by looking at the canvas only.

    The original repeats canvas rows and columns (or drops some), so its areas and
    boxes follow exactly from the canvas and how often each row and column is used.
    """
    has_row, has_column = row_counts > 0, column_counts > 0
    if not (has_row.all() and has_column.all()):
        used = np.ix_(has_row, has_column)
        cut, scores = cut[used], scores[used]
        row_counts, column_counts = row_counts[has_row], column_counts[has_column]
    ids, index = _number_ids(cut)
    weights = np.outer(row_counts, column_counts).ravel()
    flat = index.ravel()
    areas = np.bincount(flat, weights)
    mean_scores = np.bincount(flat, weights * scores.ravel()) / areas
    row_edges = np.concatenate(([0], np.cumsum(row_counts)))
    column_edges = np.concatenate(([0], np.cumsum(column_counts)))
    top, bottom = _extent(index, 0, len(ids), row_edges)
    left, right = _extent(index, 1, len(ids), column_edges)
    segments = []
    for place, panoptic_id in enumerate(ids.tolist()):
        class_id = panoptic_id // metadata.label_divisor
        if class_id == metadata.ignore_label or class_id >= metadata.num_classes:
            continue
        is_thing = class_id in metadata.thing_ids
        score = min(max(float(mean_scores[place]), 0.0), 1.0)
        segments.append(
            Segment(
                id=panoptic_id,
                class_id=class_id,
                class_name=metadata.class_names[class_id],
                is_thing=is_thing,
                score=score if is_thing else None,
                area_px=int(areas[place]),
                box_xyxy=(
                    int(left[place]),
                    int(top[place]),
                    int(right[place]),
                    int(bottom[place]),
                ),
                _panoptic=panoptic,
            )
        )
    return tuple(segments)


def _number_ids(
    cut: NDArray[np.int32],
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Gives the sorted ids of a map and the map with each id replaced by its place."""
    top = int(cut.max())
    if top > _MAX_TABLE_ID:
        unique, inverse = np.unique(cut, return_inverse=True)
        return unique.astype(np.intp), inverse.reshape(cut.shape)
    ids = np.flatnonzero(np.bincount(cut.ravel(), minlength=top + 1))
    table = np.zeros(top + 1, np.intp)
    table[ids] = np.arange(len(ids))
    return ids, np.take(table, cut)


def _extent(
    index: NDArray[np.intp], axis: int, count: int, edges: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Gives first and last edge of each numbered segment along one axis."""
    length = index.shape[axis]
    is_there = np.zeros((count, length), np.bool_)
    place = np.arange(length)[:, None] if axis == 0 else np.arange(length)[None]
    is_there[index, place] = True
    first = np.argmax(is_there, axis=1)
    last = length - np.argmax(is_there[:, ::-1], axis=1)
    return edges[first], edges[last]
