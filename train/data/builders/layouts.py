"""The published data sets by name: where their files lie and how they are split."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deeplab2_edge.datasets.info import DatasetInfo
from deeplab2_edge.datasets.registry import get_dataset
from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.train.data.builders import ade20k, cityscapes, coco, dvps, step
from deeplab2_edge.train.data.builders.options import LayoutOptions
from deeplab2_edge.train.data.builders.shards import RecordSource, even_slices
from deeplab2_edge.wording import counted


@dataclass(frozen=True)
class Layout:
    """Says how a published data set lies on disk and becomes record files.

    Attributes:
        description: The official folders and files, for messages.
        splits: Names of its splits.
        num_shards: Record files per split of the published builders.
        open: Opens one split.
        options: Which of the options mean something here.
    """

    description: str
    splits: tuple[str, ...]
    num_shards: int
    open: Callable[[DatasetInfo, Path, str, LayoutOptions], RecordSource]
    options: frozenset[str]


LAYOUTS = {
    "cityscapes_panoptic": Layout(
        cityscapes.LAYOUT,
        ("train", "val", "test"),
        10,
        cityscapes.open_cityscapes,
        frozenset({"keeps_crowd", "semantic_only"}),
    ),
    "coco_panoptic": Layout(
        coco.LAYOUT,
        ("train", "val", "test"),
        1000,
        coco.open_coco,
        frozenset({"keeps_crowd"}),
    ),
    "ade20k_panoptic": Layout(
        ade20k.LAYOUT,
        ("train", "val"),
        1000,
        ade20k.open_ade20k,
        frozenset({"keeps_crowd"}),
    ),
    "kitti_step": Layout(
        step.LAYOUT,
        ("train", "val", "test"),
        10,
        step.open_step,
        frozenset({"two_frames", "allows_unlabelled"}),
    ),
    "motchallenge_step": Layout(
        step.LAYOUT,
        ("train", "val", "test"),
        10,
        step.open_step,
        frozenset({"two_frames", "allows_unlabelled"}),
    ),
    "cityscapes_dvps": Layout(
        dvps.LAYOUT,
        ("train", "val", "test"),
        1000,
        dvps.open_dvps,
        frozenset({"allows_unlabelled"}),
    ),
    "semkitti_dvps": Layout(
        dvps.LAYOUT,
        ("train", "val", "test"),
        1000,
        dvps.open_dvps,
        frozenset({"allows_unlabelled"}),
    ),
}


@dataclass(frozen=True)
class OpenedSplit:
    """Is a split, ready for `build_records`.

    Attributes:
        source: Its images.
        slices: The images of each shard.
        num_records: Records it gives.
        num_expected: Records of the published split, None if that is not known.
        notes: What deserves a look.
    """

    source: RecordSource
    slices: tuple[range, ...]
    num_records: int
    num_expected: int | None
    notes: tuple[str, ...] = ()


def open_split(
    dataset: str,
    root: Path,
    split: str,
    options: LayoutOptions | None = None,
    *,
    num_shards: int | None = None,
    is_partial: bool = False,
) -> OpenedSplit:
    """Opens one split of a published data set as its authors lay it out.

    Args:
        dataset: Its registered name.
        root: The folder it was unpacked into.
        split: `"train"`, `"val"` or `"test"`.
        options: What the records shall hold; by default as published.
        num_shards: Record files; by default as published.
        is_partial: Fewer images than published are fine.

    Raises:
        UsageError: If the data set has no layout of its own, no such split, or an
            option means nothing for it.
        DataError: If a folder or file is missing, or images are.
    """
    if dataset not in LAYOUTS:
        raise UsageError(
            f"data set {dataset!r} has no layout of its own ({', '.join(LAYOUTS)} "
            "have); for your own folder of images and labels give --input"
        )
    layout, info = LAYOUTS[dataset], get_dataset(dataset)
    options = options or LayoutOptions()
    if split not in layout.splits:
        raise UsageError(f"split {split!r}: {dataset} has {', '.join(layout.splits)}")
    for name in options.given():
        if name not in layout.options:
            raise UsageError(
                f"--{LayoutOptions.WORDS[name]} means nothing for {dataset}"
            )
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder; {dataset} has there {layout.description}"
        )
    source = layout.open(info, root, split, options)
    found = getattr(source, "num_records", len(source))
    expected = info.split_sizes.get(split) or info.split_sizes.get(f"{split}_fine")
    notes = list(getattr(source, "notes", ()))
    if expected and found < expected and not is_partial:
        raise DataError(
            f"{root}: {split} gives {counted(found, 'record')}, the published split "
            f"{expected}; complete the download, or give --partial if a part is meant"
        )
    if expected and found != expected:
        notes.append(
            f"{split} gives {counted(found, 'record')}, the published split {expected}"
        )
    return OpenedSplit(
        source,
        _slices(source, num_shards or layout.num_shards),
        found,
        expected or None,
        tuple(notes),
    )


def _slices(source: RecordSource, num_shards: int) -> tuple[range, ...]:
    own: Callable[[int], Sequence[range]] | None = getattr(source, "slices", None)
    return tuple(own(num_shards) if own else even_slices(len(source), num_shards))
