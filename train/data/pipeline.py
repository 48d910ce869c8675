"""Record files in, batches of samples out: deterministic and resumable anywhere.

A training sample is a pure function of (seed, position in the run): the position
chooses the record through one shuffle of all records per epoch, and seeds the
augmentation. Starting at step k therefore gives exactly the batches an uninterrupted
run would see, at once: records are read by their place in the file, none is skipped.
"""

import glob
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from deeplab2_edge import keys, records
from deeplab2_edge.config import DatasetOptions, require_resolved
from deeplab2_edge.datasets.registry import DatasetInfo
from deeplab2_edge.errors import ConfigError, DataError
from deeplab2_edge.optional import require
from deeplab2_edge.train.data.preprocessing import (
    PreprocessSettings,
    SeededDraws,
    evaluation_view,
    training_view,
)
from deeplab2_edge.train.data.targets import TargetSettings, make_targets

tf = require("tensorflow", extra="train")


@dataclass(frozen=True)
class RecordIndex:
    """Knows where every record of a data set begins.

    Attributes:
        files: Record files, sorted.
        file_numbers: Index into `files`, for each record.
        byte_offsets: Place in that file, for each record.
    """

    files: tuple[str, ...]
    file_numbers: tuple[int, ...]
    byte_offsets: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.byte_offsets)

    def reader(self) -> Callable[[Any], Any]:
        """Gives a function, traceable, from record number to serialized record.

        The checksum of every record is verified when it is read.
        """
        # Made here, not in the traced function, so that graphs do not hold copies.
        files = tf.constant(self.files)
        file_numbers = tf.constant(self.file_numbers)
        byte_offsets = tf.constant(self.byte_offsets, tf.int64)

        def read(number: Any) -> Any:
            return records.record_at(files[file_numbers[number]], byte_offsets[number])

        return read


def index_records(options: DatasetOptions) -> RecordIndex:
    """Finds the records of a data set; reads their lengths only.

    Raises:
        ConfigError: If `file_pattern` is not set or holds an unresolved placeholder.
        DataError: If a pattern matches no file, a file is damaged, or there are no
            records at all.
    """
    patterns = require_resolved(options, "file_pattern")
    if not patterns:
        raise ConfigError("file_pattern is not set; it names the record files")
    files: set[str] = set()
    for pattern in patterns:
        found = glob.glob(pattern)
        if not found:
            raise DataError(f"file_pattern {pattern!r} matches no file")
        files.update(found)
    ordered = tuple(sorted(files))
    places = [
        (number, offset)
        for number, path in enumerate(ordered)
        for offset in records.record_offsets(path)
    ]
    if not places:
        raise DataError(f"the files of file_pattern {list(patterns)} hold no records")
    file_numbers, byte_offsets = zip(*places, strict=True)
    return RecordIndex(ordered, file_numbers, byte_offsets)


def training_dataset(
    options: DatasetOptions,
    info: DatasetInfo,
    *,
    seed: int,
    start_step: int = 0,
    batch_size: int | None = None,
    has_instances: bool = True,
) -> Any:
    """Gives the endless batches of a training run, from one of its steps on.

    Args:
        options: Where the records are and how they are augmented.
        info: The data set they belong to.
        seed: Decides order and augmentation.
        start_step: Number of steps already done.
        batch_size: Samples per batch; that of `options` if not given.
        has_instances: False for semantic models.

    Returns:
        A `tf.data.Dataset` of dictionaries: `image` `[B, h, w, 3]` float32 in 0..255
        and the targets of `targets.make_targets` with a batch axis.

    Raises:
        ConfigError: If the options ask for something this pipeline does not do.
        DataError: If there are no records, or they hold no labels.
    """
    _refuse_other_pipelines(options)
    batch_size = batch_size or options.batch_size
    index = index_records(options)
    read = index.reader()
    _check_first_record(index, read, needs_label=True)
    view_settings = PreprocessSettings.from_options(options, info.ignored_panoptic_id)
    target_settings = TargetSettings.from_options(options, has_instances=has_instances)

    def sample(position: Any, number: Any) -> dict[str, Any]:
        record = records.parse_example(read(number))
        image, label = training_view(
            record[records.IMAGE],
            record[records.LABEL],
            view_settings,
            SeededDraws(tf.stack([tf.constant(seed, tf.int64), position])),
        )
        targets = make_targets(label[..., 0], info, target_settings)
        return {keys.IMAGE: image} | targets

    order = shuffled_order(len(index), seed=seed, start=start_step * batch_size)
    samples = order.map(sample, num_parallel_calls=tf.data.AUTOTUNE)
    return samples.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def shuffled_order(num_records: int, *, seed: int, start: int) -> Any:
    """Gives the endless order of records: every epoch is a new permutation of all.

    Args:
        num_records: Records per epoch, at least 1.
        seed: Decides the permutations.
        start: Position to begin at.

    Returns:
        A `tf.data.Dataset` of (position in the run, record number), int64 scalars.
    """
    first_epoch = start // num_records

    def epoch_order(epoch: Any) -> Any:
        numbers = tf.random.experimental.stateless_shuffle(
            tf.range(num_records, dtype=tf.int64),
            tf.stack([tf.constant(seed, tf.int64), epoch]),
            alg="philox",
        )
        positions = epoch * num_records + tf.range(num_records, dtype=tf.int64)
        remaining = tf.maximum(start - positions[0], 0)
        return tf.data.Dataset.from_tensor_slices(
            (positions[remaining:], numbers[remaining:])
        )

    return tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(epoch_order)


