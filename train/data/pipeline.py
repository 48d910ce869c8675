"""Record files in, batches of samples out: deterministic and resumable anywhere.

A training sample is a pure function of (seed, position in the run): the position
chooses the record through one shuffle of all records per epoch, and seeds the
augmentation. Starting at step k therefore gives exactly the batches an uninterrupted
run would see, at once: records are read by their place in the file, none is skipped.
"""

import dataclasses
import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from deeplab2_edge import records
from deeplab2_edge.config import DatasetOptions, require_resolved
from deeplab2_edge.datasets.registry import DatasetInfo
from deeplab2_edge.errors import ConfigError, DataError
from deeplab2_edge.optional import require
from deeplab2_edge.train.data.draws import SeededDraws, fold_in
from deeplab2_edge.train.data.samples import (
    SampleSettings,
    evaluation_sample,
    training_sample,
)
from deeplab2_edge.train.data.traced_checks import check, pass_if

tf = require("tensorflow", extra="train")

# Stands, in seeds, for the second copy of the data set, which copy-paste reads.
_SECOND_COPY = 1 << 20


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

    def reader(self, fields: records.RecordFields) -> Callable[[Any], Any]:
        """Gives a function, traceable, from record number to decoded record.

        Running it stops with an `InvalidArgumentError` that names file and record if
        that is damaged or does not hold the fields.
        """
        # Made here, not in the traced function, so that graphs do not hold copies.
        files = tf.constant(self.files)
        file_numbers = tf.constant(self.file_numbers)
        byte_offsets = tf.constant(self.byte_offsets, tf.int64)
        first_numbers = tf.searchsorted(
            file_numbers, tf.range(len(self.files)), out_type=tf.int64
        )
        parts = [words for name, words in _PARTS.items() if getattr(fields, name)]

        def read(number: Any) -> Any:
            file_number = file_numbers[number]
            path = files[file_number]
            is_read, record = records.try_example(path, byte_offsets[number], fields)
            return pass_if(
                is_read,
                record,
                path,
                ": record ",
                number - first_numbers[file_number],
                f" is damaged or incomplete (needed: {', '.join(['image', *parts])}); "
                "`deeplab2-edge data check` says what is wrong with the file: copy it "
                "again, or build it anew",
            )

        return read


@dataclass(frozen=True)
class Share:
    """Says what part of every batch a process makes.

    Process i of n makes the i-th n-th of each batch, so that all together see what one
    process would see.

    Attributes:
        index: Number of this process, from 0; may be an int64 tensor.
        count: Number of processes.
        num_replicas: Devices of this process; each step takes that many elements.
    """

    index: Any = 0
    count: int = 1
    num_replicas: int = 1

    def local_batch_size(self, batch_size: int) -> int:
        """Gives the samples of one replica.

        Raises:
            ConfigError: If the batch cannot be shared evenly.
        """
        parts = self.count * self.num_replicas
        if batch_size % parts:
            raise ConfigError(
                f"batch_size is {batch_size}; it must be a multiple of the number of "
                f"replicas, {parts}"
            )
        return batch_size // parts

    def selector(self, batch_size: int, *, turns: "Turns | None" = None) -> Any:
        """Gives a filter for what `training_dataset` orders: (position, number).

        Args:
            batch_size: Samples per step, of all processes.
            turns: Keeps only elements that it names.
        """
        size = batch_size // self.count
        turns = turns or Turns()

        def is_mine(position: Any, *others: Any) -> Any:
            # With copy-paste, positions come in pairs that are alike.
            position = position[0] if isinstance(position, tuple) else position
            step, place = position // batch_size, position % batch_size
            replica = place % size // (size // self.num_replicas)
            element = step * self.num_replicas + replica
            return (place // size == self.index) & (
                element % turns.count == turns.index
            )

        return is_mine


