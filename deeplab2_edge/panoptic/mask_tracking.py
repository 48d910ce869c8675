"""Stable ids for the instances of a video, by masks that move along optical flow."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic.assignment import assign
from deeplab2_edge.panoptic.numbering import next_number

# How much of its velocity a track takes over from its last step.
_NEW_VELOCITY = 0.5
_MAX_TRACKS = np.iinfo(np.int16).max


@dataclass(frozen=True)
class MaskTrackingSettings:
    """Says how instances are followed from frame to frame.

    The defaults were measured with the shipped model on synthetic videos, see
    `benchmarks/video.py`.

    Attributes:
        min_overlap: Masks of at most this intersection over union are not paired; the
            largest sum of overlaps decides among those above.
        reach: How far, in square roots of its area, an instance may be from where a
            track would be at constant velocity. Pairs what does not overlap: small
            things that move fast, and tracks that were lost.
        max_growth: Such a pair must have areas within this factor.
        max_missed_frames: A track is forgotten when missed in more frames in a row.
        max_number: Largest number of a track. Then numbers start again at 1, without
            those of tracks that are remembered.

    Raises:
        UsageError: On creation, if a value is out of range.
    """

    min_overlap: float = 0.1
    reach: float = 2.0
    max_growth: float = 3.0
    max_missed_frames: int = 20
    max_number: int = 9_999

    def __post_init__(self) -> None:
        for name, smallest, largest in (
            ("min_overlap", 0.0, 1.0),
            ("reach", 0.0, np.inf),
            ("max_growth", 1.0, np.inf),
            ("max_missed_frames", 0, 1_000_000),
            ("max_number", 1, 2**31 - 1),
        ):
            if not smallest <= getattr(self, name) <= largest:
                raise UsageError(
                    f"MaskTrackingSettings.{name} is {getattr(self, name)}; it must be "
                    f"{smallest:g} to {largest:g}"
                )


@dataclass(frozen=True, eq=False)
class Instances:
    """Holds the instances of one frame.

    Attributes:
        masks: `[h, w]` integer, `n + 1` on the pixels of instance `n` of `N`, 0
            elsewhere. May be coarser than the frame; an instance may have no pixel.
        classes: `[N]` class of each.
        centers_yx: `[N, 2]` middle of each, in pixels of `masks`.
        areas_px: `[N]` area of each, in pixels of `masks`, above 0.

    Raises:
        UsageError: On creation, if the shapes do not fit.
    """

    masks: NDArray[np.integer]
    classes: NDArray[np.integer]
    centers_yx: NDArray[np.floating]
    areas_px: NDArray[np.floating]

    def __post_init__(self) -> None:
        count = len(self.classes)
        for name, array, shape in (
            ("masks", self.masks, self.masks.shape[:2]),
            ("classes", self.classes, (count,)),
            ("centers_yx", self.centers_yx, (count, 2)),
            ("areas_px", self.areas_px, (count,)),
        ):
            if array.shape != shape:
                raise UsageError(
                    f"Instances.{name} has shape {array.shape}; expected {shape}"
                )
        if self.masks.size and not 0 <= self.masks.min() <= self.masks.max() <= count:
            raise UsageError(
                f"Instances.masks holds {self.masks.min()} to {self.masks.max()}; "
                f"expected 0 to {count}, the number of classes"
            )


@dataclass(eq=False)
class _Tracks:
    """Remembers `T` tracks; fields as of `Instances`, velocity per frame."""

    numbers: NDArray[np.int64]
    classes: NDArray[np.int64]
    centers_yx: NDArray[np.float64]
    velocity_yx: NDArray[np.float64]
    areas_px: NDArray[np.float64]
    missed_frames: NDArray[np.int64]

    @classmethod
    def starting(cls, numbers: NDArray[np.int64], instances: Instances) -> "_Tracks":
        """Begins a track at every instance."""
        return cls(
            numbers,
            instances.classes.astype(np.int64),
            instances.centers_yx.astype(np.float64),
            np.zeros((len(numbers), 2)),
            instances.areas_px.astype(np.float64),
            np.zeros(len(numbers), np.int64),
        )

    def select(self, places: NDArray[np.intp]) -> "_Tracks":
        return _Tracks(*(array[places] for array in vars(self).values()))

    def join(self, other: "_Tracks") -> "_Tracks":
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return _Tracks(*(np.concatenate(pair) for pair in pairs))


class MaskTracker:
    """Gives instances numbers that stay the same over the frames of a video.

    A map remembers where every track was last seen, and moves along the optical flow;
    lost tracks drift with what surrounds them. Instances and tracks of one class are
    paired so that the sum of their overlaps is the largest. What is left over is
    paired by distance: each track moves on at constant velocity.

    All overlaps come from one histogram of pairs of ids: the cost is linear in pixels
    and hardly depends on the number of instances. Memory is two maps and a table.

    One tracker follows one video; call `reset` before the next.

    Example:
        >>> tracker = MaskTracker()
        >>> for masks in ([[1, 1, 0, 2]], [[0, 2, 2, 1]]):
        ...     instances = Instances(
        ...         np.array(masks), np.array([8, 8]), np.zeros((2, 2)), np.ones(2)
        ...     )
        ...     print(tracker.update(instances).tolist())
        [1, 2]
        [2, 1]
    """

    def __init__(self, settings: MaskTrackingSettings | None = None) -> None:
        self.settings = settings or MaskTrackingSettings()
        self.reset()

    def reset(self) -> None:
        """Forgets all tracks; numbers start again at 1."""
        self._last_number = 0
        self.forget()

    def forget(self) -> None:
        """Forgets all tracks, as at a cut; numbers go on, so that none comes twice."""
        none = np.zeros(0, np.int64)
        nothing = Instances(none[None], none, np.zeros((0, 2)), np.zeros(0))
        self._tracks = _Tracks.starting(none, nothing)
        # `[h, w, 2]`: tracks of the last frame, and lost ones; place + 1, 0 for none.
        self._maps: NDArray[np.int16] | None = None
        self._grid: NDArray[np.float32] | None = None

    @property
    def num_tracks(self) -> int:
        """How many tracks are remembered."""
        return len(self._tracks.numbers)

    def update(
        self, instances: Instances, flow: NDArray[np.float32] | None = None
    ) -> NDArray[np.int64]:
        """Follows the instances of the next frame.

        Args:
            instances: Of the frame.
            flow: `[fh, fw, 2]`, (x, y) in its own pixels, from each place of this
                frame to where that was in the last one; of any resolution. None for
                no motion.

        Returns:
            `[N]` numbers of the tracks, from 1, each at most once.

        Raises:
            UsageError: If shapes do not fit, or there are more tracks than numbers.
        """
        maps = self._moved(instances.masks.shape, flow)
        tracks, settings = self._tracks, self.settings
        count = len(instances.classes)
        track_of = np.full(count, -1, np.intp)
        is_same = tracks.classes[:, None] == instances.classes
        iou = np.where(is_same, _overlaps(maps, instances, self.num_tracks), 0.0)
        rows, columns = assign(-iou)
        is_pair = iou[rows, columns] > settings.min_overlap
        track_of[columns[is_pair]] = rows[is_pair]
        self._pair_by_distance(instances, is_same, track_of)

        tracks.missed_frames += 1
        found = np.flatnonzero(track_of >= 0)
        self._move_tracks(instances, found, track_of[found])
        new = np.flatnonzero(track_of < 0)
        track_of[new] = self.num_tracks + np.arange(new.size)
        began = _Tracks.starting(self._take_numbers(new.size), _part(instances, new))
        self._tracks = tracks.join(began)
        numbers = self._tracks.numbers[track_of]
        self._remember(instances.masks, maps, track_of)
        return numbers

    def _moved(
        self, size: tuple[int, ...], flow: NDArray[np.float32] | None
    ) -> NDArray[np.int16]:
        """Gives the maps as they should look in this frame."""
        height, width = size
        if self._maps is None:
            return np.zeros((height, width, 2), np.int16)
        if self._maps.shape[:2] != size:
            raise UsageError(
                f"masks have shape {size}; expected {self._maps.shape[:2]} as before; "
                "reset the tracker before a video of another size"
            )
        if flow is None:
            return self._maps
        if flow.ndim != 3 or flow.shape[2] != 2 or not flow.size:
            raise UsageError(f"flow has shape {flow.shape}; expected [h, w, 2]")
        if self._grid is None:
            rows, columns = np.indices(size, np.float32)
            self._grid = np.stack([columns, rows], axis=-1)
        scale = np.array((width / flow.shape[1], height / flow.shape[0]), np.float32)
        places = cv2.resize(flow * scale, (width, height)) + self._grid
        return np.asarray(
            cv2.remap(
                self._maps,
                places,
                None,
                cv2.INTER_NEAREST,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=(0, 0),
            )
        )

    def _pair_by_distance(
        self,
        instances: Instances,
        is_same: NDArray[np.bool_],
        track_of: NDArray[np.intp],
    ) -> None:
        """Pairs, in place, what has no pair and is near enough."""
        settings, tracks = self.settings, self._tracks
        left = np.flatnonzero(track_of < 0)
        free = np.setdiff1d(np.arange(self.num_tracks), track_of)
        if not left.size or not free.size:
            return
        steps = tracks.missed_frames[free, None] + 1
        expected = tracks.centers_yx[free] + tracks.velocity_yx[free] * steps
        apart = expected[:, None] - instances.centers_yx[left]
        before, after = tracks.areas_px[free, None], instances.areas_px[left]
        distance = np.hypot(apart[..., 0], apart[..., 1])
        distance /= np.sqrt(np.maximum(before, after))
        growth = np.maximum(before / after, after / before)
        is_near = is_same[np.ix_(free, left)] & (distance < settings.reach)
        is_near &= growth <= settings.max_growth
        # The most pairs first, then the nearest.
        least = settings.reach * (min(is_near.shape) + 1)
        rows, columns = assign(np.where(is_near, distance - least, 0.0))
        is_pair = is_near[rows, columns]
        track_of[left[columns[is_pair]]] = free[rows[is_pair]]

    def _move_tracks(
        self,
        instances: Instances,
        found: NDArray[np.intp],
        places: NDArray[np.intp],
    ) -> None:
        """Brings tracks to where their instances are."""
        tracks = self._tracks
        step = instances.centers_yx[found] - tracks.centers_yx[places]
        velocity = step / tracks.missed_frames[places, None]
        is_first = ~tracks.velocity_yx[places].any(axis=1, keepdims=True)
        share = np.where(is_first, 1.0, _NEW_VELOCITY)
        tracks.velocity_yx[places] += share * (velocity - tracks.velocity_yx[places])
        tracks.centers_yx[places] += step
        tracks.areas_px[places] = instances.areas_px[found]
        tracks.missed_frames[places] = 0

    def _take_numbers(self, count: int) -> NDArray[np.int64]:
        largest = min(self.settings.max_number, _MAX_TRACKS)
        if self.num_tracks + count > largest:
            raise UsageError(
                f"{self.num_tracks + count} tracks at once; at most {largest} can be "
                "told apart: raise MaskTrackingSettings.max_number or lower "
                "max_missed_frames"
            )
        taken = set(self._tracks.numbers.tolist())
        last, numbers = self._last_number, []
        for _ in range(count):
            number = next_number(last, self.settings.max_number, taken)
            assert number is not None  # there are more than tracks
            numbers.append(number)
            taken.add(number)
            last = number
        self._last_number = last
        return np.array(numbers, np.int64)

    def _remember(
        self,
        masks: NDArray[np.integer],
        maps: NDArray[np.int16],
        track_of: NDArray[np.intp],
    ) -> None:
        """Draws the tracks of this frame and the lost ones; forgets the old."""
        is_kept = self._tracks.missed_frames <= self.settings.max_missed_frames
        place = np.where(is_kept, np.cumsum(is_kept), 0).astype(np.int16)
        seen = np.zeros(len(track_of) + 1, np.int16)
        seen[1:] = place[track_of]
        lost = np.zeros(len(place) + 1, np.int16)
        lost[1:] = np.where(self._tracks.missed_frames > 0, place, 0)
        missed = lost[maps]
        # Who was lost last lies on top.
        self._maps = np.stack(
            [seen[masks], np.where(missed[..., 0], missed[..., 0], missed[..., 1])],
            axis=-1,
        )
        self._tracks = self._tracks.select(np.flatnonzero(is_kept))


def _overlaps(
    maps: NDArray[np.int16], instances: Instances, num_tracks: int
) -> NDArray[np.float64]:
    """Computes intersection over union of `T` tracks and `N` instances: `[T, N]`."""
    columns = len(instances.classes) + 1
    shape = num_tracks + 1, columns
    index = maps.astype(np.int32) * np.int32(columns) + instances.masks[..., None]
    # A pixel can belong to a track of the last frame and to a lost one.
    counts = np.bincount(index.reshape(-1), minlength=shape[0] * columns).reshape(shape)
    shared = counts[1:, 1:].astype(np.float64)
    of_tracks = counts[1:].sum(axis=1, keepdims=True)
    # Each pixel was counted once for each of both maps.
    of_instances = counts[:, 1:].sum(axis=0) / 2
    return np.asarray(shared / np.maximum(of_tracks + of_instances - shared, 1))


def _part(instances: Instances, places: NDArray[np.intp]) -> Instances:
    """Gives some of the instances, without their masks."""
    return Instances(
        instances.masks[:0],
        instances.classes[places],
        instances.centers_yx[places],
        instances.areas_px[places],
    )
