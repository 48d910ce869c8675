"""Motion-DeepLab: tracks instances by the offsets of their centers."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic.heads import offsets_at
from deeplab2_edge.panoptic.instances import NUMPY_PASSES, MapPasses
from deeplab2_edge.panoptic.numbering import next_number

# Columns of a list of centers.
_X, _Y, _ID, _RADIUS, _AGE = range(5)


@dataclass(frozen=True)
class MotionSettings:
    """Says how instances are tracked from frame to frame.

    Attributes:
        thing_ids: Classes that have instances.
        label_divisor: Of the panoptic maps that come in.
        heatmap_sigma: Standard deviation of the centers drawn for the next frame, in
            pixels.
        keep_frames: A track is forgotten this many frames after it was last seen,
            that frame included; so it can be missed in `keep_frames - 2` of them.
        track_divisor: Of the panoptic maps that go out; `label_divisor` if None.
        reuses_ids: Start again at 1 when no id is left below `track_divisor`, without
            those that are remembered. As published, no id is used twice, and a video
            with too many instances is an error.

    Raises:
        UsageError: On creation, if a value is out of range.
    """

    thing_ids: tuple[int, ...]
    label_divisor: int
    heatmap_sigma: float = 8.0
    keep_frames: int = 7
    track_divisor: int | None = None
    reuses_ids: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "thing_ids", tuple(int(c) for c in self.thing_ids))
        for name, smallest in (
            ("label_divisor", 2),
            ("keep_frames", 1),
            ("track_divisor", 2),
        ):
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise UsageError(
                    f"MotionSettings.{name} is {value}; it must be at least {smallest}"
                )


@dataclass(frozen=True, eq=False)
class CenterMaps:
    """Holds the instances of one frame as the network sees them in the next.

    Attributes:
        heatmap: `[H, W]` float32 in 0..1, a Gaussian at every center.
        centers: `[N, 5]` int32, (x, y, panoptic id, radius, age 0), in the order in
            which the instances first appear. The radius is the area in pixels of the
            box between the outermost pixels; squared distances are compared with it.
    """

    heatmap: NDArray[np.float32]
    centers: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class MotionMaps:
    """Holds one tracked frame.

    Attributes:
        panoptic: `[H, W]` int32, `class * track_divisor + track id` on things.
        heatmap: `[H, W]` float32, channel 7 of the network's next input.
        centers: `[N, 5]` int32, the instances as they came in; see `CenterMaps`.
        tracks: `[M, 5]` int32, all that is remembered, with track ids: the instances
            of this frame in the order of `centers` if all their peaks are equal, then
            what is missing. Age counts from 1 in the frame a track is seen.
    """

    panoptic: NDArray[np.int32]
    heatmap: NDArray[np.float32]
    centers: NDArray[np.int32]
    tracks: NDArray[np.int32]


class MotionTracker:
    """Gives instances ids that stay the same over the frames of a video.

    Before each frame the network wants `previous_heatmap`; after it, `update` is
    given what came out. A new scene starts with `reset`. The published system resets
    whenever both frames are equal in every value, which a static camera triggers as
    well; call `is_scene_start` to get that rule.

    One tracker follows one video; its memory is a list of centers and one heatmap.

    Args:
        settings: How to track.
        passes: What passes over the maps.

    Example:
        >>> tracker = MotionTracker(MotionSettings((1,), label_divisor=1000))
        >>> offsets = np.zeros((3, 3, 2), np.float32)
        >>> first, second = np.full((3, 3), 1004), np.full((3, 3), 1009)
        >>> int(tracker.update(first, offsets).panoptic[0, 0])
        1001
        >>> int(tracker.update(second, offsets).panoptic[0, 0])
        1001

    References:
        Weber et al., STEP, NeurIPS 2021, arXiv:2102.11859.
    """

    def __init__(
        self, settings: MotionSettings, *, passes: MapPasses = NUMPY_PASSES
    ) -> None:
        self.settings = settings
        self._passes = passes
        self.reset()

    def reset(self) -> None:
        """Forgets all tracks; ids start again at 1."""
        self._next_id = 1
        self.forget()

    def forget(self) -> None:
        """Forgets all tracks, as at a cut; ids go on, so that none comes twice."""
        self._tracks = np.zeros((0, 5), np.int32)
        self._heatmap: NDArray[np.float32] | None = None

    @property
    def next_id(self) -> int:
        """Id of the next track, counted over all classes."""
        return self._next_id

    def previous_heatmap(self, size: tuple[int, int]) -> NDArray[np.float32]:
        """Gives the centers of the last frame as the network wants them.

        Args:
            size: (H, W) of the canvas.

        Returns:
            `[H, W]` float32 in 0..1, zeros at the start of a scene.

        Raises:
            UsageError: If the last frame had another size.
        """
        if self._heatmap is None:
            return np.zeros(size, np.float32)
        self._check_size(size)
        return self._heatmap.copy()

    def update(
        self, panoptic: NDArray[np.integer], frame_offset_map: NDArray[np.float32]
    ) -> MotionMaps:
        """Tracks the instances of the next frame.

        Every center moves by its offset; the nearest center of the same class that
        is remembered and free gives it its id if the squared distance is below that
        center's radius. Else a new track begins.

        Args:
            panoptic: `[H, W]` ids of the frame, with `label_divisor`.
            frame_offset_map: `[h, w, 2]`, (dy, dx) to where the center was in the last
                frame, in pixels of this map; resized to the canvas where it is read.

        Raises:
            UsageError: If shapes do not fit, or there is no id left below
                `track_divisor`.
        """
        if frame_offset_map.ndim != 3 or frame_offset_map.shape[2] != 2:
            raise UsageError(
                f"frame_offset_map has shape {frame_offset_map.shape}; "
                "expected [h, w, 2]"
            )
        settings = self.settings
        divisor = settings.track_divisor or settings.label_divisor
        current = render_centers(
            panoptic,
            thing_ids=settings.thing_ids,
            label_divisor=settings.label_divisor,
            sigma=settings.heatmap_sigma,
            passes=self._passes,
        )
        self._check_size(current.heatmap.shape)
        centers, track_ids, is_free, next_id = self._associate(
            current, frame_offset_map, divisor
        )
        before, now = self._tracks[is_free], centers.copy()
        now[:, _ID] = track_ids
        tracks = np.concatenate([now, before])
        tracks[:, _AGE] += 1
        self._tracks = tracks[tracks[:, _AGE] < settings.keep_frames]
        self._next_id, self._heatmap = next_id, current.heatmap
        return MotionMaps(
            panoptic=self._passes.rename(
                panoptic,
                centers[:, _ID],
                track_ids,
                label_divisor=settings.label_divisor,
                new_divisor=divisor,
            ),
            heatmap=current.heatmap.copy(),
            centers=current.centers,
            tracks=self._tracks.copy(),
        )

    def _associate(
        self, current: CenterMaps, offset_map: NDArray[np.float32], divisor: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.bool_], int]:
        """Finds the track of every center.

        Returns:
            `[N, 5]` centers in the order they were visited, `[N]` panoptic ids of
            their tracks, which of the old tracks are free, and the next track id.
        """
        peaks = current.heatmap[current.centers[:, _Y], current.centers[:, _X]]
        centers = current.centers[np.argsort(-peaks, kind="stable")]
        height, width = current.heatmap.shape
        pixels = centers[:, _Y].astype(np.intp) * width + centers[:, _X]
        dy, dx = offsets_at(offset_map, (height, width), pixels)
        moved_y = centers[:, _Y].astype(np.float32) + dy
        moved_x = centers[:, _X].astype(np.float32) + dx
        classes = centers[:, _ID] // self.settings.label_divisor

        old = self._tracks
        old_classes = old[:, _ID] // divisor
        old_y, old_x = old[:, _Y].astype(np.float32), old[:, _X].astype(np.float32)
        is_free = np.ones(len(old), np.bool_)
        track_ids = np.zeros(len(centers), np.int32)
        next_id = self._next_id
        for index, class_id in enumerate(classes):
            candidates = np.flatnonzero(is_free & (old_classes == class_id))
            squared = np.square(moved_x[index] - old_x[candidates])
            squared += np.square(moved_y[index] - old_y[candidates])
            # Not below: an offset that is not a number finds nothing.
            nearest = candidates[squared.argmin()] if candidates.size else None
            if nearest is not None and squared.min() < old[nearest, _RADIUS]:
                is_free[nearest] = False
                track_ids[index] = old[nearest, _ID]
                continue
            number = self._free_number(next_id, divisor, track_ids)
            track_ids[index] = class_id * divisor + number
            next_id = number + 1
        return centers, track_ids, is_free, next_id

    def _free_number(
        self, next_id: int, divisor: int, track_ids: NDArray[np.int32]
    ) -> int:
        """Gives the next id, or the first free one after it where ids are reused."""
        number: int | None = next_id if next_id < divisor else None
        if self.settings.reuses_ids:
            used = np.concatenate([self._tracks[:, _ID], track_ids]) % divisor
            number = next_number(next_id - 1, divisor - 1, taken=set(used.tolist()))
        if number is None:
            raise UsageError(
                f"track id {next_id} does not fit below the divisor {divisor}; reset "
                "the tracker between scenes, or set a larger "
                "MotionSettings.track_divisor"
            )
        return number

    def _check_size(self, size: tuple[int, ...]) -> None:
        if self._heatmap is not None and self._heatmap.shape != tuple(size):
            raise UsageError(
                f"the frame has size {tuple(size)}; expected {self._heatmap.shape} as "
                "before; reset the tracker before a video of another size"
            )


def is_scene_start(
    image: NDArray[np.generic], previous_image: NDArray[np.generic]
) -> bool:
    """Says whether two frames are equal in every value.

    The published data sets mark the first frame of a sequence by repeating it. A
    static camera gives equal frames as well; count frames where you can.
    """
    return bool(np.array_equal(image, previous_image))


def render_centers(
    panoptic: NDArray[np.integer],
    *,
    thing_ids: Collection[int],
    label_divisor: int,
    sigma: float = 8.0,
    passes: MapPasses = NUMPY_PASSES,
) -> CenterMaps:
    """Draws the centers of all instances of a panoptic map.

    A center is the mean position of the pixels, rounded, halves to even. Where
    Gaussians overlap, the larger value stays.

    Args:
        panoptic: `[H, W]` panoptic ids. A thing with instance 0 is no instance.
        thing_ids: Classes that have instances.
        label_divisor: The divisor the ids were made with.
        sigma: Standard deviation in pixels.
        passes: What passes over the map.

    Raises:
        UsageError: If the map has another rank or sigma is not positive.
    """
    if panoptic.ndim != 2:
        raise UsageError(f"panoptic has shape {panoptic.shape}; expected [H, W]")
    heatmap = np.zeros(panoptic.shape, np.float32)
    kernel = gaussian_window(sigma)
    table = passes.list_instances(panoptic, label_divisor=label_divisor)
    is_thing = np.isin(table.ids // label_divisor, list(thing_ids))
    mean_yx = np.rint(table.sum_yx / table.area_px[:, np.newaxis])
    # Of rank 2 even without instances: the published system gives [0] and fails on the
    # next frame.
    centers = np.stack(
        [
            mean_yx[:, 1],
            mean_yx[:, 0],
            table.ids,
            table.extent_yx[:, 0] * table.extent_yx[:, 1],
            np.zeros(len(table.ids)),
        ],
        axis=-1,
    ).astype(np.int32)[is_thing]
    for center in centers:
        _draw(heatmap, center[_Y], center[_X], kernel, round(3 * sigma + 1))
    return CenterMaps(heatmap, centers)


def gaussian_window(sigma: float) -> NDArray[np.float32]:
    """Gives the square window of a center Gaussian: `[S, S]`, `S = int(6 sigma + 3)`.

    Raises:
        UsageError: If sigma is not positive.
    """
    if not 0 < sigma < np.inf:
        raise UsageError(f"sigma is {sigma}; it must be a positive number of pixels")
    distance = np.arange(int(6 * sigma + 3), dtype=np.float32) - (3 * sigma + 1)
    squared = distance[:, None] ** 2 + distance**2
    return np.exp(-squared / (2 * sigma**2)).astype(np.float32)


def _draw(
    heatmap: NDArray[np.float32],
    y: int,
    x: int,
    kernel: NDArray[np.float32],
    margin: int,
) -> None:
    """Draws a kernel that starts `margin` above and left of (y, x), cut at borders."""
    top, left = max(margin - y, 0), max(margin - x, 0)
    place = heatmap[max(y - margin, 0) : y - margin + len(kernel)]
    place = place[:, max(x - margin, 0) : x - margin + len(kernel)]
    part = kernel[top : top + place.shape[0], left : left + place.shape[1]]
    np.maximum(place, part, out=place)
