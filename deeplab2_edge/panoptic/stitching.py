"""ViP-DeepLab: two frames as one image, and clips from pairs of frames."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic.centers import find_centers
from deeplab2_edge.panoptic.grouping import nearest_center
from deeplab2_edge.panoptic.heads import (
    Heads,
    MergeSettings,
    PanopticMaps,
    merge_heads,
    offsets_at,
)
from deeplab2_edge.panoptic.instances import NUMPY_PASSES, MapPasses
from deeplab2_edge.panoptic.merging import (
    MergeSemantics,
    merge_semantic_and_instance,
)
from deeplab2_edge.panoptic.numbering import next_number
from deeplab2_edge.panoptic.resize import resize_bilinear, upsample_argmax


@dataclass(frozen=True, eq=False)
class TwoFrameMaps:
    """Holds the panoptic segmentation of a frame and of the one after it.

    Attributes:
        current: The frame. Its panoptic map was merged together with `concat_next`, so
            areas and majorities are those of both frames.
        concat_next: `[H, W]` int32, the next frame as the pair shows it: its instances
            are those of `current`, with the same ids.
        next_frame: The next frame alone, before stitching.
        next_panoptic: `[H, W]` int32, `next_frame.panoptic` with the ids of
            `concat_next` where they match.
    """

    current: PanopticMaps
    concat_next: NDArray[np.int32]
    next_frame: PanopticMaps
    next_panoptic: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class StitchedMaps:
    """Holds a frame whose instances have the ids of another view of it.

    Attributes:
        panoptic: `[H, W]` int32.
        matches: `[N, 2]` int32, panoptic id of the frame alone and the id it takes, in
            ascending order.
    """

    panoptic: NDArray[np.int32]
    matches: NDArray[np.int32]


def merge_two_frames(
    current: Heads,
    next_offset_map: NDArray[np.float32],
    next_frame: Heads,
    *,
    canvas: tuple[int, int],
    settings: MergeSettings,
    merge_semantics: MergeSemantics = "tf",
    id_offset: int | None = None,
    passes: MapPasses = NUMPY_PASSES,
) -> TwoFrameMaps:
    """Computes panoptic maps of two frames that share instance ids.

    Both frames are merged side by side as one image in which only the current frame
    has centers; pixels of the next frame vote for them by `next_offset_map`. Then the
    next frame is merged alone, and its instances take the ids of those they overlap
    in the first result.

    Args:
        current: Heads of the frame.
        next_offset_map: `[h, w, 2]`, (dy, dx) from pixels of the next frame to centers
            of the current one, in pixels of the heads.
        next_frame: Heads of the next frame, from a pass with the frames swapped.
        canvas: (H, W) of the network input.
        settings: How to merge.
        merge_semantics: Whose rules are followed where the published ones disagree;
            see `merge_semantic_and_instance`.
        id_offset: See `stitch`.
        passes: See `stitch`.

    Raises:
        UsageError: If shapes do not fit, or instances cannot be told apart by ids.

    References:
        Qiao et al., ViP-DeepLab, CVPR 2021, arXiv:2012.05258.
    """
    if next_offset_map.shape != current.offset_map.shape:
        raise UsageError(
            f"next_offset_map has shape {next_offset_map.shape}; expected "
            f"{current.offset_map.shape} as offset_map"
        )
    height, width = canvas
    semantic = np.concatenate(
        [upsample_argmax(h.semantic_logits, canvas) for h in (current, next_frame)],
        axis=1,
    )
    centers_yx, center_scores = find_centers(
        resize_bilinear(current.center_heatmap, canvas),
        threshold=settings.center_score_threshold,
        nms_kernel=settings.nms_kernel,
        keep_k=settings.keep_k_centers,
        merge_plateaus=settings.merge_plateaus,
    )
    instance = np.zeros(semantic.shape, np.int32)
    scores = np.append(np.float32(0), center_scores)
    if len(centers_yx):
        num_classes = max(
            current.semantic_logits.shape[-1], next_frame.semantic_logits.shape[-1]
        )
        is_thing = np.isin(np.arange(num_classes), settings.thing_ids)[semantic]
        halves = (current.offset_map, next_offset_map)
        for left, offset_map in zip((0, width), halves, strict=True):
            rows, columns = np.nonzero(is_thing[:, left : left + width])
            dy, dx = offsets_at(offset_map, canvas, rows * width + columns)
            # In the published order of float32 steps, so that votes have equal bits.
            votes_x = (columns + left).astype(np.float32) + (dx - np.float32(left))
            nearest = nearest_center(rows.astype(np.float32) + dy, votes_x, centers_yx)
            instance[rows, columns + left] = nearest + 1
    panoptic = merge_semantic_and_instance(
        semantic,
        instance,
        thing_ids=settings.thing_ids,
        label_divisor=settings.label_divisor,
        stuff_area_limit=settings.stuff_area_limit,
        void_label=settings.ignore_label,
        merge_semantics=merge_semantics,
    )
    alone = merge_heads(
        next_frame.semantic_logits,
        next_frame.center_heatmap,
        next_frame.offset_map,
        canvas=canvas,
        settings=settings,
        merge_semantics=merge_semantics,
    )
    concat_next = panoptic[:, width:].copy()
    return TwoFrameMaps(
        current=PanopticMaps(
            panoptic=panoptic[:, :width].copy(),
            semantic=semantic[:, :width].copy(),
            instance=instance[:, :width].copy(),
            instance_scores=scores[instance[:, :width]],
            centers_yx=centers_yx,
            center_scores=center_scores,
        ),
        concat_next=concat_next,
        next_frame=alone,
        next_panoptic=stitch(
            concat_next,
            alone.panoptic,
            label_divisor=settings.label_divisor,
            id_offset=id_offset,
            passes=passes,
        ).panoptic,
    )


def stitch(
    concat_next: NDArray[np.integer],
    next_panoptic: NDArray[np.integer],
    *,
    label_divisor: int,
    id_offset: int | None = None,
    passes: MapPasses = NUMPY_PASSES,
) -> StitchedMaps:
    """Gives the instances of a frame the ids of another view of the same frame.

    Two instances of one class match if each is the other's best overlap (intersection
    over union). There is no least overlap: as published, two instances that nothing
    else of their class overlaps match even if they are apart.

    Instances without a match move up by `id_offset`. Should the id be taken by
    `concat_next`, as can happen when that is large, they get the next free one instead;
    the published system would merge both instances.

    Args:
        concat_next: `[H, W]` panoptic ids to take.
        next_panoptic: `[H, W]` panoptic ids of the same frame, to be replaced.
        label_divisor: The divisor the ids were made with.
        id_offset: Half of the divisor if None.
        passes: What passes over the maps.

    Raises:
        UsageError: If the shapes differ or ids do not fit below the divisor.
    """
    if concat_next.shape != next_panoptic.shape or concat_next.ndim != 2:
        raise UsageError(
            f"concat_next has shape {concat_next.shape}, next_panoptic "
            f"{next_panoptic.shape}; expected the same [H, W]"
        )
    offset = label_divisor // 2 if id_offset is None else id_offset
    concat_ids, next_ids, overlap = passes.overlaps(
        concat_next, next_panoptic, label_divisor=label_divisor
    )
    highest = int(np.max(next_ids % label_divisor, initial=0)) + offset
    if next_ids.size and highest >= label_divisor:
        raise UsageError(
            f"next_panoptic: the largest instance id, moved by {offset}, is {highest}; "
            f"it must stay below label_divisor {label_divisor}; use a larger one"
        )
    matches = _mutual_best(concat_ids, next_ids, overlap, label_divisor)
    alone = np.setdiff1d(next_ids, matches[:, 0])
    moved = _free_ids(alone + offset, taken=concat_ids, label_divisor=label_divisor)
    return StitchedMaps(
        panoptic=passes.rename(
            next_panoptic,
            np.concatenate([alone, matches[:, 0]]),
            np.concatenate([moved, matches[:, 1]]),
            label_divisor=label_divisor,
            new_divisor=label_divisor,
        ),
        matches=matches,
    )


class VideoStitcher:
    """Chains pairs of frames into a video whose instances keep their ids.

    Pair `t` shows frame `t` and, with the same ids, frame `t + 1`. The instances of
    pair `t + 1` take the ids of those that they match in the last pair's view of their
    frame. All others are new and get the next number of their class, which is never
    used again.

    Matches here must overlap; see `stitch` for the published rule.

    Args:
        label_divisor: Of the panoptic maps that come in.
        track_divisor: Of the panoptic maps that go out; `label_divisor` if None. Long
            videos need a large one.
        reuses_ids: Start again at 1 when a class has no number left, without those of
            the frame. Else that is an error.
        passes: What passes over the maps.

    Example:
        >>> stitcher = VideoStitcher(1000)
        >>> pairs = np.array([[[[11001, 11002]], [[11001, 11001]]],
        ...                   [[[11007, 11007]], [[0, 0]]]])
        >>> [stitcher.update(*pair).tolist() for pair in pairs]
        [[[11001, 11002]], [[11001, 11001]]]

    References:
        Qiao et al., ViP-DeepLab, CVPR 2021, arXiv:2012.05258.
    """

    def __init__(
        self,
        label_divisor: int,
        *,
        track_divisor: int | None = None,
        reuses_ids: bool = False,
        passes: MapPasses = NUMPY_PASSES,
    ) -> None:
        self.label_divisor = label_divisor
        self._reuses_ids = reuses_ids
        self.track_divisor = track_divisor or label_divisor
        self._passes = passes
        self.reset()

    def reset(self) -> None:
        """Forgets the last pair; ids start again at 1."""
        self._expected: NDArray[np.int32] | None = None
        self._last_number: dict[int, int] = {}

    def update(
        self,
        panoptic: NDArray[np.integer],
        concat_next: NDArray[np.integer] | None = None,
    ) -> NDArray[np.int32]:
        """Takes the next pair.

        Args:
            panoptic: `[H, W]` ids of the frame.
            concat_next: `[H, W]` ids of the next frame, by the same instances; None
                if there is no next frame, after which all instances are new.

        Returns:
            `[H, W]` int32 ids of the frame, with `track_divisor`.

        Raises:
            UsageError: If shapes do not fit, or a class has no number left.
        """
        for name, array in (("concat_next", concat_next), ("the last", self._expected)):
            if array is not None and array.shape != panoptic.shape:
                raise UsageError(
                    f"panoptic has shape {panoptic.shape}, {name} frame {array.shape}; "
                    "expected the same; reset before a video of another size"
                )
        old_ids = self._ids(panoptic)
        new_ids = np.zeros(len(old_ids), np.int32)
        if self._expected is not None:
            none = np.zeros(0, np.int32)
            current = self._rename(panoptic, none, none)
            expected_ids, current_ids, overlap = self._passes.overlaps(
                self._expected, current, label_divisor=self.track_divisor
            )
            matches = _mutual_best(
                expected_ids, current_ids, overlap, self.track_divisor, apart=False
            )
            new_ids[np.searchsorted(current_ids, matches[:, 0])] = matches[:, 1]
        new_ids = self._number(old_ids, new_ids)
        if concat_next is None:
            self._expected = None
        else:
            # An instance may show in the next frame only.
            ids = np.union1d(old_ids, self._ids(concat_next))
            known = np.zeros(len(ids), np.int32)
            known[np.searchsorted(ids, old_ids)] = new_ids
            self._expected = self._rename(concat_next, ids, self._number(ids, known))
        return self._rename(panoptic, old_ids, new_ids)

    def _number(
        self, old_ids: NDArray[np.int32], new_ids: NDArray[np.int32]
    ) -> NDArray[np.int32]:
        """Gives an id to each instance that has none, which is 0."""
        result = new_ids.copy()
        for index in np.flatnonzero(new_ids == 0):
            class_id = int(old_ids[index]) // self.label_divisor
            last = self._last_number.get(class_id, 0)
            largest = self.track_divisor - 1
            number: int | None = last + 1 if last < largest else None
            if self._reuses_ids:
                used = result[result // self.track_divisor == class_id]
                taken = set((used % self.track_divisor).tolist())
                number = next_number(last, largest, taken)
            if number is None:
                raise UsageError(
                    f"class {class_id}: instance {last + 1} does not fit below the "
                    f"divisor {self.track_divisor}; set a larger track_divisor, or "
                    "reset between scenes"
                )
            self._last_number[class_id] = number
            result[index] = class_id * self.track_divisor + number
        return result

    def _ids(self, panoptic: NDArray[np.integer]) -> NDArray[np.int32]:
        return self._passes.instance_ids(panoptic, label_divisor=self.label_divisor)

    def _rename(
        self,
        panoptic: NDArray[np.integer],
        old_ids: NDArray[np.int32],
        new_ids: NDArray[np.int32],
    ) -> NDArray[np.int32]:
        return self._passes.rename(
            panoptic,
            old_ids,
            new_ids,
            label_divisor=self.label_divisor,
            new_divisor=self.track_divisor,
        )


def _mutual_best(
    concat_ids: NDArray[np.int32],
    next_ids: NDArray[np.int32],
    overlap: NDArray[np.float64],
    label_divisor: int,
    *,
    apart: bool = True,
) -> NDArray[np.int32]:
    """Pairs the instances of a class that are each other's best overlap.

    Of equal overlaps the last counts, in ascending order of ids.

    Args:
        concat_ids: `[N]` ascending.
        next_ids: `[M]` ascending.
        overlap: `[N, M]`.
        label_divisor: The divisor the ids were made with.
        apart: Whether instances may match that do not overlap.

    Returns:
        `[K, 2]` (next id, concat id), ascending.
    """
    same_class = concat_ids[:, None] // label_divisor == next_ids // label_divisor
    score = np.where(same_class & (apart | (overlap > 0)), overlap, -1)
    if not score.size:
        return np.zeros((0, 2), np.int32)
    # argmax finds the first, hence from the end.
    best_next = score.shape[1] - 1 - score[:, ::-1].argmax(axis=1)
    best_concat = score.shape[0] - 1 - score[::-1].argmax(axis=0)
    columns = np.arange(score.shape[1])
    is_pair = (best_next[best_concat] == columns) & (score[best_concat, columns] >= 0)
    return np.stack([next_ids[is_pair], concat_ids[best_concat[is_pair]]], axis=-1)


def _free_ids(
    wanted: NDArray[np.int32], *, taken: NDArray[np.int32], label_divisor: int
) -> NDArray[np.int32]:
    """Replaces wanted ids that are taken by the next free ones of their class."""
    used = {*taken.tolist(), *wanted.tolist()}
    result = wanted.copy()
    for index in np.flatnonzero(np.isin(wanted, taken)):
        candidate = int(wanted[index])
        class_end = (candidate // label_divisor + 1) * label_divisor
        while candidate in used:
            candidate += 1
        if candidate >= class_end:
            raise UsageError(
                f"no instance id is free below label_divisor {label_divisor} for "
                f"class {class_end // label_divisor - 1}; use a larger one"
            )
        used.add(candidate)
        result[index] = candidate
    return result