@dataclass(frozen=True)
class Turns:
    """Names every n-th element of a process's data: those that one server makes.

    Attributes:
        index: Of the first; elements are counted from the beginning of the run.
        count: Of servers that take turns.
    """

    index: int = 0
    count: int = 1


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
            raise DataError(
                f"file_pattern {pattern!r} matches no file; `deeplab2-edge data build` "
                "writes record files of your images, `data synth` of rendered scenes"
            )
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
    seed: Any,
    start_step: int = 0,
    batch_size: int | None = None,
    has_instances: bool = True,
    has_depth: bool = False,
    share: Share = Share(),
    deterministic: bool = True,
    services: Sequence[str] = (),
) -> Any:
    """Gives the endless batches of a training run, from one of its steps on.

    Args:
        options: Where the records are, which frames are read and how they are
            augmented.
        info: The data set they belong to.
        seed: Decides order and augmentation; may be an int64 tensor.
        start_step: Number of steps already done.
        batch_size: Samples per step, of all processes; that of `options` if not given.
        has_instances: False for semantic models.
        has_depth: True for models that predict depth.
        share: What part of the samples this process makes, see `Share`.
        deterministic: False lets samples overtake each other: no step waits for a
            slow sample, but batches differ from run to run.
        services: Addresses, `host:port`, of `deeplab2-edge data serve` on other
            machines. They take turns in making the samples, which stay what they
            are; the record files must be there under the same paths.

    Returns:
        A `tf.data.Dataset` of dictionaries: the entries of `samples.training_sample`
        with a batch axis, shapes static.

    Raises:
        ConfigError: If the options contradict each other, or the batch cannot be
            shared.
        DataError: If there are no records, or they lack what the options ask for.
    """
    settings = SampleSettings.from_options(
        options, info, has_instances=has_instances, has_depth=has_depth
    )
    batch_size = batch_size or options.batch_size
    local_size = share.local_batch_size(batch_size)
    index = index_records(options)
    _check_first_record(index, settings.fields)
    read = index.reader(settings.fields)

    def seed_at(position: Any) -> Any:
        return tf.stack([tf.convert_to_tensor(seed, tf.int64), position])

    def sample(position: Any, number: Any) -> dict[str, Any]:
        draws = SeededDraws(seed_at(position))
        return training_sample(read(number), settings, draws)

    def pasted_sample(first: tuple[Any, Any], second: tuple[Any, Any]) -> Any:
        (position, number), (_, second_number) = first, second
        at = seed_at(position)
        return training_sample(
            read(number),
            settings,
            SeededDraws(at),
            pasted=(read(second_number), SeededDraws(fold_in(at, _SECOND_COPY))),
        )

    start = start_step * batch_size
    order = shuffled_order(len(index), seed=seed, start=start)
    if settings.pasting is not None:
        second_order = shuffled_order(
            len(index), seed=seed, start=start, copy=_SECOND_COPY
        )
        order = tf.data.Dataset.zip((order, second_order))

    def elements(turns: Turns) -> Any:
        chosen = order
        if share.count > 1 or turns.count > 1:
            # Numbers alone pass by here; samples are made of those that stay.
            chosen = order.filter(share.selector(batch_size, turns=turns))
        samples = chosen.map(
            sample if settings.pasting is None else pasted_sample,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=deterministic,
        )
        return samples.batch(
            local_size,
            drop_remainder=True,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=deterministic,
        )

    first = start_step * share.num_replicas
    batches = (
        from_services(elements, services, first) if services else elements(Turns())
    )
    return batches.prefetch(tf.data.AUTOTUNE)


def from_services(
    elements: Callable[[Turns], Any], services: Sequence[str], first: int
) -> Any:
    """Lets servers make elements in turns, and gives them in their order.

    Args:
        elements: Gives the elements of one of them.
        services: Their addresses.
        first: Number of the first element, counted from the beginning of the run.

    Returns:
        A `tf.data.Dataset` of the elements. Running it stops with an
        `InvalidArgumentError` if a server began anew, as after a restart: samples
        would be seen twice.
    """
    count = len(services)
    parts = []
    for index, address in enumerate(services):
        numbers = tf.data.Dataset.range(
            first + (index - first) % count, tf.int64.max, count
        )
        # Made there, with their numbers.
        numbered = tf.data.Dataset.zip((numbers, elements(Turns(index, count)))).apply(
            tf.data.experimental.service.distribute(
                tf.data.experimental.service.ShardingPolicy.OFF, f"grpc://{address}"
            )
        )

        def checked(due: Any, numbered: Any, address: str = address) -> Any:
            number, element = numbered
            check(
                tf.equal(due, number),
                f"the data service {address} was started anew; give the same command "
                "again to go on from the last checkpoint",
            )
            return element

        parts.append(tf.data.Dataset.zip((numbers, numbered)).map(checked).prefetch(1))
    if count == 1:
        return parts[0]
    turns = tf.data.Dataset.range(first, tf.int64.max).map(
        lambda number: number % count
    )
    return tf.data.Dataset.choose_from_datasets(parts, turns)


