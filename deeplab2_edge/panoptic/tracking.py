"""Stable ids for any single-frame panoptic model, by the overlap of masks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic.assignment import assign
from deeplab2_edge.panoptic.encoding import decode_panoptic, encode_panoptic


@dataclass(frozen=True)
class IouTrackingSettings:
    """Says how masks are tracked from frame to frame.

    Attributes:
        thing_ids: Classes to track, in the order in which they number new tracks.
        label_divisor: Of the panoptic maps that come in.
        iou_threshold: Masks of at most this overlap are different instances.
        max_missed_frames: A track is forgotten when missed in more frames in a row.
        track_divisor: Of the panoptic maps that go out. Track ids are never used
            twice, so long videos need a large one.

    Raises:
        UsageError: On creation, if a value is out of range.
    """

    thing_ids: tuple[int, ...]
    label_divisor: int
    iou_threshold: float = 0.3
    max_missed_frames: int = 10
    track_divisor: int = 10_000

    def __post_init__(self) -> None:
        object.__setattr__(self, "thing_ids", tuple(int(c) for c in self.thing_ids))
        for name, smallest in (
            ("label_divisor", 2),
            ("iou_threshold", 0),
            ("max_missed_frames", 0),
            ("track_divisor", 2),
        ):
            if not getattr(self, name) >= smallest:
                raise UsageError(
                    f"IouTrackingSettings.{name} is {getattr(self, name)}; "
                    f"it must be at least {smallest}"
                )


@dataclass(frozen=True, eq=False)
class TrackedMaps:
    """Holds one tracked frame.

    Attributes:
        panoptic: `[H, W]` int32, `class * track_divisor + track id` on tracked
            instances, `class * track_divisor` elsewhere: stuff, crowd, void and things
            that are not tracked.
        track_ids: `[N]` int32 panoptic ids of the instances of this frame, class by
            class in the order of the settings, in ascending order of the ids that
            came in.
        is_new: `[N]` bool, whether a track begins here.
    """

    panoptic: NDArray[np.int32]
    track_ids: NDArray[np.int32]
    is_new: NDArray[np.bool_]


@dataclass(eq=False)
class _Track:
    """Remembers where an instance was last seen."""

    track_id: int
    pixels: NDArray[np.int32]
    missed_frames: int = 0


@dataclass(frozen=True, eq=False)
class _Instances:
    """Holds the instances of one class: their pixels, and where these would have been.

    `warped_pixels` and `warped_instance` list the pixels of the masks as the last frame
    shows them, and the index of the instance of each.
    """

    pixels: list[NDArray[np.int32]]
    warped_pixels: NDArray[np.intp]
    warped_instance: NDArray[np.intp]


_NONE = _Instances([], np.zeros(0, np.intp), np.zeros(0, np.intp))


class IouTracker:
    """Gives instances ids that stay the same over the frames of a video.

    Per class, instances and tracks are paired so that the sum of their overlaps is
    the largest; a track is where its instance was last seen. With optical flow the
    instances are first moved back to where they were.

    One tracker follows one video; call `reset` before the next. Memory is linear in
    the pixels of all tracks.

    Example:
        >>> tracker = IouTracker(IouTrackingSettings((1,), 1000, track_divisor=1000))
        >>> frames = np.array([[[1004, 1004, 0, 1009]], [[1001, 1001, 1001, 1002]]])
        >>> [tracker.update(frame).panoptic.tolist() for frame in frames]
        [[[1001, 1001, 0, 1002]], [[1001, 1001, 1001, 1002]]]

    References:
        Weber et al., STEP, NeurIPS 2021, arXiv:2102.11859: the IoU tracker.
    """

    def __init__(self, settings: IouTrackingSettings) -> None:
        self.settings = settings
        self.reset()

    def reset(self) -> None:
        """Forgets all tracks; ids start again at 1."""
        self._tracks: dict[int, list[_Track]] = {c: [] for c in self.settings.thing_ids}
        self._next_id = 1
        self._size: tuple[int, ...] | None = None

    @property
    def next_id(self) -> int:
        """Id of the next track, counted over all classes."""
        return self._next_id

    def update(
        self,
        panoptic: NDArray[np.integer],
        *,
        flow: NDArray[np.float32] | None = None,
        is_occluded: NDArray[np.bool_] | None = None,
    ) -> TrackedMaps:
        """Tracks the instances of the next frame.

        Args:
            panoptic: `[H, W]` ids of the frame, with `label_divisor`.
            flow: `[H, W, 2]`, (x, y) from each pixel of the last frame to where it
                is in this one; None for no motion.
            is_occluded: `[H, W]`, True where a pixel of the last frame is hidden in
                this one.

        Raises:
            UsageError: If shapes do not fit, or there is no id left below
                `track_divisor`.
        """
        self._check(panoptic, flow, is_occluded)
        settings = self.settings
        semantic, instance = decode_panoptic(
            panoptic, label_divisor=settings.label_divisor
        )
        present = np.unique(semantic[instance > 0])
        track_id_map = np.zeros(panoptic.shape, np.int32)
        track_ids, is_new = [], []
        for class_id in settings.thing_ids:
            instances = _NONE
            if class_id in present:
                instances = _find_instances(
                    np.where(semantic == class_id, instance, 0), flow, is_occluded
                )
            before = self._next_id
            for pixels, track_id in zip(
                instances.pixels, self._track_class(class_id, instances), strict=True
            ):
                track_id_map.reshape(-1)[pixels] = track_id
                track_ids.append(class_id * settings.track_divisor + track_id)
                is_new.append(track_id >= before)
        self._size = panoptic.shape
        return TrackedMaps(
            panoptic=encode_panoptic(
                semantic, track_id_map, label_divisor=settings.track_divisor
            ),
            track_ids=np.array(track_ids, np.int32),
            is_new=np.array(is_new, np.bool_),
        )

    def _track_class(self, class_id: int, instances: _Instances) -> list[int]:
        """Gives the track ids of the instances of a class and updates its tracks."""
        tracks = self._tracks[class_id]
        iou = _overlaps(instances, [track.pixels for track in tracks])
        rows, columns = assign(-iou)
        is_match = iou[rows, columns] > self.settings.iou_threshold
        track_of = {
            int(row): tracks[column]
            for row, column in zip(rows[is_match], columns[is_match], strict=True)
        }
        for track in tracks:
            track.missed_frames += 1
        # As published: who has no pair is numbered before those with a pair too far.
        no_pair = np.setdiff1d(np.arange(len(instances.pixels)), rows)
        for index in [*no_pair, *rows[~is_match]]:
            track_of[int(index)] = _Track(self._take_id(), instances.pixels[index])
            tracks.append(track_of[int(index)])
        for index, pixels in enumerate(instances.pixels):
            track_of[index].pixels = pixels
            track_of[index].missed_frames = 0
        self._tracks[class_id] = [
            t for t in tracks if t.missed_frames <= self.settings.max_missed_frames
        ]
        return [track_of[index].track_id for index in range(len(track_of))]

    def _take_id(self) -> int:
        if self._next_id >= self.settings.track_divisor:
            raise UsageError(
                f"track id {self._next_id} does not fit below track_divisor "
                f"{self.settings.track_divisor}; reset the tracker between videos, or "
                "set a larger IouTrackingSettings.track_divisor"
            )
        self._next_id += 1
        return self._next_id - 1

    def _check(
        self,
        panoptic: NDArray[np.integer],
        flow: NDArray[np.float32] | None,
        is_occluded: NDArray[np.bool_] | None,
    ) -> None:
        if panoptic.ndim != 2 or self._size not in (None, panoptic.shape):
            raise UsageError(
                f"panoptic has shape {panoptic.shape}; expected "
                f"{self._size or '[H, W]'}; reset the tracker before a video of "
                "another size"
            )
        for name, array, expected in (
            ("flow", flow, (*panoptic.shape, 2)),
            ("is_occluded", is_occluded, panoptic.shape),
        ):
            if array is not None and array.shape != expected:
                raise UsageError(f"{name} has shape {array.shape}; expected {expected}")


def _find_instances(
    instance: NDArray[np.int32],
    flow: NDArray[np.float32] | None,
    is_occluded: NDArray[np.bool_] | None,
) -> _Instances:
    """Lists the instances of a map, at least one, in ascending order of their ids."""
    places = np.flatnonzero(instance)
    index = np.unique(instance.reshape(-1)[places], return_inverse=True)[1].reshape(-1)
    by_instance = np.argsort(index, kind="stable")
    ends = np.cumsum(np.bincount(index))
    pixels = np.split(places[by_instance].astype(np.int32), ends[:-1])
    if flow is None:
        warped_pixels, warped_instance = places, index
    else:
        index_map = np.full(instance.size, -1, np.intp)
        index_map[places] = index
        warped_pixels, warped_instance = _warp(index_map.reshape(instance.shape), flow)
    if is_occluded is not None:
        is_seen = ~is_occluded.reshape(-1)[warped_pixels].astype(np.bool_)
        warped_pixels, warped_instance = (
            warped_pixels[is_seen],
            warped_instance[is_seen],
        )
    return _Instances(pixels, warped_pixels, warped_instance)


def _warp(
    index_map: NDArray[np.intp], flow: NDArray[np.float32]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Moves masks backward along the flow.

    A pixel belongs to a mask if bilinear sampling at its position plus its flow finds
    any of it; so it can belong to several. Outside the frame there is none.

    Args:
        index_map: `[H, W]` index of the mask of each pixel, -1 for none.
        flow: `[H, W, 2]`, (x, y).

    Returns:
        `[M]` raster indices of pixels, and the masks they belong to; each pair once.
    """
    height, width = index_map.shape
    rows, columns = np.indices(index_map.shape, np.float32)
    x_map, y_map = columns + flow[..., 0], rows + flow[..., 1]
    is_near = (x_map > -1) & (x_map < width) & (y_map > -1) & (y_map < height)
    pixels = np.flatnonzero(is_near)
    x, y = x_map.reshape(-1)[pixels], y_map.reshape(-1)[pixels]
    left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    padded = np.pad(index_map, 1, constant_values=-1)
    num_masks = int(index_map.max()) + 1
    pairs = []
    for below in (0, 1):
        for beside in (0, 1):
            # A neighbor counts if it has any weight.
            has_weight = ((y > top) | (below == 0)) & ((x > left) | (beside == 0))
            mask = padded[top + below + 1, left + beside + 1]
            is_mask = has_weight & (mask >= 0)
            pairs.append(pixels[is_mask] * num_masks + mask[is_mask])
    return np.divmod(np.unique(np.concatenate(pairs)), num_masks)


def _overlaps(
    instances: _Instances, tracks: list[NDArray[np.int32]]
) -> NDArray[np.float64]:
    """Computes intersection over union of `N` instances and `M` tracks: `[N, M]`."""
    num_instances = len(instances.pixels)
    area_px = np.bincount(instances.warped_instance, minlength=num_instances)
    order = np.argsort(instances.warped_pixels, kind="stable")
    pixels = instances.warped_pixels[order]
    instance = instances.warped_instance[order]
    iou = np.zeros((num_instances, len(tracks)))
    for column, track in enumerate(tracks):
        # A pixel can belong to several instances, hence the range.
        first = np.searchsorted(pixels, track)
        last = np.searchsorted(pixels, track, side="right")
        found = np.repeat(first, last - first)
        found += np.arange(found.size) - np.repeat(
            np.cumsum(last - first) - (last - first), last - first
        )
        intersection = np.bincount(instance[found], minlength=num_instances)
        union = area_px + track.size - intersection
        iou[:, column] = intersection / np.maximum(union, 1)
    return iou
