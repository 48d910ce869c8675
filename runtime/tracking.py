"""Keeps the ids of instances over the frames of a video, for models of one image."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic import (
    Instances,
    MaskTracker,
    MaskTrackingSettings,
    change_divisor,
    relabel,
)
from deeplab2_edge.runtime.classes import Classes, ClassTable
from deeplab2_edge.runtime.optical_flow import FLOW_SIDE, FlowEstimator
from deeplab2_edge.runtime.results import PanopticResult
from deeplab2_edge.runtime.scene_cuts import is_cut
from deeplab2_edge.runtime.segments import MAX_TABLE_ID, Segment
from deeplab2_edge.runtime.timing import StageTimer


@dataclasses.dataclass(frozen=True)
class TrackingOptions:
    """Says how the instances of a video are followed.

    Attributes:
        settings: What counts as the same instance. Numbers stay below 10,000 so that
            the ids of videos are those that Motion-DeepLab and ViP-DeepLab give.
        uses_flow: Let masks move along the optical flow of the pictures.
        finds_cuts: Forget what was followed where the video cuts to another scene.
    """

    settings: MaskTrackingSettings = MaskTrackingSettings()
    uses_flow: bool = True
    finds_cuts: bool = True


class ResultTracker:
    """Gives the instances of results ids that stay the same over a video.

    Args:
        classes: Of the model.
        options: By default the best that was measured.

    Raises:
        UsageError: If panoptic ids would be too large.

    References:
        `panoptic.MaskTracker`: how instances are paired.
    """

    def __init__(
        self, classes: Classes, options: TrackingOptions | None = None
    ) -> None:
        self._options = options = options or TrackingOptions()
        self._divisor = max(options.settings.max_number + 1, classes.label_divisor)
        highest = max(classes.num_classes - 1, classes.ignore_label)
        if (highest + 1) * self._divisor > np.iinfo(np.int32).max:
            raise UsageError(
                f"MaskTrackingSettings.max_number is {options.settings.max_number}; "
                f"ids of class {highest} would not fit into 32 bits: at most "
                f"{np.iinfo(np.int32).max // (highest + 1) - 1} do"
            )
        self._classes = ClassTable.of(classes, label_divisor=self._divisor)
        self._old_divisor = classes.label_divisor
        self._tracker = MaskTracker(options.settings)
        self._estimate = FlowEstimator()
        # What becomes of an id that is no instance.
        self._table = np.zeros(0, np.int32)

    def begin_video(self) -> None:
        """Forgets all instances; ids start again."""
        self._tracker.reset()
        self._estimate.reset()

    def __call__(self, result: PanopticResult) -> PanopticResult:
        """Takes the next frame of the video.

        Raises:
            UsageError: If the frame has another size than those before it, or more
                instances than there are ids.
        """
        timer = StageTimer()
        with timer.stage("track"):
            result = self._renumbered(result, self._follow(result))
        timings = {**result.timings_ms, **timer.milliseconds}
        return dataclasses.replace(result, timings_ms=timings)

    def _follow(self, result: PanopticResult) -> dict[int, int]:
        """Gives the new id of each instance."""
        motion = flow = None
        if self._options.uses_flow or self._options.finds_cuts:
            motion = self._estimate(result.image)
        if motion is not None:
            if self._options.finds_cuts and is_cut(motion):
                self._tracker.forget()
            flow = motion.flow if self._options.uses_flow else None
        things = [s for s in result.segments if s.is_thing and s.id % self._old_divisor]
        numbers = self._tracker.update(_instances(result.panoptic, things), flow)
        return {
            thing.id: thing.class_id * self._divisor + number
            for thing, number in zip(things, numbers.tolist(), strict=True)
        }

    def _renumbered(
        self, result: PanopticResult, new_ids: dict[int, int]
    ) -> PanopticResult:
        panoptic = self._new_map(result.panoptic, new_ids)
        segments = [
            dataclasses.replace(
                segment,
                id=new_ids.get(segment.id, segment.class_id * self._divisor),
                _panoptic=panoptic,
            )
            for segment in result.segments
        ]
        return dataclasses.replace(
            result,
            panoptic=panoptic,
            segments=tuple(sorted(segments, key=lambda segment: segment.id)),
            metadata=self._classes,
        )

    def _new_map(
        self, panoptic: NDArray[np.int32], new_ids: dict[int, int]
    ) -> NDArray[np.int32]:
        old = np.array([*new_ids], np.int32)
        new = np.array([*new_ids.values()], np.int32)
        divisors = {"label_divisor": self._old_divisor, "new_divisor": self._divisor}
        top = int(panoptic.max(initial=0))
        if top > MAX_TABLE_ID:
            return relabel(
                change_divisor(panoptic, **divisors),
                change_divisor(old, **divisors),
                new,
            )
        if top >= len(self._table):
            self._table = change_divisor(np.arange(top + 1), **divisors)
        table = self._table.copy()
        table[old] = new
        return np.take(table, panoptic)


def _instances(panoptic: NDArray[np.int32], things: list[Segment]) -> Instances:
    """Describes the instances by every n-th pixel of rows and columns."""
    step = -(-max(panoptic.shape) // FLOW_SIDE)
    coarse = panoptic[::step, ::step]
    table = np.zeros(max((thing.id for thing in things), default=0) + 2, np.int16)
    table[[thing.id for thing in things]] = np.arange(1, len(things) + 1)
    boxes = np.array([thing.box_xyxy for thing in things], float).reshape(-1, 4)
    areas = np.array([thing.area_px for thing in things], float)
    return Instances(
        masks=np.take(table, np.minimum(coarse, len(table) - 1)),
        classes=np.array([thing.class_id for thing in things], np.int64),
        centers_yx=(boxes[:, [1, 0]] + boxes[:, [3, 2]]) / (2 * step),
        areas_px=areas / step**2,
    )
