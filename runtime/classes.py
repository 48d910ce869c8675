"""The classes that a result speaks of, wherever they come from."""

from dataclasses import dataclass
from typing import Any, Protocol


class Classes(Protocol):
    """What drawing needs to know: `ModelMetadata` and `DatasetInfo` both say it."""

    @property
    def name(self) -> str:
        """Of the model or the data set."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class; the index is the class id."""

    @property
    def colors(self) -> tuple[tuple[int, int, int], ...]:
        """RGB color of each class."""

    @property
    def thing_ids(self) -> tuple[int, ...]:
        """Class ids with instances."""

    @property
    def label_divisor(self) -> int:
        """A panoptic id is `class * label_divisor + instance`."""

    @property
    def ignore_label(self) -> int:
        """Class id of pixels without a class (void)."""

    @property
    def num_classes(self) -> int:
        """Number of semantic classes."""


@dataclass(frozen=True)
class ClassTable:
    """Is a table of classes apart from its model or data set; see `Classes`.

    Example:
        >>> from deeplab2_edge.datasets.registry import get_dataset
        >>> ClassTable.of(get_dataset("camvid"), thing_ids=()).thing_ids
        ()
    """

    name: str
    class_names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    thing_ids: tuple[int, ...]
    label_divisor: int
    ignore_label: int

    @property
    def num_classes(self) -> int:
        """Number of semantic classes."""
        return len(self.class_names)

    @classmethod
    def of(cls, classes: Classes, **changes: Any) -> "ClassTable":
        """Copies the classes of a model or a data set, with changes."""
        fields = {
            "name": classes.name,
            "class_names": classes.class_names,
            "colors": classes.colors,
            "thing_ids": classes.thing_ids,
            "label_divisor": classes.label_divisor,
            "ignore_label": classes.ignore_label,
        }
        return cls(**{**fields, **changes})
