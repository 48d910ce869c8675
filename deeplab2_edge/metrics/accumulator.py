"""What the accumulators of panoptic metrics share."""

import math
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import DataError, UsageError


class PanopticMetric:
    """Knows what panoptic ids mean.

    Args:
        num_classes: Classes are 0 to `num_classes - 1`.
        ignore_label: Class of void; may be below `num_classes`.
        label_divisor: Panoptic ids are `class * label_divisor + instance`.
        thing_ids: Classes with instances.

    Raises:
        UsageError: If there are no classes, or no ids.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_label: int,
        *,
        label_divisor: int,
        thing_ids: Collection[int],
    ) -> None:
        if num_classes < 1 or label_divisor < 1:
            raise UsageError(
                f"num_classes is {num_classes} and label_divisor {label_divisor}; "
                "both must be at least 1"
            )
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        self.label_divisor = label_divisor
        self.thing_ids = frozenset(thing_ids)

    def _classes_of(self, ids: NDArray[np.int64], name: str) -> NDArray[np.int64]:
        """Gives the class of each panoptic id.

        Raises:
            DataError: If one is neither 0 to `num_classes - 1` nor the ignore label.
        """
        classes: NDArray[np.int64] = ids // self.label_divisor
        is_known = (classes >= 0) & (classes < self.num_classes)
        is_known |= classes == self.ignore_label
        if not is_known.all():
            found = int(ids[~is_known][0])
            raise DataError(
                f"panoptic {name} has id {found}, class {found // self.label_divisor} "
                f"(divisor {self.label_divisor}); expected classes 0 to "
                f"{self.num_classes - 1} or {self.ignore_label}"
            )
        return classes

    def _key(self) -> tuple[object, ...]:
        """Gives what must be equal for two accumulators to be one."""
        return self.num_classes, self.ignore_label, self.label_divisor, self.thing_ids

    def _check_mergeable(self, other: "PanopticMetric") -> None:
        if self._key() != other._key():
            raise UsageError("accumulators of different class lists cannot be merged")


class Figures(Protocol):
    """Is what a metric says of one sequence, or of all."""

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values."""


F = TypeVar("F", bound=Figures)


@dataclass(frozen=True)
class SequenceResult(Generic[F]):
    """Holds the figures of all sequences and of each.

    Attributes:
        total: Of all sequences; ids of two sequences have nothing to do with each
            other.
        per_sequence: In the order of first appearance.
    """

    total: F
    per_sequence: dict[Hashable, F]

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values; sequences go by the text of their names."""
        return {
            **self.total.to_json(),
            "per_sequence": {
                str(name): figures.to_json()
                for name, figures in self.per_sequence.items()
            },
        }


def plain(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Gives plain JSON values; NaN becomes null."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in figures.items()
    }


def check_disjoint(
    sequences: Collection[Hashable], others: Collection[Hashable]
) -> None:
    """Refuses to merge what was counted of one sequence in two places.

    Raises:
        UsageError: If a sequence is in both.
    """
    both = set(sequences) & set(others)
    if both:
        raise UsageError(
            f"sequence {min(both, key=str)!r} is in both accumulators; give all "
            "frames of a sequence to one"
        )
