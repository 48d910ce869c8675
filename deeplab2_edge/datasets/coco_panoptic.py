"""COCO panoptic annotations: one JSON file and a folder of PNGs.

Read are the format itself and what the published data sets make of it: COCO,
Cityscapes as prepared with train ids, and ADE20K as prepared for panoptic work.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deeplab2_edge.datasets.info import DatasetInfo, default_color
from deeplab2_edge.datasets.json_file import objects, read_object, relative_path, whole
from deeplab2_edge.datasets.labels import VOID_SEGMENT, CocoLabel, Segment
from deeplab2_edge.errors import DataError
from deeplab2_edge.images import list_images

ANNOTATION_DIRS = ("annotations", "gtFine")

# What messages call the place a `file_name` must stay in.
_FOLDER = "the data set's folder"
_TRAIN_ID_SUFFIX = "_trainId"  # Cityscapes: categories are train ids, not label ids
_CITYSCAPES_IMAGE, _CITYSCAPES_LABEL = "_leftImg8bit", "_gtFine_panoptic"


@dataclass(frozen=True)
class CocoFolder:
    """Holds what an annotation file says.

    Attributes:
        info: The data set given, or one made of the categories.
        image_dir: Where the images lie.
        label_dir: Where the PNGs lie.
        entries: Name, image and label of every annotated image, sorted by name.
    """

    info: DatasetInfo
    image_dir: Path
    label_dir: Path
    entries: tuple[tuple[str, Path, CocoLabel], ...]


def find_annotation(root: Path) -> Path | None:
    """Finds the one annotation file that has a folder of PNGs of the same name.

    Raises:
        DataError: If there are several.
    """
    found = [
        path
        for folder in (root, *(root / name for name in ANNOTATION_DIRS))
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


def read_annotations(
    root: Path,
    annotation: Path,
    info: DatasetInfo | None,
    *,
    crowd_is_ignored: bool,
    image_dir: Path | None = None,
    checks_areas: bool = False,
) -> CocoFolder:
    """Reads an annotation file; images and labels are located, not opened.

    Args:
        root: The data set's folder.
        annotation: The JSON file in it.
        info: The data set; if None, one is made of the file's categories.
        crowd_is_ignored: Crowd segments become ignored pixels; if False they keep
            their class with instance 0.
        image_dir: Where the images lie; by default a folder of a usual name.
        checks_areas: Reading a label compares each segment with its `area`.

    Raises:
        DataError: If the file is damaged, names unknown categories, lists a segment
            or image twice, or an image is missing.
    """
    document = read_object(annotation)
    if info is None:
        info = _info_from_categories(root.name, document, annotation)
    image_dir = image_dir or _find_images(root, annotation)
    label_dir = annotation.with_suffix("")
    reader = _SegmentReader(annotation, info, crowd_is_ignored)
    finder = _ImageFinder(annotation, document, image_dir)
    entries: dict[str, tuple[str, Path, CocoLabel]] = {}
    for entry in objects(document, "annotations", annotation):
        label_path = label_dir / relative_path(entry, annotation, folder=_FOLDER)
        name, image_path = finder.find(entry, label_path)
        if name in entries:
            raise DataError(f"{annotation}: image {name!r} is annotated twice")
        segments = reader.read(entry, label_path.name)
        entries[name] = (
            name,
            image_path,
            CocoLabel(label_path, info, segments, checks_areas),
        )
    if not entries:
        raise DataError(f"{annotation}: holds no annotations")
    ordered = tuple(entries[name] for name in sorted(entries))
    return CocoFolder(info, image_dir, label_dir, ordered)


def classes_of_categories(info: DatasetInfo, annotation: Path) -> dict[int, int]:
    """Returns the class of every category that an annotation file may name.

    Args:
        info: The data set.
        annotation: The file; the name of one with train ids says so.
    """
    category_ids: Sequence[int] = range(info.num_classes)
    if info.category_ids and not annotation.stem.endswith(_TRAIN_ID_SUFFIX):
        category_ids = info.category_ids
    return {category: index for index, category in enumerate(category_ids)}


def _find_images(root: Path, annotation: Path) -> Path:
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


class _ImageFinder:
    """Finds the image of an annotation: by the list of images, else by its name."""

    def __init__(self, path: Path, document: dict[str, Any], image_dir: Path) -> None:
        self._path = path
        self._image_dir = image_dir
        # Converters for Cityscapes and ADE20K leave the list out or name other files.
        listed = objects(document, "images", path) if "images" in document else []
        self._listed = {str(image.get("id")): image for image in listed}
        self._by_stem: dict[str, Path] | None = None

    def find(self, entry: Mapping[str, Any], label_path: Path) -> tuple[str, Path]:
        """Returns name and path of the image."""
        image = self._listed.get(str(entry.get("image_id")))
        if image is not None:
            relative = relative_path(image, self._path, folder=_FOLDER)
            if (self._image_dir / relative).is_file():
                return relative.with_suffix("").as_posix(), self._image_dir / relative
        if self._by_stem is None:
            self._by_stem = {
                path.stem.removesuffix(_CITYSCAPES_IMAGE): path
                for path in list_images(self._image_dir).values()
            }
        stem = label_path.stem.removesuffix(_CITYSCAPES_LABEL)
        image_id = entry.get("image_id")
        if stem != label_path.stem and image_id != stem:
            raise DataError(
                f"{self._path}: annotation {label_path.name} has image_id "
                f"{image_id!r}; expected {stem!r}"
            )
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
        self._classes = classes_of_categories(info, path)

    def read(self, entry: Mapping[str, Any], where: str) -> tuple[Segment, ...]:
        """Numbers the instances of each class 1, 2, ... in the order of the list."""
        counts: dict[int, int] = {}
        segments: dict[int, Segment] = {}
        for item in objects(entry, "segments_info", self._path):
            segment_id = whole(item, "id", self._path)
            category = whole(item, "category_id", self._path)
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
        if VOID_SEGMENT in segments:
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
        whole(category, "id", path): category
        for category in objects(document, "categories", path)
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
