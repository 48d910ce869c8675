"""Opens whatever a user calls data: a folder, records, or the synthetic world.

Commands that look at images one by one (evaluation, calibration, verification) read
all three kinds through the same samples.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.datasets.description import load_description
from deeplab2_edge.datasets.folders import (
    DESCRIPTION_NAME,
    Sample,
    SampleLike,
    open_folder,
    video_of_name,
)
from deeplab2_edge.datasets.labels import CocoLabel, LabelMaps, label_problems
from deeplab2_edge.datasets.registry import DatasetInfo, get_dataset
from deeplab2_edge.errors import ConfigError, DataError, UsageError
from deeplab2_edge.images import IMAGE_SUFFIXES

# Stands where a path is expected; `synthetic:train` picks the other split.
SYNTHETIC = "synthetic"
_SYNTHETIC_SIZE = (257, 513)
_DEPTH_PER_METER = 256  # `records.DEPTH_SCALE`, without TensorFlow
# Scenes of the synthetic world when no number is asked for.
_DEFAULT_SCENES = 64


@dataclass(frozen=True)
class SampleSet:
    """Holds samples and the classes of their labels.

    Attributes:
        info: Classes; a placeholder for a folder of bare images.
        samples: In a fixed order.
        described: What `dataset.json` beside the data says, if another was named.
    """

    info: DatasetInfo
    samples: Sequence[SampleLike]
    described: DatasetInfo | None = None


@dataclass(frozen=True)
class RecordSample:
    """Is one record of a record file, decoded when asked for.

    Attributes:
        name: File and number of the record.
        path: The record file.
        offset: Where the record begins.
        info: The data set of its labels.
    """

    name: str
    path: Path
    offset: int
    info: DatasetInfo = field(repr=False, compare=False)

    def load_image(self) -> NDArray[np.uint8]:
        """Returns `[H, W, 3]` RGB."""
        image: NDArray[np.uint8] = _decode(self)["image"].copy()
        return image

    def load_panoptic(self) -> NDArray[np.int32] | None:
        """Returns `[H, W]` panoptic ids, None if the record has no label.

        Raises:
            DataError: If they hold classes that the data set does not have.
        """
        return self._checked(_one_map(_decode(self).get("label")))

    def load_next(self) -> tuple[NDArray[np.uint8], NDArray[np.int32]] | None:
        """Returns the next frame and its panoptic ids, None if they are not stored.

        Errors are those of `load_panoptic`.
        """
        record = _decode(self)
        label = self._checked(_one_map(record.get("next_label")))
        return None if label is None else (record["next_image"].copy(), label)

    def load_depth(self) -> NDArray[np.float32] | None:
        """Returns `[H, W]` meters, 0 where unknown; None if the record has no depth."""
        depth = _one_map(_decode(self).get("depth"))
        if depth is None:
            return None
        return depth.astype(np.float32) / np.float32(_DEPTH_PER_METER)

    def load_sequence(self) -> str | None:
        """Returns the name of the video, None if the record belongs to none."""
        sequence: str | None = _decode(self).get("sequence")
        return sequence

    def load_name(self) -> str:
        """Returns `<sequence>/<frame>`, or of single images the file without suffix."""
        record = _decode(self)
        sequence, frame = record.get("sequence"), record.get("frame")
        if sequence is not None and frame is not None:
            return f"{sequence}/{frame}"
        name: str = record["image_name"]
        return PurePosixPath(name).stem

    def _checked(self, panoptic: NDArray[np.int32] | None) -> NDArray[np.int32] | None:
        if panoptic is not None:
            # Instances on stuff, as other programs write them, harm no one.
            classes = panoptic // self.info.label_divisor
            maps = LabelMaps(classes, np.zeros_like(classes))
            if problems := label_problems(maps, self.info):
                raise DataError(f"{self.name}: {problems[0]}")
        return panoptic


def name_in_dataset(sample: SampleLike) -> str:
    """Gives the path of a sample within its data set, without suffix.

    Records say it; of videos it is `<sequence>/<frame>` there.
    """
    if isinstance(sample, RecordSample):
        return sample.load_name()
    return sample.name


def video_of(sample: SampleLike) -> str | None:
    """Names the video that a sample is a frame of.

    It stands in records; in folders see `datasets.folders.video_of_name`.

    Returns:
        None if the sample belongs to no video, or if its label numbers the instances
        of each frame anew (COCO).
    """
    if isinstance(sample, RecordSample):
        return sample.load_sequence()
    if isinstance(sample, Sample) and not isinstance(sample.label, CocoLabel):
        return video_of_name(sample.name, sample.image_path.parent.name)
    return None


def _one_map(stored: NDArray[np.int32] | None) -> NDArray[np.int32] | None:
    return None if stored is None else np.array(stored[..., 0], np.int32)


@functools.lru_cache(maxsize=1)  # image and label are asked for one after the other
def _decode(sample: RecordSample) -> dict[str, Any]:
    from deeplab2_edge import records  # needs TensorFlow, folders do not

    serialized = records.read_record(sample.path, sample.offset, where=sample.name)
    return records.decode_example(serialized, where=sample.name)


def open_samples(
    location: str | Path,
    dataset: DatasetInfo | None = None,
    *,
    limit: int | None = None,
    synthetic_size: tuple[int, int] = _SYNTHETIC_SIZE,
    from_start: bool = False,
) -> SampleSet:
    """Opens data for reading image by image.

    Args:
        location: A folder of images (see `datasets.folders`), a folder or a file of
            records, a pattern of record files, or `synthetic[:train|:val]`.
        dataset: Classes of the labels; by default what lies beside the data.
        limit: At most so many samples, spread evenly over all.
        synthetic_size: (height, width) of synthetic scenes.
        from_start: Take the first samples up to the limit, as videos need it.

    Raises:
        DataError: If there is nothing to read.
        UsageError: If `limit` is not positive.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"the number of images is {limit}; must be at least 1")
    text = str(location)
    if text == SYNTHETIC or text.startswith(f"{SYNTHETIC}:"):
        return _open_synthetic(text, limit or _DEFAULT_SCENES, synthetic_size)
    if Path(text).is_file() and Path(text).suffix.lower() in IMAGE_SUFFIXES:
        raise DataError(f"{text}: an image; give the folder that holds the images")
    files = _record_files(text)
    if files:
        found = _open_records(files, dataset)
    else:
        folder = open_folder(location, dataset)
        found = SampleSet(folder.info, folder.samples)
    described = None if dataset is None else _description_beside(Path(location))
    spread = found.samples[:limit] if from_start else _spread(found.samples, limit)
    return SampleSet(found.info, spread, described)


