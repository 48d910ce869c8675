"""KITTI-STEP and MOTChallenge-STEP: videos with panoptic maps.

    images/<split>/<sequence>/<frame>.png or .jpg
    panoptic_maps/<split>/<sequence>/<frame>.png    R class, 256 G + B instance

Source: Weber et al., STEP: Segmenting and Tracking Every Pixel, NeurIPS 2021.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deeplab2_edge.datasets.folders import Sample
from deeplab2_edge.datasets.info import DatasetInfo
from deeplab2_edge.datasets.labels import PngLabel
from deeplab2_edge.errors import DataError
from deeplab2_edge.images import list_images
from deeplab2_edge.records import encode_example
from deeplab2_edge.train.data.builders.frames import (
    fingerprint_names,
    load_frame,
    sample_state,
)
from deeplab2_edge.train.data.builders.options import (
    LayoutOptions,
    require_dir,
    require_file,
)
from deeplab2_edge.train.data.builders.shards import even_slices
from deeplab2_edge.wording import counted

LAYOUT = (
    "images/<split>/<sequence>/<frame>.png or .jpg and "
    "panoptic_maps/<split>/<sequence>/<frame>.png (R class, 256 G + B instance)"
)


@dataclass(frozen=True)
class StepSource:
    """Turns each frame into one record.

    Attributes:
        info: The data set.
        samples: All frames, named `<sequence>/<frame>`, in order.
        previous: For each frame the index of the one before; its own where there is
            none, by which a model knows the first frame. None: single frames.
        is_label_due: Every frame needs a label.
        one_shard_per_sequence: Shards hold whole sequences, for tracking in order.
        notes: What deserves a look.
    """

    info: DatasetInfo
    samples: tuple[Sample, ...]
    previous: tuple[int, ...] | None
    is_label_due: bool
    one_shard_per_sequence: bool
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)

    def encode(self, index: int) -> list[bytes]:
        """Returns the one record of a frame.

        Raises:
            DataError: If image or label cannot be used, or sizes differ.
        """
        sample = self.samples[index]
        sequence, frame = sample.name.split("/")
        current = load_frame(sample, is_label_due=self.is_label_due)
        before = None
        if self.previous is not None:
            position = self.previous[index]
            before = current
            if position != index:
                before = load_frame(
                    self.samples[position], is_label_due=self.is_label_due
                )
        return [
            encode_example(
                current,
                filename=sample.image_path.name,
                sequence_id=sequence,
                frame_id=frame,
                previous=before,
            )
        ]

    def slices(self, num_shards: int) -> list[range]:
        """Cuts the frames into shards; there are no empty ones.

        Args:
            num_shards: At most so many of even size; ignored if shards hold whole
                sequences.
        """
        if not self.one_shard_per_sequence:
            return [s for s in even_slices(len(self), num_shards) if len(s)]
        sequences = [_sequence(sample) for sample in self.samples]
        starts = [i for i, s in enumerate(sequences) if i == 0 or s != sequences[i - 1]]
        ends = [*starts[1:], len(sequences)]
        return [range(a, b) for a, b in zip(starts, ends, strict=True)]

    def fingerprint(self) -> str:
        """Changes with the classes and the names of the frames and their neighbors."""
        return fingerprint_names(self.info, ("step", self.previous), self.samples)

    def state(self, index: int) -> list[object]:
        """Changes with image and label file of the frame and the one before."""
        state = sample_state(self.samples[index])
        if self.previous is not None:
            state += sample_state(self.samples[self.previous[index]])
        return state


def open_step(
    info: DatasetInfo, root: Path, split: str, options: LayoutOptions
) -> StepSource:
    """Opens a split. Crowd keeps its class with instance 0.

    Raises:
        DataError: If files are missing, or a frame is not named by its number.
    """
    image_dir = require_dir(root / "images" / split, LAYOUT)
    is_test = "test" in split
    label_dir = root / "panoptic_maps" / split
    is_label_due = not is_test and not options.allows_unlabelled
    if is_label_due:
        require_dir(label_dir, LAYOUT)
    samples = []
    for name, path in list_images(image_dir).items():
        sequence, _, frame = name.partition("/")
        if not frame or "/" in frame or not frame.isdecimal():
            raise DataError(
                f"{path}: expected a frame with a number as name in the folder of its "
                f"sequence; the official layout has {LAYOUT}"
            )
        label_path = label_dir / sequence / f"{frame}.png"
        if is_label_due:
            require_file(label_path, LAYOUT)
        has_label = not is_test and label_path.is_file()
        label = PngLabel(label_path, info, modes=("rgb",)) if has_label else None
        samples.append(Sample(name, path, label))
    previous, notes = None, []
    if options.two_frames:
        previous = _find_previous(samples)
        gaps = [
            samples[i].name
            for i, p in enumerate(previous)
            if p == i and i and _sequence(samples[i]) == _sequence(samples[i - 1])
        ]
        if gaps:
            notes.append(
                f"{counted(len(gaps), 'frame')} inside a sequence have no frame before "
                f"({', '.join(gaps[:5])}); each is its own, as the first of a sequence"
            )
    return StepSource(
        info,
        tuple(samples),
        previous,
        is_label_due,
        one_shard_per_sequence=options.two_frames and split != "train",
        notes=tuple(notes),
    )


def _sequence(sample: Sample) -> str:
    return sample.name.partition("/")[0]


def _find_previous(samples: Sequence[Sample]) -> tuple[int, ...]:
    positions = {sample.name: index for index, sample in enumerate(samples)}
    previous = []
    for index, sample in enumerate(samples):
        sequence, _, frame = sample.name.partition("/")
        before = f"{sequence}/{int(frame) - 1:06d}"
        previous.append(positions.get(before, index))
    return tuple(previous)
