"""Data sets as folders of image files.

`open_folder` recognizes three layouts:

    COCO panoptic       <root>/panoptic.json, panoptic/*.png, images/*
                        and as published: COCO (annotations/panoptic_<split>.json),
                        Cityscapes (gtFine/cityscapes_panoptic_<split>_trainId.json),
                        ADE20K (ade20k_panoptic_<split>.json)
    plain               <root>/dataset.json, images/*, labels/*.png
    images only         <root>/*.jpg, or <root>/images/*.jpg

Every sample offers `name`, `load_image()` and `load_panoptic()`; whatever has these
three (rendered scenes, for example) can stand where a folder's sample stands.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.datasets.description import load_description
from deeplab2_edge.datasets.info import DatasetInfo, default_color
from deeplab2_edge.errors import DataError
from deeplab2_edge.images import IMAGE_SUFFIXES, read_image, read_label_png

DESCRIPTION_NAME = "dataset.json"

# The largest public file, COCO train2017, has 180 MB.
_MAX_JSON_BYTES = 1024 * 1024 * 1024
_ANNOTATION_DIRS = ("annotations", "gtFine")
_TRAIN_ID_SUFFIX = "_trainId"  # Cityscapes: categories are train ids, not label ids
_CITYSCAPES_IMAGE, _CITYSCAPES_LABEL = "_leftImg8bit", "_gtFine_panoptic"
# Black is "no segment" in COCO panoptic PNGs, listed or not.
_VOID_SEGMENT = 0
# What a 16-bit label PNG says for "ignore": 255 * divisor does not fit in 16 bits.
IGNORE_16BIT = 65535


class SampleLike(Protocol):
    """What training, evaluation and the builders ask of a sample."""

    @property
    def name(self) -> str:
        """Unique in its data set; a relative path without suffix."""

    def load_image(self) -> NDArray[np.uint8]:
        """Returns `[H, W, 3]` RGB, upright."""

    def load_panoptic(self) -> NDArray[np.int32] | None:
        """Returns `[H, W]` class * divisor + instance, None if not labelled."""


class LabelFile(Protocol):
    """A label file and all that is needed to understand it."""

    @property
    def path(self) -> Path:
        """The PNG file."""

    def read(self) -> "LabelMaps":
        """Reads the file without judging whether classes and ids make sense."""


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
    """Is a COCO panoptic PNG: segment id = R + 256 * G + 65536 * B."""

    path: Path
    info: DatasetInfo = field(repr=False)
    segments: tuple[Segment, ...] = field(repr=False)

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
        """Reads classes and instances; pixels of no listed segment are ignored."""
        pixels = self.read_segment_ids()
        ordered = sorted(self.segments)
        ids = np.array([s.id for s in ordered] or [-1], np.int32)
        semantics = [s.semantic for s in ordered] or [self.info.ignore_label]
        instances = [s.instance for s in ordered] or [0]
        position = np.minimum(np.searchsorted(ids, pixels), len(ids) - 1)
        is_listed = ids[position] == pixels
        semantic = np.array(semantics, np.int32)[position]
        instance = np.array(instances, np.int32)[position]
        return LabelMaps(
            np.where(is_listed, semantic, np.int32(self.info.ignore_label)),
            np.where(is_listed, instance, np.int32(0)),
        )


@dataclass(frozen=True)
class PngLabel:
    """Is a PNG that holds classes and instances directly.

    8-bit grey or palette: the class. 8-bit RGB: R the class, 256 * G + B the
    instance. 16-bit grey: class * divisor + instance, and 65535 is ignore.
    """

    path: Path
    info: DatasetInfo = field(repr=False)

    def read(self) -> LabelMaps:
        """Reads classes and instances."""
        stored = read_label_png(self.path)
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


@dataclass(frozen=True)
class Sample:
    """Is one image of a folder with its label, both read on demand.

    Attributes:
        name: Path below the image folder, without suffix, with forward slashes.
        image_path: The image file.
        label: The label file, None if there is none.
    """

    name: str
    image_path: Path
    label: CocoLabel | PngLabel | None = None

    def load_image(self) -> NDArray[np.uint8]:
        """Reads `[H, W, 3]` RGB, upright as EXIF says.

        Raises:
            DataError: If the file cannot be used; it is named.
        """
        return read_image(self.image_path)

    def load_panoptic(self) -> NDArray[np.int32] | None:
        """Reads `[H, W]` class * divisor + instance, None if there is no label.

        Raises:
            DataError: If the file is damaged or holds classes or instances that the
                data set does not have; the first problem is named.
        """
        if self.label is None:
            return None
        maps = self.label.read()
        info = self.label.info
        problems = label_problems(maps, info)
        if problems:
            raise DataError(f"{self.label.path}: {problems[0]}")
        return maps.semantic * np.int32(info.label_divisor) + maps.instance


@dataclass(frozen=True)
class FolderDataset:
    """Is a data set and its samples, sorted by name, and the folders they lie in."""

    info: DatasetInfo
    samples: Sequence[Sample]
    image_dir: Path
    label_dir: Path | None = None

    @property
    def is_labelled(self) -> bool:
        """Says that at least one sample has a label."""
        return any(sample.label is not None for sample in self.samples)


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


def open_folder(
    root: str | os.PathLike[str],
    dataset: DatasetInfo | None = None,
    *,
    crowd_is_ignored: bool = True,
) -> FolderDataset:
    """Opens a folder of images, with labels if it holds any.

    Only lists of files and the annotation JSON are read here; images and labels are
    read when a sample is asked for them.

    Args:
        root: A folder in one of the layouts of this module. If it holds annotations
            of several splits: the annotation JSON of one.
        dataset: Its classes. If None: `dataset.json` in the folder, else the
            categories of the COCO JSON, else a single class `unknown` for a folder
            of images without labels.
        crowd_is_ignored: COCO segments with `iscrowd` become ignored pixels; if
            False they keep their class with instance 0.

    Raises:
        DataError: If there is no image, or if image, label and annotation files do
            not fit together.
        ConfigError: If `dataset.json` is wrong.

    Example:
        >>> folder = open_folder("street/val")  # doctest: +SKIP
        >>> folder.samples[0].load_panoptic().shape  # doctest: +SKIP
        (360, 480)
    """
    root = Path(root)
    annotation = None
    if root.is_file() and root.suffix == ".json":
        annotation = root
        is_nested = root.parent.name in _ANNOTATION_DIRS
        root = root.parent.parent if is_nested else root.parent
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise DataError(f"{root}: expected a folder of images, found {found}")
    if dataset is None and (root / DESCRIPTION_NAME).is_file():
        dataset = load_description(root / DESCRIPTION_NAME)
    annotation = annotation or _find_coco_json(root)
    if annotation is not None:
        return _open_coco(root, annotation, dataset, crowd_is_ignored)
    label_dir = root / "labels"
    image_dir = root / "images" if (root / "images").is_dir() else root
    if label_dir.is_dir():
        if dataset is None:
            raise DataError(
                f"{root}: labels/ needs a data set to be understood; name one, or "
                f"write {DESCRIPTION_NAME} beside it with the list of classes"
            )
        return _open_plain(image_dir, label_dir, dataset)
    images = list_images(image_dir)
    return FolderDataset(
        dataset or _unknown_dataset(root.name),
        tuple(Sample(name, path) for name, path in images.items()),
        image_dir,
    )


def _first(mask: NDArray[np.bool_]) -> str:
    y, x = np.unravel_index(int(mask.argmax()), mask.shape)
    return f"first at y {y}, x {x}"


def _unknown_dataset(name: str) -> DatasetInfo:
    return DatasetInfo(
        name=name or "images",
        num_classes=1,
        ignore_label=255,
        label_divisor=1000,
        thing_ids=(),
        class_names=("unknown",),
        colors=((128, 128, 128),),
        split_sizes={},
    )


def list_images(folder: Path) -> dict[str, Path]:
    """Lists images below a folder: name without suffix -> path, sorted."""
    images: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        is_hidden = any(part.startswith(".") for part in relative.parts)
        if is_hidden or path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        name = relative.with_suffix("").as_posix()
        if name in images:
            raise DataError(
                f"{path}: {images[name].name} has the same name; two images of one "
                "name cannot be told apart, rename one"
            )
        images[name] = path
    if not images:
        suffixes = ", ".join(IMAGE_SUFFIXES)
        raise DataError(f"{folder}: holds no images ({suffixes})")
    return dict(sorted(images.items()))


def _open_plain(image_dir: Path, label_dir: Path, info: DatasetInfo) -> FolderDataset:
    images = list_images(image_dir)
    samples = []
    for name, path in images.items():
        label_path = label_dir / f"{name}.png"
        label = PngLabel(label_path, info) if label_path.is_file() else None
        samples.append(Sample(name, path, label))
    if all(sample.label is None for sample in samples):
        raise DataError(
            f"{label_dir}: no label fits an image; the label of "
            f"{samples[0].image_path.name} must be {samples[0].name}.png"
        )
    return FolderDataset(info, tuple(samples), image_dir, label_dir)


def _find_coco_json(root: Path) -> Path | None:
    """Finds the one annotation file that has a folder of PNGs of the same name."""
    found = [
        path
        for folder in (root, *(root / name for name in _ANNOTATION_DIRS))
        for path in sorted(folder.glob("*panoptic*.json"))
        if path.with_suffix("").is_dir()
    ]
    if len(found) > 1:
        names = ", ".join(str(path.relative_to(root)) for path in found)
        raise DataError(
            f"{root}: found several annotation files ({names}); name one of them "
            "instead of the folder"
        )
    return found[0] if found else None


def _find_coco_images(root: Path, annotation: Path) -> Path:
    split = annotation.stem.partition("panoptic")[2].strip("_")
    split = split.removesuffix(_TRAIN_ID_SUFFIX)
    names = ["images", "input_images"]
    if split:
        long_names = {"train": "training", "val": "validation"}  # ADE20K
        folders = [split, f"images/{split}", f"leftImg8bit/{split}"]
        names = [*folders, f"images/{long_names.get(split, split)}", *names]
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise DataError(
        f"{root}: the images of {annotation.name} are missing; put them in "
        f"{root / names[0]}"
    )


def _open_coco(
    root: Path, annotation: Path, info: DatasetInfo | None, crowd_is_ignored: bool
) -> FolderDataset:
    document = _read_json(annotation)
    if info is None:
        info = _info_from_categories(root.name, document, annotation)
    image_dir = _find_coco_images(root, annotation)
    label_dir = annotation.with_suffix("")
    reader = _SegmentReader(annotation, info, crowd_is_ignored)
    finder = _ImageFinder(annotation, document, image_dir)
    samples: dict[str, Sample] = {}
    for entry in _objects(document, "annotations", annotation):
        label_path = label_dir / _relative(entry, annotation)
        name, image_path = finder.find(entry, label_path)
        if name in samples:
            raise DataError(f"{annotation}: image {name!r} is annotated twice")
        segments = reader.read(entry, label_path.name)
        samples[name] = Sample(name, image_path, CocoLabel(label_path, info, segments))
    if not samples:
        raise DataError(f"{annotation}: holds no annotations")
    ordered = tuple(samples[name] for name in sorted(samples))
    return FolderDataset(info, ordered, image_dir, label_dir)


class _ImageFinder:
    """Finds the image of an annotation: by the list of images, else by its name."""

    def __init__(self, path: Path, document: dict[str, Any], image_dir: Path) -> None:
        self._path = path
        self._image_dir = image_dir
        # Converters for Cityscapes and ADE20K leave the list out or name other files.
        listed = _objects(document, "images", path) if "images" in document else []
        self._listed = {str(image.get("id")): image for image in listed}
        self._by_stem: dict[str, Path] | None = None

    def find(self, entry: Mapping[str, Any], label_path: Path) -> tuple[str, Path]:
        """Returns name and path of the image."""
        image = self._listed.get(str(entry.get("image_id")))
        if image is not None:
            relative = _relative(image, self._path)
            if (self._image_dir / relative).is_file():
                return relative.with_suffix("").as_posix(), self._image_dir / relative
        if self._by_stem is None:
            self._by_stem = {
                path.stem.removesuffix(_CITYSCAPES_IMAGE): path
                for path in list_images(self._image_dir).values()
            }
        stem = label_path.stem.removesuffix(_CITYSCAPES_LABEL)
        if stem not in self._by_stem:
            raise DataError(
                f"{self._path}: the image of annotation {label_path.name} is missing; "
                f"expected {self._image_dir / stem}.jpg or .png"
            )
        return stem, self._by_stem[stem]


class _SegmentReader:
    """Turns `segments_info` into classes and instance numbers."""

    def __init__(self, path: Path, info: DatasetInfo, crowd_is_ignored: bool) -> None:
        self._path = path
        self._info = info
        self._crowd_is_ignored = crowd_is_ignored
        self._things = frozenset(info.thing_ids)
        category_ids: Sequence[int] = range(info.num_classes)
        if info.category_ids and not path.stem.endswith(_TRAIN_ID_SUFFIX):
            category_ids = info.category_ids
        self._classes = {category: index for index, category in enumerate(category_ids)}

    def read(self, entry: Mapping[str, Any], where: str) -> tuple[Segment, ...]:
        """Numbers the instances of each class 1, 2, ... in the order of the list."""
        counts: dict[int, int] = {}
        segments: dict[int, Segment] = {}
        for item in _objects(entry, "segments_info", self._path):
            segment_id = _whole(item, "id", self._path)
            category = _whole(item, "category_id", self._path)
            if category not in self._classes:
                raise DataError(
                    f"{self._path}: {where}: segment {segment_id} has category "
                    f"{category}, which data set {self._info.name!r} does not know"
                )
            if segment_id in segments:
                raise DataError(
                    f"{self._path}: {where}: segment {segment_id} is listed twice"
                )
            semantic, instance = self._classes[category], 0
            if item.get("iscrowd", 0):
                if semantic not in self._things:
                    raise DataError(
                        f"{self._path}: {where}: segment {segment_id} is a crowd of "
                        f"stuff class {self._info.class_names[semantic]!r}; only "
                        "things form crowds"
                    )
                if self._crowd_is_ignored:
                    semantic = self._info.ignore_label
            elif semantic in self._things:
                instance = counts[semantic] = counts.get(semantic, 0) + 1
            area = item.get("area")
            segments[segment_id] = Segment(
                segment_id, semantic, instance, area if type(area) is int else None
            )
        if _VOID_SEGMENT in segments:
            raise DataError(
                f"{self._path}: {where}: segment id 0 is listed; black means "
                "unlabelled, give the segment another id"
            )
        return tuple(segments.values())


def _info_from_categories(
    name: str, document: dict[str, Any], path: Path
) -> DatasetInfo:
    """Makes a data set of the categories of a COCO file, in the order of their ids."""
    if not document.get("categories"):
        raise DataError(f"{path}: `categories` is missing or empty; name a data set")
    categories = {
        _whole(category, "id", path): category
        for category in _objects(document, "categories", path)
    }
    ids = tuple(sorted(categories))
    ignore_label = max(255, len(ids) + 1)
    return DatasetInfo(
        name=name or "coco",
        num_classes=len(ids),
        ignore_label=ignore_label,
        label_divisor=max(1000, ignore_label + 1),
        thing_ids=tuple(
            index for index, i in enumerate(ids) if categories[i].get("isthing")
        ),
        class_names=tuple(str(categories[i].get("name", i)) for i in ids),
        colors=tuple(
            _color(categories[i].get("color"), index) for index, i in enumerate(ids)
        ),
        split_sizes={},
        category_ids=ids,
    )


def _color(given: object, index: int) -> tuple[int, int, int]:
    """Returns the color of a category, or one of the palette if none is given."""
    if (
        isinstance(given, list)
        and len(given) == 3
        and all(type(value) is int and 0 <= value <= 255 for value in given)
    ):
        return given[0], given[1], given[2]
    return default_color(index)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        if size > _MAX_JSON_BYTES:
            raise DataError(
                f"{path}: has {size} bytes; annotations may have {_MAX_JSON_BYTES}"
            )
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not valid JSON ({error})") from error
    if not isinstance(document, dict):
        raise DataError(f"{path}: must hold a JSON object")
    return document


def _objects(owner: Mapping[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    items = owner.get(key)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise DataError(f"{path}: `{key}` must be a list of objects")
    return items


def _whole(owner: Mapping[str, Any], key: str, path: Path) -> int:
    value = owner.get(key)
    if type(value) is not int or not 0 <= value < 2**31:
        raise DataError(f"{path}: `{key}` must be a whole number, found {value!r}")
    return value


def _relative(owner: Mapping[str, Any], path: Path) -> PurePosixPath:
    """Returns `file_name` if it stays inside its folder; the file may be hostile."""
    name = owner.get("file_name")
    relative = PurePosixPath(name) if isinstance(name, str) else PurePosixPath()
    is_inside = not relative.is_absolute() and ".." not in relative.parts
    if not relative.name or not is_inside or "\0" in str(relative):
        raise DataError(
            f"{path}: file_name {name!r} must be a path inside the data set's folder"
        )
    return relative