def shuffled_order(num_records: int, *, seed: Any, start: int, copy: int = 0) -> Any:
    """Gives the endless order of records: every epoch is a new permutation of all.

    Args:
        num_records: Records per epoch, at least 1.
        seed: Decides the permutations; may be an int64 tensor.
        start: Position to begin at.
        copy: Number of the copy of the data set; every copy has its own permutations.

    Returns:
        A `tf.data.Dataset` of (position in the run, record number), int64 scalars.
    """
    first_epoch = start // num_records

    def epoch_order(epoch: Any) -> Any:
        of_epoch = tf.stack([tf.convert_to_tensor(seed, tf.int64), epoch])
        numbers = tf.random.experimental.stateless_shuffle(
            tf.range(num_records, dtype=tf.int64),
            fold_in(of_epoch, copy) if copy else of_epoch,
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
    has_depth: bool = False,
) -> Any:
    """Gives every record once, in order, brought to the evaluation canvas.

    Args:
        options: Where the records are, which frames are read and how they are
            resized.
        info: The data set they belong to.
        batch_size: More than 1 needs images of one size. The last batch may be short.
        has_instances: False for semantic models.
        has_depth: True for models that predict depth.

    Returns:
        A `tf.data.Dataset` of dictionaries: the entries of `samples.evaluation_sample`
        with a batch axis; those of labels and depth only if
        `options.decode_groundtruth_label` is not false.

    Raises:
        ConfigError: If the options contradict each other.
        DataError: If there are no records, or they lack what the options ask for.
    """
    settings = SampleSettings.from_options(
        options, info, has_instances=has_instances, has_depth=has_depth
    )
    has_label = options.decode_groundtruth_label
    fields = dataclasses.replace(
        settings.fields, label=has_label, depth=has_depth and has_label
    )
    index = index_records(options)
    found = _check_first_record(index, fields)
    fields = dataclasses.replace(fields, video=found.video)
    settings = dataclasses.replace(settings, fields=fields)
    read = index.reader(fields)

    def sample(number: Any) -> dict[str, Any]:
        # Faults of previous centers must be the same in every evaluation.
        draws = SeededDraws(tf.stack([tf.constant(0, tf.int64), number]))
        return evaluation_sample(read(number), settings, draws)

    numbers = tf.data.Dataset.range(len(index))
    samples = numbers.map(
        sample, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    # Nothing can be dropped from batches of one, and their shape is then known.
    batches = samples.batch(batch_size, drop_remainder=batch_size == 1)
    return batches.prefetch(tf.data.AUTOTUNE)


def _check_first_record(
    index: RecordIndex, needed: records.RecordFields
) -> records.RecordFields:
    """Looks into one record, so that a wrong data set is named before training."""
    path = index.files[index.file_numbers[0]]
    where = f"{path}: record 0"
    with tf.init_scope():  # also where the pipeline is traced
        serialized = records.read_record(path, index.byte_offsets[0], where=where)
    found = records.check_example(serialized, where=where)
    for field, advice in _ADVICE.items():
        if getattr(needed, field) and not getattr(found, field):
            raise DataError(f"{where}: holds no {advice}")
    return found


# What messages call the parts of a record.
_PARTS = {
    "label": "panoptic label",
    "video": "sequence and frame",
    "previous_frame": "previous frame",
    "next_frame": "next frame",
    "depth": "depth",
}
# What to do where one is missing.
_ADVICE = {
    "label": (
        "panoptic label; write the records with labels (or, to predict only, set "
        "decode_groundtruth_label: false)"
    ),
    "previous_frame": (
        "previous frame, which use_two_frames asks for; write the records with two "
        "frames"
    ),
    "next_frame": (
        "next frame, which use_next_frame asks for; write the records with two frames"
    ),
    "depth": "depth, which the depth head asks for; write the records with depth",
}
