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

import functools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.datasets.coco_panoptic import (
    ANNOTATION_DIRS,
    find_annotation,
    read_annotations,
)
from deeplab2_edge.datasets.description import load_description
from deeplab2_edge.datasets.info import DatasetInfo
from deeplab2_edge.datasets.labels import CocoLabel, PngLabel, label_problems
from deeplab2_edge.errors import DataError
from deeplab2_edge.images import list_images, read_image

DESCRIPTION_NAME = "dataset.json"
# `<sequence>_<frame>`, as the data sets with depth name their files.
_VIDEO_NAME = re.compile(r"([^_]+)_(\d+)(_.*)?")


class SampleLike(Protocol):
    """What evaluation, calibration and drawing ask of a sample."""

    @property
    def name(self) -> str:
        """Unique in its data set; a relative path without suffix."""

    def load_image(self) -> NDArray[np.uint8]:
        """Returns `[H, W, 3]` RGB, upright."""

    def load_panoptic(self) -> NDArray[np.int32] | None:
        """Returns `[H, W]` class * divisor + instance, None if not labelled."""


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

    @functools.cached_property  # asked for every image
    def is_labelled(self) -> bool:
        """Says that at least one sample has a label."""
        return any(sample.label is not None for sample in self.samples)


def video_of_name(name: str, default: str) -> str:
    """Names the video of a frame: its folder, or the start of `<sequence>_<frame>`.

    Args:
        name: Path of the frame below the data set, without suffix.
        default: What a frame of neither kind belongs to.

    Example:
        >>> [video_of_name(n, "all") for n in ("0002/000001", "a_01_x", "b")]
        ['0002', 'a', 'all']
    """
    folder, _, base = name.rpartition("/")
    frame = frame_of_name(base)
    return folder or (frame[0] if frame else default)


def frame_of_name(base: str) -> tuple[str, str] | None:
    """Reads sequence and frame off a file name without suffix; None if it has none.

    Example:
        >>> frame_of_name("000001_000019_munster")
        ('000001', '000019')
    """
    match = _VIDEO_NAME.fullmatch(base)
    return (match[1], match[2]) if match else None


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
        is_nested = root.parent.name in ANNOTATION_DIRS
        root = root.parent.parent if is_nested else root.parent
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise DataError(f"{root}: expected a folder of images, found {found}")
    if dataset is None and (root / DESCRIPTION_NAME).is_file():
        dataset = load_description(root / DESCRIPTION_NAME)
    annotation = annotation or find_annotation(root)
    if annotation is not None:
        coco = read_annotations(
            root, annotation, dataset, crowd_is_ignored=crowd_is_ignored
        )
        samples = tuple(Sample(*entry) for entry in coco.entries)
        return FolderDataset(coco.info, samples, coco.image_dir, coco.label_dir)
    label_dir, image_dir = root / "labels", root / "images"
    if label_dir.is_dir():
        if not image_dir.is_dir():
            raise DataError(f"{root}: holds labels/ but no images/; put them there")
        if dataset is None:
            raise DataError(
                f"{root}: labels/ needs a data set to be understood; name one, or "
                f"write {DESCRIPTION_NAME} beside it with the list of classes"
            )
        return _open_plain(image_dir, label_dir, dataset)
    if not image_dir.is_dir():
        image_dir = root
    images = list_images(image_dir)
    return FolderDataset(
        dataset or _unknown_dataset(root.name),
        tuple(Sample(name, path) for name, path in images.items()),
        image_dir,
    )


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
