"""Checks data before it is trained on: what is wrong, where, and how to mend it."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.datasets.folders import (
    DESCRIPTION_NAME,
    FolderDataset,
    Sample,
    open_folder,
)
from deeplab2_edge.datasets.info import DatasetInfo
from deeplab2_edge.datasets.labels import CocoLabel, LabelMaps, label_problems
from deeplab2_edge.errors import DataError
from deeplab2_edge.images import list_images
from deeplab2_edge.progress import progress
from deeplab2_edge.wording import counted

_MAX_PRINTED_PROBLEMS = 20


@dataclass(frozen=True)
class Problem:
    """Is one thing that is wrong.

    Attributes:
        file: The file to look at; for records with the index in brackets.
        message: What was found, and how to mend it.
    """

    file: str
    message: str


@dataclass
class CheckReport:
    """Collects problems and counts of a data set.

    Attributes:
        path: What was checked.
        info: Its classes, None if it could not be opened.
        num_images: Images that could be read.
        num_labels: Labels that could be read.
        smallest: Least height and least width, None without images.
        largest: Greatest height and greatest width.
        class_pixels: `[num_classes]` pixels of each class.
        class_images: `[num_classes]` images that show the class.
        class_instances: `[num_classes]` instances.
        ignored_pixels: Pixels with the ignore label.
        problems: What is wrong; empty when all is well.
        notes: What may be intended but deserves a look.
    """

    path: str
    info: DatasetInfo | None = None
    num_images: int = 0
    num_labels: int = 0
    smallest: tuple[int, int] | None = None
    largest: tuple[int, int] | None = None
    class_pixels: NDArray[np.int64] = field(default_factory=lambda: _zeros(0))
    class_images: NDArray[np.int64] = field(default_factory=lambda: _zeros(0))
    class_instances: NDArray[np.int64] = field(default_factory=lambda: _zeros(0))
    ignored_pixels: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Says that no problem was found."""
        return not self.problems

    def start(self, info: DatasetInfo) -> None:
        """Sets the data set and clears the counts."""
        self.info = info
        self.class_pixels = _zeros(info.num_classes)
        self.class_images = _zeros(info.num_classes)
        self.class_instances = _zeros(info.num_classes)

    def add_problem(self, file: str | os.PathLike[str], message: str) -> None:
        """Notes a problem; a message that begins with the file's name is shortened."""
        name = os.fspath(file)
        self.problems.append(Problem(name, message.removeprefix(f"{name}: ")))

    def add_image(self, size: tuple[int, int]) -> None:
        """Counts an image of height and width `size`."""
        self.num_images += 1
        height, width = size
        low, high = self.smallest or size, self.largest or size
        self.smallest = min(low[0], height), min(low[1], width)
        self.largest = max(high[0], height), max(high[1], width)

    def add_label(self, file: str | os.PathLike[str], maps: LabelMaps) -> None:
        """Counts a label and notes what in it does not fit the data set."""
        assert self.info is not None
        info = self.info
        self.num_labels += 1
        for message in label_problems(maps, info):
            self.add_problem(file, message)
        semantic, instance = maps
        is_ignored = semantic == info.ignore_label
        self.ignored_pixels += int(is_ignored.sum())
        is_class = (semantic >= 0) & (semantic < info.num_classes) & ~is_ignored
        pixels = np.bincount(semantic[is_class], minlength=info.num_classes)
        self.class_pixels += pixels
        self.class_images += pixels > 0
        counted = is_class & (instance > 0) & (instance < info.label_divisor)
        counted &= np.isin(semantic, info.thing_ids)
        ids = np.unique(semantic[counted] * info.label_divisor + instance[counted])
        self.class_instances += np.bincount(
            ids // info.label_divisor, minlength=info.num_classes
        )

    def finish(self) -> None:
        """Adds notes on what the counts tell."""
        if self.info is None or not self.num_labels:
            return
        names = self.info.class_names
        absent = [
            names[i]
            for i in range(self.info.num_classes)
            if not self.class_pixels[i] and i != self.info.ignore_label
        ]
        if absent:
            self.notes.append(f"classes without a pixel: {_some(absent)}")
        flat = [
            names[i]
            for i in self.info.thing_ids
            if self.class_pixels[i] and not self.class_instances[i]
        ]
        if flat:
            self.notes.append(
                f"things without instances (all crowd, or semantic labels only): "
                f"{_some(flat)}; nothing teaches their instances"
            )

    def to_json(self) -> dict[str, Any]:
        """Returns everything as JSON values; shares are fractions of all pixels."""
        classes = []
        total = int(self.class_pixels.sum()) + self.ignored_pixels
        for index, name in enumerate(self.info.class_names if self.info else ()):
            pixels = int(self.class_pixels[index])
            classes.append(
                {
                    "name": name,
                    "pixels": pixels,
                    "share": pixels / total if total else 0.0,
                    "images": int(self.class_images[index]),
                    "instances": int(self.class_instances[index]),
                }
            )
        return {
            "path": self.path,
            "dataset": self.info.name if self.info else None,
            "clean": self.is_clean,
            "num_images": self.num_images,
            "num_labels": self.num_labels,
            "smallest": self.smallest,
            "largest": self.largest,
            "ignored_share": self.ignored_pixels / total if total else 0.0,
            "classes": classes,
            "problems": [{"file": p.file, "message": p.message} for p in self.problems],
            "notes": self.notes,
        }