def evaluation_dataset(
    options: DatasetOptions,
    info: DatasetInfo,
    *,
    batch_size: int = 1,
    has_instances: bool = True,
) -> Any:
    """Gives every record once, in order, brought to the evaluation canvas.

    Args:
        options: Where the records are and how they are resized.
        info: The data set they belong to.
        batch_size: More than 1 needs images of one size. The last batch may be short.
        has_instances: False for semantic models.

    Returns:
        A `tf.data.Dataset` of dictionaries: `image` `[B, h, w, 3]` float32, the
        network input; `resized_image`, the same without padding; `image_name`;
        `size_raw` `[B, 2]` int32, height and width of the stored image. Unless
        `options.decode_groundtruth_label` is false, also the targets of
        `targets.make_targets`, `semantic_raw` and `is_crowd_raw` `[B, H, W]` of the
        stored label, and `panoptic_raw` if there are instances.

    Raises:
        ConfigError: If the options ask for something this pipeline does not do.
        DataError: If there are no records, or labels are asked for and missing.
    """
    _refuse_other_pipelines(options)
    has_label = options.decode_groundtruth_label
    index = index_records(options)
    read = index.reader()
    _check_first_record(index, read, needs_label=has_label)
    view_settings = PreprocessSettings.from_options(options, info.ignored_panoptic_id)
    target_settings = TargetSettings.from_options(options, has_instances=has_instances)

    def sample(number: Any) -> dict[str, Any]:
        record = records.parse_example(
            read(number), records.RecordFields(label=has_label)
        )
        label = record.get(records.LABEL)
        resized, image, padded = evaluation_view(
            record[records.IMAGE], label, view_settings
        )
        entries = {
            keys.IMAGE: image,
            keys.RESIZED_IMAGE: resized,
            keys.IMAGE_NAME: record[records.IMAGE_NAME],
            keys.SIZE_RAW: tf.stack([record[records.HEIGHT], record[records.WIDTH]]),
        }
        if label is None or padded is None:
            return entries
        raw = make_targets(label[..., 0], info, TargetSettings(has_instances=False))
        entries[keys.SEMANTIC_RAW] = raw[keys.SEMANTIC_GT]
        entries[keys.IS_CROWD_RAW] = raw[keys.IS_CROWD_GT]
        if has_instances:
            entries[keys.PANOPTIC_RAW] = label[..., 0]
        return entries | make_targets(padded[..., 0], info, target_settings)

    numbers = tf.data.Dataset.range(len(index))
    samples = numbers.map(sample, num_parallel_calls=tf.data.AUTOTUNE)
    # Nothing can be dropped from batches of one, and their shape is then known.
    batches = samples.batch(batch_size, drop_remainder=batch_size == 1)
    return batches.prefetch(tf.data.AUTOTUNE)


def _refuse_other_pipelines(options: DatasetOptions) -> None:
    """Refuses what only other model families use, rather than training without it."""
    set_options = {
        "augmentations.autoaugment_policy_name": (
            options.augmentations.autoaugment_policy_name
        ),
        "augmentations.panoptic_copy_paste": (
            options.augmentations.panoptic_copy_paste is not None
        ),
        "use_two_frames": options.use_two_frames,
        "use_next_frame": options.use_next_frame,
        "thing_id_mask_annotations": options.thing_id_mask_annotations,
        "cameras_to_use": options.cameras_to_use,
    }
    for field, value in set_options.items():
        if value:
            raise ConfigError(
                f"{field} is set, but this version trains image models without it; "
                "remove it from the data-set options"
            )


def _check_first_record(
    index: RecordIndex, read: Callable[[Any], Any], *, needs_label: bool
) -> None:
    """Looks into one record, so that a wrong data set is named before training."""
    where = f"{index.files[index.file_numbers[0]]}: record 0"
    try:
        serialized = bytes(read(tf.constant(0, tf.int64)).numpy())
    except tf.errors.OpError as error:
        raise DataError(f"{where}: cannot be read ({error.message})") from None
    fields = records.check_example(serialized, where=where)
    if needs_label and not fields.label:
        raise DataError(
            f"{where}: holds no panoptic label; write the records with labels (or, "
            "to predict only, set decode_groundtruth_label: false)"
        )
