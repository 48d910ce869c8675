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
from deeplab2_edge.panoptic import PanopticMaps, resize_nearest
from deeplab2_edge.runtime.classes import Classes, ClassTable
from deeplab2_edge.runtime.draw import (
    DEPTH_RANGE,
    draw_depth,
    draw_instances,
    draw_overlay,
    paint_segments,
)
from deeplab2_edge.runtime.point_cloud import Camera, PointCloud, make_point_cloud
from deeplab2_edge.runtime.preprocess import Placement
from deeplab2_edge.runtime.segments import MAX_TABLE_ID, Segment, find_segments

POINT_COLORS = ("image", "panoptic")
# Classes that are nowhere: networks give their pixels some depth all the same.
_WITHOUT_DEPTH = ("sky",)


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
        depth: float32 `[H, W]`, meters, 0 where unknown; None without depth.

    Raises:
        DataError: If the maps do not have the size of the image.
    """

    image: NDArray[np.uint8]
    panoptic: NDArray[np.int32]
    semantic: NDArray[np.int32]
    segments: tuple[Segment, ...]
    metadata: Classes
    timings_ms: Mapping[str, float] = dataclasses.field(default_factory=dict)
    depth: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        maps: dict[str, NDArray[Any] | None] = {
            "panoptic": self.panoptic,
            "semantic": self.semantic,
            "depth": self.depth,
        }
        for name, array in maps.items():
            if array is None:
                continue
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
        if top <= MAX_TABLE_ID:
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

    def semantic_overlay(
        self, *, alpha: float = 0.5, labels: bool = True
    ) -> NDArray[np.uint8]:
        """Draws the classes over the image, without instances; as `overlay`."""
        classes = ClassTable.of(self.metadata, thing_ids=())
        panoptic = self.semantic * np.int32(classes.label_divisor)
        flat = result_from_maps(self.image, panoptic, classes)
        return flat.overlay(alpha=alpha, labels=labels)

    def instance_map(self, *, labels: bool = True) -> NDArray[np.uint8]:
        """Draws each instance in a color of its own over the darkened grey image.

        The color depends on the segment's id alone: where ids stay the same from frame
        to frame, colors do.

        Args:
            labels: Write the class and the number of each instance.

        Returns:
            uint8 `[H, W, 3]` RGB.
        """
        return draw_instances(
            self.image,
            self.segment_map,
            self.segments,
            label_divisor=self.metadata.label_divisor,
            labels=labels,
        )

    def depth_map(
        self, *, limits: tuple[float, float] = DEPTH_RANGE, labels: bool = True
    ) -> NDArray[np.uint8]:
        """Colors the depth; see `draw_depth`.

        Raises:
            UsageError: If there is no depth, or the limits make no sense.
        """
        return draw_depth(self._known_depth(), limits=limits, labels=labels)

    def point_cloud(
        self, camera: Camera | None = None, *, colors: str = "image"
    ) -> PointCloud:
        """Turns every pixel with a class and depth into a point; sky is left out.

        Args:
            camera: Of the image; by default one of 60 degrees from left to right.
            colors: `image`, or `panoptic`: the colors of the overlay.

        Raises:
            UsageError: If there is no depth, or the camera does not fit.
        """
        if colors not in POINT_COLORS:
            raise UsageError(
                f"colors is {colors!r}; expected {' or '.join(POINT_COLORS)}"
            )
        depth, painted = self._known_depth(), self.image
        if colors == "panoptic":
            painted = paint_segments(
                self.segment_map, self.segments, self.metadata.colors
            )
        has_place = [
            False,
            *(s.class_name not in _WITHOUT_DEPTH for s in self.segments),
        ]
        height, width = depth.shape
        return make_point_cloud(
            depth,
            painted,
            (camera or Camera()).at((height, width)),
            is_shown=np.take(np.array(has_place), self.segment_map),
        )

    def _known_depth(self) -> NDArray[np.float32]:
        if self.depth is None:
            raise UsageError(f"{self.metadata.name}: there is no depth to draw")
        return self.depth

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


def result_from_maps(
    image: NDArray[np.uint8],
    panoptic: NDArray[np.int32],
    classes: Classes,
    *,
    semantic: NDArray[np.int32] | None = None,
    scores: Mapping[int, float] | None = None,
    depth: NDArray[np.float32] | None = None,
    timings_ms: Mapping[str, float] | None = None,
) -> PanopticResult:
    """Makes a result of maps that have the size of the image.

    Args:
        image: uint8 `[H, W, 3]` RGB.
        panoptic: int32 `[H, W]`, by the label divisor of `classes`.
        classes: What the ids mean.
        semantic: int32 `[H, W]`; by default the classes of `panoptic`.
        scores: Of things, by panoptic id.
        depth: float32 `[H, W]` meters.
        timings_ms: See `PanopticResult`.

    Raises:
        DataError: If the maps do not have the size of the image.
    """
    if semantic is None:
        semantic = panoptic // np.int32(classes.label_divisor)
    height, width = panoptic.shape
    segments = find_segments(
        panoptic,
        panoptic,
        np.zeros(panoptic.shape, np.float32),
        np.ones(height, np.intp),
        np.ones(width, np.intp),
        classes,
    )
    known = scores or {}
    return PanopticResult(
        image=image,
        panoptic=panoptic,
        semantic=semantic,
        segments=tuple(
            dataclasses.replace(s, score=known.get(s.id) if s.is_thing else None)
            for s in segments
        ),
        metadata=classes,
        timings_ms=timings_ms or {},
        depth=depth,
    )


def build_result(
    image: NDArray[np.uint8],
    maps: PanopticMaps,
    placement: Placement,
    metadata: Classes,
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
        segments=find_segments(
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