def check_folder(
    root: str | os.PathLike[str],
    dataset: DatasetInfo | None = None,
    *,
    quiet: bool = False,
) -> CheckReport:
    """Checks a data folder: every image and label is decoded.

    Found are files that are missing, damaged, of the wrong mode or size; classes and
    instance ids the data set does not have; and, for COCO panoptic annotations,
    segments whose pixels are missing, unlisted or of another number than `area`.

    Args:
        root: As for `open_folder`.
        dataset: As for `open_folder`.
        quiet: Show no progress.

    Raises:
        DataError: If `root` does not exist.
        ConfigError: If `dataset.json` is wrong.
    """
    if not Path(root).exists():
        raise DataError(f"{root}: no such file or folder")
    report = CheckReport(str(root))
    try:
        folder = open_folder(root, dataset)
    except DataError as error:
        report.add_problem(root, str(error))
        return report
    report.start(folder.info)
    is_described = dataset is not None or (Path(root) / DESCRIPTION_NAME).is_file()
    if is_described and not folder.is_labelled:
        report.add_problem(
            root,
            f"{counted(len(folder.samples), 'image')} and no label at all; labels "
            "belong into labels/*.png beside images/, or into a COCO panoptic.json: is "
            "it the right folder?",
        )
    samples = progress(
        folder.samples, total=len(folder.samples), label="checking", quiet=quiet
    )
    for sample in samples:
        _check_sample(sample, folder.is_labelled, report)
    if folder.is_labelled:
        _check_strays(folder, report)
    report.finish()
    return report


def format_report(report: CheckReport) -> str:
    """Formats a report as a table, the notes and the first problems."""
    document = report.to_json()
    images = counted(report.num_images, "image")
    labels = counted(report.num_labels, "label")
    lines = [f"{report.path}: {images}, {labels}"]
    if report.smallest and report.largest:
        low, high = ("x".join(map(str, s)) for s in (report.smallest, report.largest))
        lines[0] += f", {low}" if low == high else f", {low} to {high}"
    if report.num_labels:
        names = [entry["name"] for entry in document["classes"]]
        width = max(len(name) for name in [*names, "ignored"])
        lines += ["", f"{'class':{width}}  {'pixels':>7}  {'images':>7}  instances"]
        for index, entry in enumerate(document["classes"]):
            assert report.info is not None
            is_thing = index in report.info.thing_ids
            instances = entry["instances"] if is_thing else "-"
            lines.append(
                f"{entry['name']:{width}}  {entry['share']:7.2%}  "
                f"{entry['images']:7}  {instances:>9}"
            )
        lines.append(f"{'ignored':{width}}  {document['ignored_share']:7.2%}")
    lines += ["", *(f"note: {note}" for note in report.notes)] if report.notes else []
    if report.is_clean:
        return "\n".join([*lines, "", "no problems found"])
    count = len(report.problems)
    lines += ["", f"{count} problem{'s' if count > 1 else ''}:"]
    for problem in report.problems[:_MAX_PRINTED_PROBLEMS]:
        lines.append(f"  {problem.file}: {problem.message}")
    if count > _MAX_PRINTED_PROBLEMS:
        lines.append(f"  ... and {count - _MAX_PRINTED_PROBLEMS} more (--json has all)")
    return "\n".join(lines)


def _check_sample(sample: Sample, is_label_due: bool, report: CheckReport) -> None:
    size: tuple[int, int] | None = None
    try:
        height, width, _ = sample.load_image().shape
        size = height, width
        report.add_image(size)
    except DataError as error:
        report.add_problem(sample.image_path, str(error))
    label = sample.label
    if label is None:
        if is_label_due:
            report.add_problem(
                sample.image_path,
                f"has no label; add labels/{sample.name}.png or move the image away",
            )
        return
    try:
        maps = label.read()
    except DataError as error:
        report.add_problem(label.path, str(error))
        return
    report.add_label(label.path, maps)
    if size is not None and maps.semantic.shape != size:
        found = "x".join(map(str, maps.semantic.shape))
        report.add_problem(
            label.path,
            f"is {found}, but {sample.image_path.name} is {size[0]}x{size[1]} (height "
            "x width); export both in one size, scaling labels without smoothing",
        )
    if isinstance(label, CocoLabel):
        for message in _segment_problems(label):
            report.add_problem(label.path, message)


def _segment_problems(label: CocoLabel) -> list[str]:
    ids, counts = np.unique(label.read_segment_ids(), return_counts=True)
    found = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    found.pop(0, None)
    problems = []
    for segment in label.segments:
        area = found.pop(segment.id, 0)
        if not area:
            problems.append(
                f"segment {segment.id} has no pixels; remove it from segments_info"
            )
        elif segment.area_px not in (None, area):
            problems.append(
                f"segment {segment.id} has {area} pixels, its `area` says "
                f"{segment.area_px}; PNG and JSON may be of different versions"
            )
    if found:
        problems.append(
            f"{sum(found.values())} pixels belong to segments that segments_info does "
            f"not list ({_some(sorted(found))}); they are ignored: list them or paint "
            "them black"
        )
    return problems


def _check_strays(folder: FolderDataset, report: CheckReport) -> None:
    """Finds images and labels that nothing refers to."""
    assert folder.label_dir is not None
    used = {sample.image_path for sample in folder.samples}
    for path in list_images(folder.image_dir).values():
        if path not in used:
            report.add_problem(
                path, "is not in the annotations; annotate it or move it away"
            )
    labels = {sample.label.path for sample in folder.samples if sample.label}
    for path in sorted(folder.label_dir.rglob("*.png")):
        if path not in labels:
            report.add_problem(path, "is the label of no image; move it away")


def _zeros(count: int) -> NDArray[np.int64]:
    return np.zeros(count, np.int64)


def _some(values: Iterable[object]) -> str:
    words: Sequence[str] = [str(value) for value in values]
    rest = f" and {len(words) - 8} more" if len(words) > 8 else ""
    return ", ".join(words[:8]) + rest
