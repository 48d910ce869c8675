"""What the project knows about a data set: classes, label encoding, colors."""

import collections
import colorsys
import dataclasses
from collections.abc import Mapping, Sequence

from deeplab2_edge.errors import ConfigError

_INT32_MAX = 2**31 - 1

# Name, "thing" or "stuff", color as six hexadecimal digits.
ClassRow = tuple[str, str, str]


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """Describes the labels of a data set; checks itself on creation.

    A panoptic label is `class * label_divisor + instance`. Stuff has instance 0;
    a thing class with instance 0 is a crowd; void is `ignore_label * label_divisor`.

    Attributes:
        name: What configurations call it.
        num_classes: Number of semantic classes, the void class included where the
            ignore label is one of them (COCO, ADE20K).
        ignore_label: Semantic id of void pixels, below `label_divisor`.
        label_divisor: Above the largest instance id of an image and the ignore label.
        thing_ids: Classes with instances, ascending.
        class_names: One name per class.
        colors: RGB in 0..255, one per class.
        split_sizes: Number of images per split, for information.
        is_video: Whether images come in sequences.
        is_depth: Whether there is depth.
        ignore_depth: Depth value that means "unknown".
        category_ids: The id of each class in the data set's own annotation files and
            benchmark server (COCO categories, Cityscapes label ids), None if there
            is no such mapping.

    Raises:
        ConfigError: If the values contradict each other; all faults are listed.
    """

    name: str
    num_classes: int
    ignore_label: int
    label_divisor: int
    thing_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    split_sizes: Mapping[str, int] = dataclasses.field(default_factory=dict, hash=False)
    is_video: bool = False
    is_depth: bool = False
    ignore_depth: int | None = None
    category_ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if faults := _faults(self):
            raise ConfigError(f"data set {self.name!r}: " + "; ".join(faults))

    @property
    def ignored_panoptic_id(self) -> int:
        """The panoptic label of a void pixel."""
        return self.ignore_label * self.label_divisor

    @property
    def stuff_ids(self) -> tuple[int, ...]:
        """The classes without instances; the ignore label is not one of them."""
        neither = {*self.thing_ids, self.ignore_label}
        return tuple(i for i in range(self.num_classes) if i not in neither)

    def label_difference(self, other: "DatasetInfo") -> str | None:
        """Returns the first field by which labels mean something else, or None."""
        for field in ("class_names", "thing_ids", "ignore_label", "label_divisor"):
            if getattr(self, field) != getattr(other, field):
                return field
        return None


def info_from_rows(
    name: str,
    rows: Sequence[ClassRow],
    *,
    ignore_label: int = 255,
    label_divisor: int = 1000,
    split_sizes: Mapping[str, int] | None = None,
    category_ids: Sequence[int] | None = None,
    is_video: bool = False,
    is_depth: bool = False,
    ignore_depth: int | None = None,
) -> DatasetInfo:
    """Builds the description of a data set from a table with a row per class.

    Args:
        name: What configurations call it.
        rows: `(name, "thing" or "stuff", "rrggbb")`, in class order.
        ignore_label: See `DatasetInfo`, as for all that follow.
        label_divisor: See `DatasetInfo`.
        split_sizes: See `DatasetInfo`.
        category_ids: See `DatasetInfo`.
        is_video: See `DatasetInfo`.
        is_depth: See `DatasetInfo`.
        ignore_depth: See `DatasetInfo`.
    """
    return DatasetInfo(
        name=name,
        num_classes=len(rows),
        ignore_label=ignore_label,
        label_divisor=label_divisor,
        thing_ids=tuple(i for i, (_, kind, _) in enumerate(rows) if kind == "thing"),
        class_names=tuple(class_name for class_name, _, _ in rows),
        colors=tuple(_rgb(color) for _, _, color in rows),
        split_sizes=dict(split_sizes or {}),
        is_video=is_video,
        is_depth=is_depth,
        ignore_depth=ignore_depth,
        category_ids=None if category_ids is None else tuple(category_ids),
    )


def default_color(class_id: int) -> tuple[int, int, int]:
    """Returns the RGB color of a class that names none.

    Hues go round by the golden ratio, so neighbors differ; brightness alternates.
    """
    hue = class_id * 0.61803398875 % 1.0
    value = (0.95, 0.70, 0.45)[class_id % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _rgb(color: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(color)
    return red, green, blue


def _faults(info: DatasetInfo) -> list[str]:
    """Lists what is wrong, each as `found ...; expected ...`."""
    faults = []

    def expect(is_right: bool, found: str, expected: str) -> None:
        if not is_right:
            faults.append(f"found {found}, expected {expected}")

    count = info.num_classes
    expect(bool(info.name.strip()), "an empty name", "a name")
    expect(count >= 1, f"{count} classes", "at least one")
    for what, values in (("names", info.class_names), ("colors", info.colors)):
        expect(
            len(values) == count,
            f"{len(values)} class {what}",
            f"{count}, one per class",
        )
    expect(
        all(name.strip() for name in info.class_names),
        "an empty class name",
        "a name for every class",
    )
    occurrences = collections.Counter(info.class_names)
    repeated = sorted(name for name, times in occurrences.items() if times > 1)
    expect(not repeated, f"class name {', '.join(repeated)} twice", "different names")
    expect(
        all(len(c) == 3 and all(0 <= v <= 255 for v in c) for c in info.colors),
        "a color that is not three numbers in 0..255",
        "RGB",
    )
    expect(
        0 <= info.ignore_label < info.label_divisor,
        f"ignore_label {info.ignore_label} with label_divisor {info.label_divisor}",
        "0 <= ignore_label < label_divisor",
    )
    largest = (max(count - 1, info.ignore_label) + 1) * info.label_divisor - 1
    expect(
        largest <= _INT32_MAX,
        f"panoptic labels up to {largest}",
        f"at most {_INT32_MAX} (32-bit); choose a smaller label_divisor",
    )
    expect(
        list(info.thing_ids) == sorted(set(info.thing_ids))
        and all(0 <= thing < count for thing in info.thing_ids),
        f"thing_ids {list(info.thing_ids)}",
        f"ascending class ids in 0..{count - 1}",
    )
    expect(
        info.ignore_label not in info.thing_ids,
        f"ignore_label {info.ignore_label} among thing_ids",
        "another ignore label",
    )
    expect(
        all(size >= 0 for size in info.split_sizes.values()),
        "a negative split size",
        "numbers of images",
    )
    if info.category_ids is not None:
        expect(
            len(info.category_ids) == count
            and len(set(info.category_ids)) == count
            and all(category >= 0 for category in info.category_ids),
            f"{len(set(info.category_ids))} different category ids",
            f"{count} different ones, none negative",
        )
    return faults
