"""Label files: what a PNG says about every pixel, and whether it makes sense."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.datasets.info import DatasetInfo
from deeplab2_edge.errors import DataError
from deeplab2_edge.images import read_label_png

# Black is "no segment" in COCO panoptic PNGs.
VOID_SEGMENT = 0
# What a 16-bit label PNG says for "ignore": 255 * divisor does not fit in 16 bits.
IGNORE_16BIT = 65535

_MODES = {
    "gray": "8-bit gray (class)",
    "rgb": "8-bit RGB (R class, 256 G + B instance)",
    "gray16": "16-bit gray (class * divisor + instance)",
}


class LabelMaps(NamedTuple):
    """Holds classes and instances as stored, not yet checked.

    Attributes:
        semantic: `[H, W]` int32, class or ignore label, possibly out of range.
        instance: `[H, W]` int32, 0 on stuff, crowd and ignored pixels.
    """

    semantic: NDArray[np.int32]
    instance: NDArray[np.int32]


class Segment(NamedTuple):
    """Describes one entry of `segments_info`."""

    id: int
    semantic: int
    instance: int
    area_px: int | None


@dataclass(frozen=True)
class CocoLabel:
    """Is a COCO panoptic PNG: segment id = R + 256 * G + 65536 * B.

    Attributes:
        path: The PNG.
        info: The data set.
        segments: What the annotation file says about it.
        checks_areas: Reading fails if a segment has another number of pixels than
            its `area` says.
    """

    path: Path
    info: DatasetInfo = field(repr=False)
    segments: tuple[Segment, ...] = field(repr=False)
    checks_areas: bool = False

    def read_segment_ids(self) -> NDArray[np.int32]:
        """Reads the `[H, W]` segment ids.

        Raises:
            DataError: If the PNG is damaged or not 8-bit RGB.
        """
        colors = read_label_png(self.path)
        if colors.ndim != 3:
            raise DataError(
                f"{self.path}: a COCO panoptic PNG must be 8-bit RGB "
                f"(id = R + 256 G + 65536 B), found a single channel of {colors.dtype}"
            )
        wide = colors.astype(np.int32)
        return wide[..., 0] + 256 * wide[..., 1] + 65536 * wide[..., 2]

    def read(self) -> LabelMaps:
        """Reads classes and instances; pixels of no listed segment are ignored.

        Raises:
            DataError: As `read_segment_ids`, or if an `area` is wrong.
        """
        pixels = self.read_segment_ids()
        ordered = sorted(self.segments)
        ids = np.array([s.id for s in ordered] or [-1], np.int32)
        semantics = [s.semantic for s in ordered] or [self.info.ignore_label]
        instances = [s.instance for s in ordered] or [0]
        position = np.minimum(np.searchsorted(ids, pixels), len(ids) - 1)
        is_listed = ids[position] == pixels
        if self.checks_areas:
            self._check_areas(np.bincount(position[is_listed], minlength=len(ids)))
        semantic = np.array(semantics, np.int32)[position]
        instance = np.array(instances, np.int32)[position]
        return LabelMaps(
            np.where(is_listed, semantic, np.int32(self.info.ignore_label)),
            np.where(is_listed, instance, np.int32(0)),
        )

    def _check_areas(self, counts: NDArray[np.intp]) -> None:
        for segment, count in zip(sorted(self.segments), counts, strict=False):
            if segment.area_px not in (None, count):
                raise DataError(
                    f"{self.path}: segment {segment.id} has {count} pixels, its `area` "
                    f"says {segment.area_px}; PNG and JSON may be of different versions"
                )


@dataclass(frozen=True)
class PngLabel:
    """Is a PNG that holds classes and instances directly.

    8-bit grey or palette (`"gray"`): the class. 8-bit RGB (`"rgb"`): R the class,
    256 * G + B the instance. 16-bit grey (`"gray16"`): class * divisor + instance,
    and 65535 is ignore.

    Attributes:
        path: The PNG.
        info: The data set.
        modes: Which of the three the data set uses.
    """

    path: Path
    info: DatasetInfo = field(repr=False)
    modes: tuple[str, ...] = tuple(_MODES)

    def read(self) -> LabelMaps:
        """Reads classes and instances.

        Raises:
            DataError: If the PNG is damaged or of a mode the data set does not use.
        """
        stored = read_label_png(self.path)
        mode = "rgb" if stored.ndim == 3 else "gray"
        mode = "gray16" if stored.dtype == np.uint16 else mode
        if mode not in self.modes:
            raise DataError(
                f"{self.path}: is {_MODES[mode]}; labels of {self.info.name!r} are "
                f"{' or '.join(_MODES[m] for m in self.modes)}"
            )
        label = stored.astype(np.int32)
        ignore = np.int32(self.info.ignore_label)
        if stored.ndim == 3:
            semantic = label[..., 0]
            instance = 256 * label[..., 1] + label[..., 2]
        elif stored.dtype == np.uint16:
            is_ignored = label == IGNORE_16BIT
            semantic = np.where(is_ignored, ignore, label // self.info.label_divisor)
            instance = np.where(is_ignored, 0, label % self.info.label_divisor)
        else:
            semantic, instance = label, np.zeros_like(label)
        return LabelMaps(semantic, np.where(semantic == ignore, 0, instance))


def label_problems(maps: LabelMaps, info: DatasetInfo) -> list[str]:
    """Says what in a label does not fit the data set, empty if all does.

    Args:
        maps: Classes and instances as stored.
        info: The data set.

    Returns:
        One sentence per problem: what was found, where first, what would be right.
    """
    semantic, instance = maps
    problems = []
    is_ignored = semantic == info.ignore_label
    is_unknown = ((semantic < 0) | (semantic >= info.num_classes)) & ~is_ignored
    if is_unknown.any():
        values = ", ".join(str(v) for v in np.unique(semantic[is_unknown])[:5])
        problems.append(
            f"{int(is_unknown.sum())} pixels hold class {values} ({_first(is_unknown)})"
            f"; classes of {info.name!r} are 0 to {info.num_classes - 1} and "
            f"{info.ignore_label} is ignored: map them, or name the right data set"
        )
    is_beyond = (instance >= info.label_divisor) | (instance < 0)
    if is_beyond.any():
        problems.append(
            f"instance id {int(instance[is_beyond].max())} ({_first(is_beyond)}) does "
            f"not fit the label divisor {info.label_divisor}: number the instances "
            "of each class from 1, or raise label_divisor"
        )
    is_thing = np.isin(semantic, np.array(info.thing_ids, np.int32))
    on_stuff = (instance != 0) & ~is_thing & ~is_ignored & ~is_unknown
    if on_stuff.any():
        values = ", ".join(
            info.class_names[v] for v in np.unique(semantic[on_stuff])[:5]
        )
        problems.append(
            f"instance ids on the stuff class {values} ({_first(on_stuff)}): store 0 "
            "there, or declare the class a thing"
        )
    return problems


def _first(mask: NDArray[np.bool_]) -> str:
    y, x = np.unravel_index(int(mask.argmax()), mask.shape)
    return f"first at y {y}, x {x}"
