"""Cityscapes-DVPS and SemKITTI-DVPS: pairs of video frames with depth.

    {train,val}/<sequence>_<frame>[_more]_leftImg8bit.png
    {train,val}/<sequence>_<frame>[_more]_gtFine_instanceTrainIds.png
    {train,val}/<sequence>_<frame>[_more]_depth.png          16-bit, metres * 256
    test/<sequence>_<frame>[_more]_leftImg8bit.png

A label is 8-bit RGB (R class, 256 G + B instance) or, for Cityscapes-DVPS, 16-bit gray
(class * 1000 + instance).

Source: Qiao et al., ViP-DeepLab, CVPR 2021.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.datasets.folders import Sample
from deeplab2_edge.datasets.info import DatasetInfo
from deeplab2_edge.datasets.labels import PngLabel
from deeplab2_edge.errors import DataError
from deeplab2_edge.images import list_images, read_header, read_label_png
from deeplab2_edge.records import encode_example
from deeplab2_edge.train.data.builders.frames import (
    check_size,
    file_state,
    fingerprint_names,
    load_frame,
    sample_state,
)
from deeplab2_edge.train.data.builders.options import (
    LayoutOptions,
    require_dir,
    require_file,
)

LAYOUT = (
    "<split>/<sequence>_<frame>_leftImg8bit.png, beside each "
    "…_gtFine_instanceTrainIds.png and …_depth.png (none for test)"
)
_IMAGE, _LABEL, _DEPTH = "_leftImg8bit", "_gtFine_instanceTrainIds.png", "_depth.png"
_UINT16_MAX = 65535


@dataclass(frozen=True)
class DvpsSource:
    """Turns each frame that has a next one into one record.

    Attributes:
        info: The data set.
        samples: All frames, in order.
        ids: Sequence and frame of each, as in the file's name.
        following: Index of the next frame of the sequence, None for the last.
        depths: Depth file of each frame, None without labels.
        is_label_due: Every frame needs a label.
    """

    info: DatasetInfo
    samples: tuple[Sample, ...]
    ids: tuple[tuple[str, str], ...]
    following: tuple[int | None, ...]
    depths: tuple[Path | None, ...]
    is_label_due: bool

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def num_records(self) -> int:
        """Number of pairs."""
        return sum(index is not None for index in self.following)

    def encode(self, index: int) -> list[bytes]:
        """Returns the record of a frame, none for the last of a sequence.

        Raises:
            DataError: If image, label or depth cannot be used, or sizes differ.
        """
        next_index = self.following[index]
        if next_index is None:
            return []
        sample, depth_path = self.samples[index], self.depths[index]
        sequence, frame_id = self.ids[index]
        frame = load_frame(sample, is_label_due=self.is_label_due)
        depth = None
        if depth_path is not None:
            depth = _read_depth(depth_path)
            header = read_header(frame.image, where=str(sample.image_path))
            size = (header.height, header.width)
            check_size(depth_path, depth.shape, sample.image_path, size)
        following = load_frame(self.samples[next_index], is_label_due=self.is_label_due)
        return [
            encode_example(
                frame,
                filename=sample.image_path.name,
                sequence_id=sequence,
                frame_id=frame_id,
                following=following,
                depth=depth,
            )
        ]

    def fingerprint(self) -> str:
        """Changes with the classes and the names of the frames."""
        return fingerprint_names(self.info, ("dvps",), self.samples)

    def state(self, index: int) -> list[object]:
        """Changes with the files of the frame and the next one."""
        next_index, depth = self.following[index], self.depths[index]
        if next_index is None:
            return []
        state = sample_state(self.samples[index])
        state += sample_state(self.samples[next_index])
        return state + (file_state(depth) if depth is not None else [])


def open_dvps(
    info: DatasetInfo, root: Path, split: str, options: LayoutOptions
) -> DvpsSource:
    """Opens a split; the next frame is the one with the next number.

    Raises:
        DataError: If files are missing, or a name has no sequence and frame.
    """
    folder = require_dir(root / split, LAYOUT)
    is_test = split == "test"
    is_label_due = not is_test and not options.allows_unlabelled
    # 16 bits hold class * 1000 + instance, and no class with divisor 65536.
    can_be_gray = (info.num_classes * info.label_divisor) <= _UINT16_MAX
    modes = ("rgb", "gray16") if can_be_gray else ("rgb",)
    samples, ids, depths = [], [], []
    for path in list_images(folder).values():
        if not path.stem.endswith(_IMAGE):
            continue  # labels and depth lie beside the images
        stem = path.stem.removesuffix(_IMAGE)
        sequence, frame = (*stem.split("_"), "", "")[:2]
        if not (sequence and frame.isdecimal()):
            raise DataError(
                f"{path}: the name must begin with <sequence>_<frame>_; the official "
                f"layout has {LAYOUT}"
            )
        label, depth = path.with_name(stem + _LABEL), path.with_name(stem + _DEPTH)
        if is_label_due:
            require_file(label, LAYOUT)
            require_file(depth, LAYOUT)
        has_label = not is_test and label.is_file()
        png = PngLabel(label, info, modes=modes) if has_label else None
        samples.append(Sample(stem, path, png))
        depths.append(depth if not is_test and depth.is_file() else None)
        ids.append((sequence, frame))
    if not samples:
        raise DataError(f"{folder}: holds no *{_IMAGE}.png; expected {LAYOUT}")
    return DvpsSource(
        info,
        tuple(samples),
        tuple(ids),
        _find_following(samples, ids),
        tuple(depths),
        is_label_due,
    )


def _find_following(
    samples: list[Sample], ids: list[tuple[str, str]]
) -> tuple[int | None, ...]:
    positions: dict[tuple[str, int], int] = {}
    for index, (sequence, frame) in enumerate(ids):
        other = positions.setdefault((sequence, int(frame)), index)
        if other != index:
            raise DataError(
                f"{samples[index].image_path}: sequence {sequence} has frame {frame} "
                f"twice, also as {samples[other].image_path.name}"
            )
    return tuple(positions.get((s, int(frame) + 1)) for s, frame in ids)


def _read_depth(path: Path) -> NDArray[np.int32]:
    stored = read_label_png(path)
    if stored.dtype != np.uint16:
        raise DataError(
            f"{path}: depth must be a 16-bit gray PNG (metres * 256, 0 unknown), found "
            f"{stored.ndim * 8 if stored.ndim == 3 else 8}-bit pixels"
        )
    return stored.astype(np.int32)