def require_classes(
    data: SampleSet, class_names: Sequence[str], model: str | Path
) -> None:
    """Refuses labels of other classes than a model knows.

    Args:
        data: The labels. If a data set was named for them, `dataset.json` beside them
            has a say as well.
        class_names: Of the model.
        model: What to call it.

    Raises:
        UsageError: If the classes differ.
    """
    for info in (data.info, data.described):
        if info is not None and tuple(info.class_names) != tuple(class_names):
            raise UsageError(
                f"{model} knows the classes {', '.join(class_names[:4])}, ... and the "
                f"data {', '.join(info.class_names[:4])}, ...; name the right data set "
                "with --dataset"
            )


def _description_beside(path: Path) -> DatasetInfo | None:
    """Returns what lies beside data, None if nothing that can be read."""
    try:
        return load_description(
            (path if path.is_dir() else path.parent) / DESCRIPTION_NAME
        )
    except ConfigError:
        return None


def _open_synthetic(text: str, count: int, size: tuple[int, int]) -> SampleSet:
    from deeplab2_edge import synth

    starts = {"train": synth.TRAIN_SEED_START, "val": synth.VALIDATION_SEED_START}
    split = text.partition(":")[2] or "val"
    if split not in starts:
        raise UsageError(f"{text!r}: the synthetic world has the splits train and val")
    seeds = range(starts[split], starts[split] + count)
    return SampleSet(
        get_dataset("synthetic_street"), synth.synthetic_samples(seeds, size)
    )


def _record_files(location: str) -> list[Path]:
    path = Path(location)
    if path.is_dir():
        return _visible(path, "*.tfrecord")
    if path.is_file():
        return [path]
    return _visible(path.parent, path.name) if "*" in path.name else []


def _visible(folder: Path, pattern: str) -> list[Path]:
    # The names of unfinished files begin with a dot.
    found = sorted(folder.glob(pattern))
    return [path for path in found if not path.name.startswith(".")]


def _open_records(files: Sequence[Path], dataset: DatasetInfo | None) -> SampleSet:
    from deeplab2_edge import records

    info = dataset or records.read_description(files[0].parent)
    found: list[SampleLike] = [
        RecordSample(f"{path}: record {number}", path, offset, info)
        for path in files
        for number, offset in enumerate(records.record_offsets(path))
    ]
    if not found:
        raise DataError(f"{files[0].parent}: the record files hold no records")
    return SampleSet(info, found)


def _spread(samples: Sequence[SampleLike], limit: int | None) -> Sequence[SampleLike]:
    if limit is None or limit >= len(samples):
        return samples
    picks = np.linspace(0, len(samples) - 1, limit).round().astype(int)
    return [samples[pick] for pick in picks]
