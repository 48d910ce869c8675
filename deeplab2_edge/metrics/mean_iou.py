"""Mean intersection over union of semantic maps."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import DataError, UsageError


@dataclass(frozen=True)
class MeanIouResult:
    """Holds mIoU. All figures are fractions, 0..1.

    Attributes:
        miou: Mean over the classes in `per_class`; NaN if there are none.
        per_class: IoU of every class that occurs in ground truth or prediction.
    """

    miou: float
    per_class: dict[int, float]

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values; NaN becomes null."""
        return asdict(self) | {"miou": None if math.isnan(self.miou) else self.miou}


class MeanIou:
    """Accumulates a confusion matrix over images and gives the mean IoU.

    Pixels whose ground truth is the ignore label do not count. A class takes part in
    the mean if it occurs in the ground truth or was predicted on a counted pixel.
    Predicting an ignore label that is not one of the classes misses the pixel's class.
    """

    def __init__(self, num_classes: int, ignore_label: int) -> None:
        """Starts with no pixels.

        Args:
            num_classes: Classes are 0 to `num_classes - 1`.
            ignore_label: Ground truth that does not count; may be a class.
        """
        if num_classes < 1:
            raise UsageError(f"num_classes is {num_classes}; it must be at least 1")
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        self.confusion: NDArray[np.int64] = np.zeros(
            (num_classes, num_classes), np.int64
        )
        # Pixels of each class that were predicted void.
        self.missed: NDArray[np.int64] = np.zeros(num_classes, np.int64)

    def update(
        self, groundtruth: NDArray[np.integer], prediction: NDArray[np.integer]
    ) -> None:
        """Counts the pixels of one image.

        Args:
            groundtruth: `[H, W]` class ids or the ignore label.
            prediction: `[H, W]` class ids or the ignore label.

        Raises:
            DataError: If the shapes differ or a counted pixel has an unknown class.
        """
        if groundtruth.shape != prediction.shape:
            raise DataError(
                f"semantic prediction has shape {prediction.shape}; expected "
                f"{groundtruth.shape}, the shape of the ground truth"
            )
        counted = groundtruth != self.ignore_label
        rows, columns = groundtruth[counted], prediction[counted]
        is_void = columns == self.ignore_label
        if self.ignore_label < self.num_classes:
            is_void[:] = False
        void_rows = rows[is_void]
        rows, columns = rows[~is_void], columns[~is_void]
        for name, labels in (
            ("ground truth", void_rows),
            ("ground truth", rows),
            ("prediction", columns),
        ):
            if labels.size and not 0 <= labels.min() <= labels.max() < self.num_classes:
                found = labels.min() if labels.min() < 0 else labels.max()
                raise DataError(
                    f"semantic {name} has class {found}; expected 0 to "
                    f"{self.num_classes - 1} (ignore label: {self.ignore_label})"
                )
        # As wide as addresses: `bincount` takes nothing wider, which int64 may be.
        pairs = (rows.astype(np.int64) * self.num_classes + columns).astype(np.intp)
        counts = np.bincount(pairs, minlength=self.confusion.size)
        self.confusion += counts.reshape(self.confusion.shape)
        self.missed += np.bincount(void_rows.astype(np.intp), None, self.num_classes)

    def merge(self, other: "MeanIou") -> None:
        """Adds what another accumulator of the same classes has counted.

        Raises:
            UsageError: If the other one counts other classes.
        """
        if (self.num_classes, self.ignore_label) != (
            other.num_classes,
            other.ignore_label,
        ):
            raise UsageError("accumulators of different class lists cannot be merged")
        self.confusion += other.confusion
        self.missed += other.missed

    def result(self) -> MeanIouResult:
        """Gives the figures over everything counted so far."""
        hits = np.diag(self.confusion)
        union = self.confusion.sum(axis=0) + self.confusion.sum(axis=1) - hits
        union += self.missed
        per_class = {int(c): float(hits[c] / union[c]) for c in np.flatnonzero(union)}
        miou = sum(per_class.values()) / len(per_class) if per_class else math.nan
        return MeanIouResult(miou=miou, per_class=per_class)
