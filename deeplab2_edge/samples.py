"""Opens whatever a user calls data: a folder, records, or the synthetic world.

Commands that look at images one by one (evaluation, calibration, verification) read
all three kinds through the same samples.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.datasets.description import load_description
from deeplab2_edge.datasets.folders import (
    DESCRIPTION_NAME,
    SampleLike,
    open_folder,
)
from deeplab2_edge.datasets.registry import DatasetInfo, get_dataset
from deeplab2_edge.errors import ConfigError, DataError, UsageError

# Stands where a path is expected; `synthetic:train` picks the other split.
SYNTHETIC = "synthetic"
_SYNTHETIC_SIZE = (257, 513)
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
    """

    name: str
    path: Path
    offset: int

    def load_image(self) -> NDArray[np.uint8]:
        """Returns `[H, W, 3]` RGB."""
        image: NDArray[np.uint8] = _decode(self)["image"].copy()
        return image

    def load_panoptic(self) -> NDArray[np.int32] | None:
        """Returns `[H, W]` panoptic ids, None if the record has no label."""
        label = _decode(self).get("label")
        return None if label is None else np.array(label[..., 0], np.int32)


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
) -> SampleSet:
    """Opens data for reading image by image.

    Args:
        location: A folder of images (see `datasets.folders`), a folder or a file of
            records, a pattern of record files, or `synthetic[:train|:val]`.
        dataset: Classes of the labels; by default what lies beside the data.
        limit: At most so many samples, spread evenly over all.
        synthetic_size: (height, width) of synthetic scenes.

    Raises:
        DataError: If there is nothing to read.
        UsageError: If `limit` is not positive.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"the number of images is {limit}; must be at least 1")
    text = str(location)
    if text == SYNTHETIC or text.startswith(f"{SYNTHETIC}:"):
        return _open_synthetic(text, limit or _DEFAULT_SCENES, synthetic_size)
    files = _record_files(text)
    if files:
        found = _open_records(files, dataset)
    else:
        folder = open_folder(location, dataset)
        found = SampleSet(folder.info, folder.samples)
    described = None if dataset is None else _description_beside(Path(location))
    return SampleSet(found.info, _spread(found.samples, limit), described)


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
        RecordSample(f"{path}: record {number}", path, offset)
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
