"""How much predictions of a video flicker where nothing changes."""

import math
from collections.abc import Collection, Hashable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.metrics.accumulator import SequenceResult, check_disjoint, plain


@dataclass(frozen=True)
class FlickerFigures:
    """Holds the flicker of one sequence, or of all, as shares of pixels.

    Attributes:
        classes: Of the pixels that have the same true class as in the frame before,
            void not counted, how many are predicted as another class than before. NaN
            without such pixels.
        ids: Of the pixels that show the same true instance as in the frame before, how
            many have another predicted panoptic id than before. NaN likewise.
        num_pairs: Pairs of consecutive frames.
    """

    classes: float
    ids: float
    num_pairs: int

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values; NaN becomes null."""
        return plain(asdict(self))


class FlickerResult(SequenceResult[FlickerFigures]):
    """Holds the flicker of all sequences, by the pixels of all, and of each."""


@dataclass
class _Counts:
    """Counts pairs; steady pixels of classes and of ids, and those that flicker."""

    num_pairs: int = 0
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(4, np.int64))

    def figures(self) -> FlickerFigures:
        steady, changed, steady_ids, changed_ids = self.pixels.tolist()
        return FlickerFigures(
            classes=changed / steady if steady else math.nan,
            ids=changed_ids / steady_ids if steady_ids else math.nan,
            num_pairs=self.num_pairs,
        )

    def add(self, other: "_Counts") -> None:
        self.num_pairs += other.num_pairs
        self.pixels = self.pixels + other.pixels


class FlickerRate:
    """Accumulates frames of videos and tells how many pixels flicker.

    Looks at pixels whose ground truth does not change from one frame to the next; there
    a perfect prediction does not change either, however the camera moves. A change
    from wrong to right counts like any other: people see it flicker. Unlike the video
    consistency of VSPW, predictions need not be right to be steady.

    Memory holds the last frame of the sequence at hand; the frames of a sequence come
    together and in order.

    Example:
        >>> metric = FlickerRate(255, label_divisor=1000, thing_ids=(1,))
        >>> truth = np.array([[1001, 0, 0, 0]])
        >>> for prediction in ([1001, 0, 0, 0], [1002, 2000, 0, 0]):
        ...     metric.update(truth, np.array([prediction]), sequence="a")
        >>> metric.result().total
        FlickerFigures(classes=0.25, ids=1.0, num_pairs=1)

    References:
        Miao et al., VSPW, CVPR 2021: pixels whose truth is the same over frames.
    """

    def __init__(
        self,
        ignore_label: int,
        *,
        label_divisor: int,
        thing_ids: Collection[int],
    ) -> None:
        """Starts with no frames.

        Args:
            ignore_label: Class of void.
            label_divisor: Panoptic ids are `class * label_divisor + instance`.
            thing_ids: Classes with instances.
        """
        if label_divisor < 1:
            raise UsageError(f"label_divisor is {label_divisor}; must be at least 1")
        self.ignore_label = ignore_label
        self.label_divisor = label_divisor
        self.thing_ids = frozenset(thing_ids)
        self._counts: dict[Hashable, _Counts] = {}
        self._last: tuple[Hashable, NDArray[np.int32], NDArray[np.int32]] | None = None

    def update(
        self,
        groundtruth: NDArray[np.integer],
        prediction: NDArray[np.integer],
        *,
        sequence: Hashable,
    ) -> None:
        """Counts one frame.

        Args:
            groundtruth: `[H, W]` panoptic ids; an instance keeps its id in a sequence.
            prediction: `[H, W]` panoptic ids, likewise.
            sequence: Name or number of the sequence.

        Raises:
            DataError: If shapes differ, or a sequence goes on after another began.
        """
        if prediction.shape != groundtruth.shape:
            raise DataError(
                f"panoptic prediction has shape {prediction.shape}; expected "
                f"{groundtruth.shape}, the shape of the ground truth"
            )
        last, true, pred = (
            self._last,
            groundtruth.astype(np.int32),
            prediction.astype(np.int32),
        )
        self._last = sequence, true, pred
        if last is None or last[0] != sequence:
            if sequence in self._counts:
                raise DataError(
                    f"sequence {sequence!r} goes on after another one began; its "
                    "frames must come together and in order"
                )
            self._counts[sequence] = _Counts()
            return
        if last[1].shape != true.shape:
            raise DataError(
                f"sequence {sequence!r}: a frame has shape {true.shape}, the one "
                f"before {last[1].shape}; frames of a video have one size"
            )
        self._counts[sequence].add(self._compare(last[1], last[2], true, pred))

    def merge(self, other: "FlickerRate") -> None:
        """Adds what another accumulator of the same classes has counted.

        Raises:
            UsageError: If the other one counts other classes, or both have frames of
                one sequence.
        """
        if self._key() != other._key():
            raise UsageError("accumulators of different class lists cannot be merged")
        check_disjoint(self._counts, other._counts)
        self._counts.update(other._counts)

    def result(self) -> FlickerResult:
        """Gives the figures over everything counted so far."""
        total = _Counts()
        for counts in self._counts.values():
            total.add(counts)
        return FlickerResult(
            total.figures(),
            {name: counts.figures() for name, counts in self._counts.items()},
        )

    def _compare(
        self,
        last_true: NDArray[np.int32],
        last_pred: NDArray[np.int32],
        true: NDArray[np.int32],
        pred: NDArray[np.int32],
    ) -> _Counts:
        divisor = np.int32(self.label_divisor)
        classes, instances = np.divmod(true, divisor)
        is_steady = (classes == last_true // divisor) & (classes != self.ignore_label)
        is_same = (true == last_true) & (instances != 0) & is_steady
        is_same &= np.isin(classes, sorted(self.thing_ids))
        has_changed = pred != last_pred
        is_other_class = pred // divisor != last_pred // divisor
        masks = is_steady, is_steady & is_other_class, is_same, is_same & has_changed
        return _Counts(1, np.array([np.count_nonzero(m) for m in masks], np.int64))

    def _key(self) -> tuple[object, ...]:
        return self.ignore_label, self.label_divisor, self.thing_ids
