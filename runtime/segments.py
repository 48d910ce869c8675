"""The segments of a panoptic map: what they are, and how they are found."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.runtime.classes import Classes

# Up to this largest panoptic id a table finds the segment of a pixel: 16 MiB.
MAX_TABLE_ID = 1 << 22


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


def find_segments(
    panoptic: NDArray[np.int32],
    cut: NDArray[np.int32],
    scores: NDArray[np.float32],
    row_counts: NDArray[np.intp],
    column_counts: NDArray[np.intp],
    classes: Classes,
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
    boxes = np.stack([left, top, right, bottom], axis=1)
    return list_segments(panoptic, classes, ids, areas, boxes, mean_scores)


def list_segments(
    panoptic: NDArray[np.int32],
    classes: Classes,
    ids: NDArray[np.integer],
    areas: NDArray[Any],
    boxes: NDArray[np.integer],
    scores: NDArray[np.float64],
) -> tuple[Segment, ...]:
    """Makes the segments of a map of all that is known about each of its ids.

    Args:
        panoptic: `[H, W]`, of the image.
        classes: What the ids mean; void and classes that it does not know are left out.
        ids: `[S]`, ascending.
        areas: `[S]`, in pixels.
        boxes: `[S, 4]`: left, top, right, bottom.
        scores: `[S]`, of things; within 0 to 1 after rounding.
    """
    segments = []
    rows = zip(
        ids.tolist(), areas.tolist(), boxes.tolist(), scores.tolist(), strict=True
    )
    for panoptic_id, area, (left, top, right, bottom), score in rows:
        class_id = panoptic_id // classes.label_divisor
        if class_id == classes.ignore_label or class_id >= classes.num_classes:
            continue
        is_thing = class_id in classes.thing_ids
        segments.append(
            Segment(
                id=panoptic_id,
                class_id=class_id,
                class_name=classes.class_names[class_id],
                is_thing=is_thing,
                score=min(max(score, 0.0), 1.0) if is_thing else None,
                area_px=int(area),
                box_xyxy=(left, top, right, bottom),
                _panoptic=panoptic,
            )
        )
    return tuple(segments)


def _number_ids(
    cut: NDArray[np.int32],
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Gives the sorted ids of a map and the map with each id replaced by its place."""
    top = int(cut.max())
    if top > MAX_TABLE_ID:
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
