"""Tiny source trees in the layouts of the published data sets."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.images import encode_jpeg, encode_png

SIZE = (16, 24)
DEPTH = np.arange(16 * 24, dtype=np.uint16).reshape(SIZE) * 7

# Class and instance of a frame: a background, two things with gaps in their numbers,
# and void in the last row.
VOID = -1
Scene = NDArray[np.int32]


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def picture(seed: int, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    draws = np.random.default_rng(seed)
    return draws.integers(0, 256, (*size, 3), dtype=np.uint8)


def png(path: Path, seed: int) -> Path:
    return write(path, encode_png(picture(seed)))


def jpeg(path: Path, seed: int) -> Path:
    return write(path, encode_jpeg(picture(seed)))


def scene(background: int, thing: int, ignore: int) -> tuple[Scene, Scene]:
    """Returns class and instance; the third block is a crowd."""
    classes = np.full(SIZE, background, np.int32)
    instances = np.zeros(SIZE, np.int32)
    for column, number in ((0, 7), (4, 300), (8, 0)):
        classes[2:6, column : column + 3] = thing
        instances[2:6, column : column + 3] = number
    classes[-1] = ignore
    return classes, instances


def rgb_label(classes: Scene, instances: Scene) -> bytes:
    """Encodes a label as R class, 256 G + B instance."""
    channels = [classes, instances // 256, instances % 256]
    return encode_png(np.stack(channels, -1).astype(np.uint8))


def segments(
    path: Path, categories: Sequence[tuple[int, int]], *, area_offset: int = 0
) -> list[dict[str, Any]]:
    """Writes a COCO panoptic PNG with a block per (category, iscrowd).

    Ids use all three bytes; the last row belongs to no segment.
    """
    ids = np.zeros(SIZE, np.int64)
    entries = []
    for index, (category, is_crowd) in enumerate(categories):
        segment_id = 70000 * (index + 1) + 300
        ids[:15, index * 4 : index * 4 + 4] = segment_id
        entries.append(
            {
                "id": segment_id,
                "category_id": category,
                "area": 60 + area_offset,
                "iscrowd": is_crowd,
            }
        )
    channels = [ids & 255, ids >> 8 & 255, ids >> 16]
    write(path, encode_png(np.stack(channels, -1).astype(np.uint8)))
    return entries


def annotate(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    write(path, json.dumps({"annotations": list(entries)}).encode())


def cityscapes(root: Path, split: str = "train") -> Path:
    """Two cities with an image each; panoptic and semantic labels."""
    panoptic = root / f"gtFine/cityscapes_panoptic_{split}_trainId"
    entries = []
    for seed, city in enumerate(("aachen", "bonn")):
        name = f"{city}_000000_000019"
        png(root / f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png", seed)
        label = panoptic / f"{name}_gtFine_panoptic.png"
        # Two cars, a crowd of persons, road and one person, in the order of the list.
        blocks = segments(label, [(13, 0), (11, 1), (0, 0), (13, 0), (11, 0)])
        entries.append(
            {"file_name": label.name, "image_id": name, "segments_info": blocks}
        )
        classes, _ = scene(0, 13, 255)
        path = root / f"gtFine/{split}/{city}/{name}_gtFine_labelTrainIds.png"
        write(path, encode_png(classes.astype(np.uint8)))
    annotate(panoptic.with_suffix(".json"), entries)
    return root


def coco(root: Path, split: str = "train") -> Path:
    panoptic = root / f"annotations/panoptic_{split}2017"
    entries = []
    for number in (139, 285):
        name = f"{number:012d}"
        jpeg(root / f"{split}2017/{name}.jpg", number)
        blocks = segments(
            panoptic / f"{name}.png", [(90, 0), (200, 0), (1, 1), (90, 0), (92, 0)]
        )
        entries.append(
            {"file_name": f"{name}.png", "image_id": number, "segments_info": blocks}
        )
    annotate(panoptic.with_suffix(".json"), entries)
    return root


def ade20k(root: Path, split: str = "train") -> Path:
    panoptic = root / f"ade20k_panoptic_{split}"
    folder = {"train": "training", "val": "validation"}[split]
    entries = []
    for number in (1, 2):
        name = f"ADE_{split}_{number:08d}"
        jpeg(root / f"images/{folder}/{name}.jpg", number)
        blocks = segments(
            panoptic / f"{name}.png",
            [(149, 0), (0, 0), (255, 0), (149, 0)],
            area_offset=1000,  # areas are of the full-size picture
        )
        entries.append(
            {"file_name": f"{name}.png", "image_id": name, "segments_info": blocks}
        )
    annotate(panoptic.with_suffix(".json"), entries)
    return root


def step(
    root: Path,
    split: str = "train",
    *,
    suffix: str = "png",
    thing: int = 13,
    frames: Sequence[int] = (0, 1, 2),
) -> Path:
    writer: Callable[[Path, int], Path] = png if suffix == "png" else jpeg
    for sequence in ("0000", "0002"):
        for frame in frames:
            name = f"{split}/{sequence}/{frame:06d}"
            writer(root / f"images/{name}.{suffix}", frame)
            label = rgb_label(*scene(1, thing, 255))
            if split != "test":
                write(root / f"panoptic_maps/{name}.png", label)
    return root


def motchallenge(root: Path, split: str = "train") -> Path:
    return step(root, split, suffix="jpg", thing=4, frames=(1, 2))


def dvps(
    root: Path,
    split: str = "train",
    *,
    thing: int = 13,
    ignore: int = 32,
    more: str = "",
) -> Path:
    """Two sequences of three frames; `more` is what follows the frame in names."""
    for sequence in ("000000", "000001"):
        for frame in range(3):
            stem = root / split / f"{sequence}_{frame:06d}{more}"
            png(stem.with_name(stem.name + "_leftImg8bit.png"), frame)
            if split == "test":
                continue
            label = stem.with_name(stem.name + "_gtFine_instanceTrainIds.png")
            write(label, rgb_label(*scene(9, thing, ignore)))
            depth = stem.with_name(stem.name + "_depth.png")
            write(depth, encode_png(DEPTH + np.uint16(frame)))
    return root


def semkitti(root: Path, split: str = "train") -> Path:
    return dvps(root, split, thing=0, ignore=255)


TREES: dict[str, Callable[..., Path]] = {
    "cityscapes_panoptic": cityscapes,
    "coco_panoptic": coco,
    "ade20k_panoptic": ade20k,
    "kitti_step": step,
    "motchallenge_step": motchallenge,
    "cityscapes_dvps": dvps,
    "semkitti_dvps": semkitti,
}
