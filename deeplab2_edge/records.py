"""Record files: TFRecords of `tf.train.Example` with the published feature names.

Labels and depth are stored raw: little-endian int32, row by row. Depth is metres
times 256, 0 where unknown. Two-frame records also hold the previous (STEP) or the
next (DVPS) frame.

Record files are read with care: `read_records` verifies checksums and sizes, and
`check_example` what a record says about itself, before anything is decoded.
`parse_example` is the traceable decoder for input pipelines.
"""

import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.datasets.check import CheckReport
from deeplab2_edge.datasets.description import load_description
from deeplab2_edge.datasets.folders import DESCRIPTION_NAME
from deeplab2_edge.datasets.info import DatasetInfo
from deeplab2_edge.datasets.labels import LabelMaps, label_problems
from deeplab2_edge.errors import DataError
from deeplab2_edge.files import atomic_write
from deeplab2_edge.images import MAX_PIXELS, ImageHeader, read_header
from deeplab2_edge.optional import require
from deeplab2_edge.progress import progress

tf = require("tensorflow", extra="train")

KEY_ENCODED_IMAGE = "image/encoded"
KEY_FILENAME = "image/filename"
KEY_FORMAT = "image/format"
KEY_HEIGHT = "image/height"
KEY_WIDTH = "image/width"
KEY_CHANNELS = "image/channels"
KEY_LABEL = "image/segmentation/class/encoded"
KEY_LABEL_FORMAT = "image/segmentation/class/format"
KEY_SEQUENCE_ID = "video/sequence_id"
KEY_FRAME_ID = "video/frame_id"
KEY_PREV_IMAGE = "prev_image/encoded"
KEY_PREV_LABEL = "prev_image/segmentation/class/encoded"
KEY_NEXT_IMAGE = "next_image/encoded"
KEY_NEXT_LABEL = "next_image/segmentation/class/encoded"
KEY_DEPTH = "image/depth/encoded"
KEY_DEPTH_FORMAT = "image/depth/format"

# Names of the decoded entries.
IMAGE = "image"
IMAGE_NAME = "image_name"
HEIGHT = "height"
WIDTH = "width"
LABEL = "label"
SEQUENCE = "sequence"
FRAME = "frame"
PREV_IMAGE = "prev_image"
PREV_LABEL = "prev_label"
NEXT_IMAGE = "next_image"
NEXT_LABEL = "next_label"
DEPTH = "depth"

DEPTH_SCALE = 256.0  # stored units per metre

# A pair of 4K frames with labels and depth has 0.2 GB.
MAX_RECORD_BYTES = 1024 * 1024 * 1024
_CHANNELS = 3
_FRAME_HEADER = struct.Struct("<QI")  # length, masked CRC of the length
_FRAME_FOOTER_BYTES = 4  # masked CRC of the content
_SHARD_NAME = re.compile(r"(?P<split>.+)-\d{5}-of-(?P<count>\d{5})\.tfrecord")

_STRINGS = (KEY_FILENAME, KEY_FORMAT)
_SIZES = (KEY_HEIGHT, KEY_WIDTH, KEY_CHANNELS)
_IMAGES = {KEY_ENCODED_IMAGE: IMAGE, KEY_PREV_IMAGE: PREV_IMAGE}
_IMAGES |= {KEY_NEXT_IMAGE: NEXT_IMAGE}
_MAPS = {KEY_LABEL: LABEL, KEY_PREV_LABEL: PREV_LABEL, KEY_NEXT_LABEL: NEXT_LABEL}
_MAPS |= {KEY_DEPTH: DEPTH}


@dataclass(frozen=True)
class RecordFields:
    """Says which optional parts the records of a data set hold.

    Attributes:
        label: Panoptic label of the image (and of a second frame).
        video: Sequence and frame id.
        previous_frame: Previous image, with label if `label`.
        next_frame: Next image, with label if `label`.
        depth: Depth of the image.
    """

    label: bool = True
    video: bool = False
    previous_frame: bool = False
    next_frame: bool = False
    depth: bool = False

    @property
    def image_keys(self) -> tuple[str, ...]:
        """Feature keys of the encoded images."""
        keys = [KEY_ENCODED_IMAGE]
        keys += [KEY_PREV_IMAGE] if self.previous_frame else []
        keys += [KEY_NEXT_IMAGE] if self.next_frame else []
        return tuple(keys)

    @property
    def map_keys(self) -> tuple[str, ...]:
        """Feature keys of the raw int32 maps."""
        keys = [KEY_LABEL] if self.label else []
        keys += [KEY_PREV_LABEL] if self.label and self.previous_frame else []
        keys += [KEY_NEXT_LABEL] if self.label and self.next_frame else []
        keys += [KEY_DEPTH] if self.depth else []
        return tuple(keys)


@dataclass(frozen=True)
class Frame:
    """Holds one image file and its label, ready to be stored.

    Attributes:
        image: The bytes of an upright RGB PNG or JPEG file.
        panoptic: `[H, W]` class * divisor + instance, None if not labelled.
    """

    image: bytes
    panoptic: NDArray[np.int32] | None = None


def encode_example(
    frame: Frame,
    *,
    filename: str,
    sequence_id: str | None = None,
    frame_id: str | None = None,
    previous: Frame | None = None,
    following: Frame | None = None,
    depth: NDArray[np.int32] | None = None,
) -> bytes:
    """Serializes one record.

    Args:
        frame: The image and its label.
        filename: Name of the image for predictions and reports. With the suffix
            `.jpg` the stored format is `jpg`, else `jpeg` or `png`: the published
            video records keep the suffix, those of images do not.
        sequence_id: Name of the video.
        frame_id: Name of the frame in it; given together with `sequence_id`.
        previous: The frame before this one (STEP).
        following: The frame after this one (DVPS).
        depth: `[H, W]` metres * 256, 0 where unknown.

    Raises:
        DataError: If an image is damaged, no RGB PNG or JPEG, or if the size of any
            image, label or depth differs from the size of the image.
    """
    header = read_header(frame.image, where=filename)
    size = (header.height, header.width)
    features: dict[str, Any] = {
        KEY_FILENAME: filename.encode(),
        KEY_FORMAT: _format_word(header, filename).encode(),
        KEY_HEIGHT: header.height,
        KEY_WIDTH: header.width,
        KEY_CHANNELS: _CHANNELS,
    }
    frames = (
        (frame, KEY_ENCODED_IMAGE, KEY_LABEL),
        (previous, KEY_PREV_IMAGE, KEY_PREV_LABEL),
        (following, KEY_NEXT_IMAGE, KEY_NEXT_LABEL),
    )
    for item, image_key, label_key in frames:
        if item is None:
            continue
        where = f"{filename}: {image_key}"
        if not _check_stored_image(item.image, size, where).is_plain_rgb:
            raise DataError(
                f"{where}: records hold upright 8-bit RGB images; decode the image "
                "and encode it again"
            )
        features[image_key] = item.image
        if item.panoptic is not None:
            features[label_key] = _raw(item.panoptic, size, f"{filename}: {label_key}")
    if KEY_LABEL in features:
        features[KEY_LABEL_FORMAT] = b"raw"
    if depth is not None:
        features[KEY_DEPTH] = _raw(depth, size, f"{filename}: {KEY_DEPTH}")
        features[KEY_DEPTH_FORMAT] = b"raw"
    if sequence_id is not None and frame_id is not None:
        features[KEY_SEQUENCE_ID] = sequence_id.encode()
        features[KEY_FRAME_ID] = frame_id.encode()
    return _serialize(features)


def parse_example(
    serialized: Any, fields: RecordFields = RecordFields()
) -> dict[str, Any]:
    """Decodes one record; may be traced, for example in `Dataset.map`.

    Args:
        serialized: Scalar string tensor, or bytes.
        fields: What the record holds; a missing part is an error.

    Returns:
        Tensors: `image` `[H, W, 3]` uint8, `image_name`, `height`, `width` int32;
        as `fields` asks also `label`, `prev_label`, `next_label`, `depth`
        `[H, W, 1]` int32, `prev_image`, `next_image` like `image`, `sequence`,
        `frame` strings.

    Raises:
        tf.errors.InvalidArgumentError: If the record does not hold what `fields`
            asks for, or an image or a label has another size than height and width.
    """
    strings = [KEY_FILENAME, *fields.image_keys, *fields.map_keys]
    strings += [KEY_SEQUENCE_ID, KEY_FRAME_ID] if fields.video else []
    description = {key: tf.io.FixedLenFeature((), tf.string) for key in strings}
    description |= {
        key: tf.io.FixedLenFeature((), tf.int64) for key in (KEY_HEIGHT, KEY_WIDTH)
    }
    parsed = tf.io.parse_single_example(serialized, description)
    height = tf.cast(parsed[KEY_HEIGHT], tf.int32)
    width = tf.cast(parsed[KEY_WIDTH], tf.int32)
    decoded = {IMAGE_NAME: parsed[KEY_FILENAME], HEIGHT: height, WIDTH: width}
    for key in fields.image_keys:
        image = tf.io.decode_image(
            parsed[key], channels=_CHANNELS, expand_animations=False
        )
        tf.debugging.assert_equal(
            tf.shape(image), [height, width, _CHANNELS], f"{key} has another size"
        )
        decoded[_IMAGES[key]] = tf.ensure_shape(image, [None, None, _CHANNELS])
    for key in fields.map_keys:
        raw = tf.io.decode_raw(parsed[key], tf.int32)
        decoded[_MAPS[key]] = tf.reshape(raw, (height, width, 1))
    if fields.video:
        decoded[SEQUENCE] = parsed[KEY_SEQUENCE_ID]
        decoded[FRAME] = parsed[KEY_FRAME_ID]
    return decoded


def try_example(
    path: Any, offset: Any, fields: RecordFields
) -> tuple[Any, dict[str, Any]]:
    """Reads and decodes a record that may be damaged; may be traced.

    A pipeline can so name the record, where an operation that fails in it could not.

    Args:
        path: Scalar string tensor, or a string.
        offset: Scalar int64 tensor, see `record_offsets`.
        fields: What the record holds.

    Returns:
        Scalar bool, whether it could be read; and what `parse_example` gives, with
        maps and images empty if it could not.
    """
    found = tf.data.Dataset.from_tensors(offset).map(
        lambda place: parse_example(record_at(path, place), fields)
    )
    nothing = {
        key: tf.zeros([side or 0 for side in spec.shape], spec.dtype)
        for key, spec in found.element_spec.items()
    }
    found = found.ignore_errors().map(lambda decoded: (True, decoded))
    found = found.concatenate(tf.data.Dataset.from_tensors((False, nothing)))
    is_read, decoded = found.take(1).get_single_element()
    return is_read, decoded


def check_example(serialized: bytes, *, where: str) -> RecordFields:
    """Checks everything a record says about itself without decoding pixels.

    Args:
        serialized: One record, from an untrusted file.
        where: File and record index for error messages.

    Returns:
        The optional parts it holds.

    Raises:
        DataError: If it is no Example, a feature is missing or of the wrong type,
            an image is damaged or larger than allowed, or a label, depth or second
            image does not have the size of the image.
    """
    features = _deserialize(serialized, where)
    strings = {key: _string(features, key, where) for key in _STRINGS}
    height, width, channels = (_number(features, key, where) for key in _SIZES)
    is_sane = channels == _CHANNELS and height > 0 and width > 0
    if not is_sane or height * width > MAX_PIXELS:
        raise DataError(
            f"{where}: {strings[KEY_FILENAME]!r} declares {height}x{width}x{channels} "
            f"values; expected 3 channels and at most {MAX_PIXELS} pixels"
        )
    for key in _IMAGES:
        if key == KEY_ENCODED_IMAGE or key in features:
            data = _string(features, key, where)
            _check_stored_image(data, (height, width), f"{where}: {key}")
    if features.get(KEY_LABEL_FORMAT, b"raw") != b"raw":
        raise DataError(
            f"{where}: {KEY_LABEL_FORMAT} is {features[KEY_LABEL_FORMAT]!r}; only raw "
            "panoptic labels can be used, write the records again from the images"
        )
    for key in _MAPS:
        if key not in features:
            continue
        length = len(_string(features, key, where))
        if length != height * width * 4:
            raise DataError(
                f"{where}: {key} has {length} bytes; an image of {height}x{width} "
                f"needs {height * width * 4}"
            )
    return RecordFields(
        label=KEY_LABEL in features,
        video=KEY_SEQUENCE_ID in features and KEY_FRAME_ID in features,
        previous_frame=KEY_PREV_IMAGE in features,
        next_frame=KEY_NEXT_IMAGE in features,
        depth=KEY_DEPTH in features,
    )


def decode_example(serialized: bytes, *, where: str) -> dict[str, Any]:
    """Checks and decodes one untrusted record.

    Returns:
        As `parse_example`, as NumPy arrays and strings, with all parts it holds.

    Raises:
        DataError: As `check_example`, or if an image cannot be decoded.
    """
    fields = check_example(serialized, where=where)
    try:
        decoded = parse_example(serialized, fields)
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        # TensorFlow quotes the record's bytes; they may be no text at all.
        reason = getattr(error, "message", "it holds broken text")
        raise DataError(f"{where}: cannot be decoded ({reason})") from None
    arrays = {key: value.numpy() for key, value in decoded.items()}
    return {
        key: value.decode(errors="replace") if isinstance(value, bytes) else value
        for key, value in arrays.items()
    }


def read_records(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """Yields the serialized records of one file, checksums verified.

    Lengths are compared with the file's size and `MAX_RECORD_BYTES` before memory
    is asked for.

    Raises:
        DataError: If the file is missing, cut short, too large or damaged; names
            file and record index.
    """
    count = count_records(path)
    records = iter(tf.data.TFRecordDataset(str(path)))
    for index in range(count):
        try:
            yield bytes(next(records).numpy())
        except (tf.errors.OpError, StopIteration) as error:
            raise DataError(
                f"{path}: record {index} is damaged (wrong checksum); copy the file "
                "again or write it anew"
            ) from error


def count_records(path: str | os.PathLike[str]) -> int:
    """Counts the records of a file by walking over them; errors: `record_offsets`."""
    return len(record_offsets(path))


def record_offsets(path: str | os.PathLike[str]) -> list[int]:
    """Finds where the records of a file begin, without reading their content.

    Raises:
        DataError: If the file is missing, or a record is cut short or larger than
            `MAX_RECORD_BYTES`; names file and record index.
    """
    offsets: list[int] = []
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            position = 0
            while position < size:
                header = file.read(_FRAME_HEADER.size)
                left = size - position - _FRAME_HEADER.size - _FRAME_FOOTER_BYTES
                length = _FRAME_HEADER.unpack(header)[0] if left >= 0 else 0
                if left < 0 or length > left:
                    raise DataError(
                        f"{path}: record {len(offsets)} is cut short or damaged; copy "
                        "the file again or write it anew"
                    )
                if length > MAX_RECORD_BYTES:
                    raise DataError(
                        f"{path}: record {len(offsets)} has {length} bytes; at most "
                        f"{MAX_RECORD_BYTES} are accepted"
                    )
                offsets.append(position)
                position += _FRAME_HEADER.size + length + _FRAME_FOOTER_BYTES
                file.seek(position)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return offsets


def read_record(path: str | os.PathLike[str], offset: int, *, where: str) -> bytes:
    """Reads the record that begins at an offset, checksum verified.

    Raises:
        DataError: If it is damaged; names `where`.
    """
    try:
        record = record_at(str(path), tf.constant(offset, tf.int64))
    except tf.errors.OpError as error:
        raise DataError(
            f"{where} is damaged (wrong checksum); copy the file again or write it anew"
        ) from error
    return bytes(record.numpy())


def record_at(path: Any, offset: Any) -> Any:
    """Reads the record that begins at an offset; may be traced.

    Args:
        path: Scalar string tensor, or a string.
        offset: Scalar int64 tensor, see `record_offsets`.

    Returns:
        Scalar string tensor, its checksum verified.

    Raises:
        tf.errors.DataLossError: If the checksum is wrong.
    """
    remaining = tf.raw_ops.TFRecordDatasetV2(
        filenames=[path],
        compression_type="",
        buffer_size=tf.constant(0, tf.int64),  # reads one record, not ahead
        byte_offsets=[offset],
    )
    signature = {"output_types": [tf.string], "output_shapes": [[]]}
    first = tf.raw_ops.TakeDataset(
        input_dataset=remaining, count=tf.constant(1, tf.int64), **signature
    )
    return tf.raw_ops.DatasetToSingleElement(dataset=first, **signature)[0]


def check_records(
    root: str | os.PathLike[str],
    dataset: DatasetInfo | None = None,
    *,
    quiet: bool = False,
) -> CheckReport:
    """Checks record files: checksums, sizes, images, classes and instance ids.

    A folder must hold all files of each split that their names count.

    Args:
        root: A folder of shards, or one record file.
        dataset: The classes; if None, `dataset.json` beside the records.
        quiet: Show no progress.

    Raises:
        DataError: If there are no records, or nothing tells their data set.
        ConfigError: If `dataset.json` is wrong.
    """
    files = list_record_files(root)
    dataset = dataset or read_description(files[0].parent)
    report = CheckReport(str(root))
    report.start(dataset)
    counts = {}
    for path in files:
        try:
            counts[path] = count_records(path)
        except DataError as error:
            report.add_problem(path, str(error))
    everything = (
        (path, index, record)
        for path in counts
        for index, record in _readable_records(path, report)
    )
    if Path(root).is_dir():
        for message in missing_shards(files):
            report.add_problem(root, message)
    total = sum(counts.values())
    for path, index, record in progress(
        everything, total=total, label="checking", quiet=quiet
    ):
        _check_record(record, f"{path}[{index}]", dataset, report)
    if not total and report.is_clean:
        message = "holds no records; write them with `deeplab2-edge data build`"
        if Path(root).is_dir():
            report.add_problem(root, message)
        else:  # with more files than images the last ones are empty
            report.notes.append("the file holds no records; others of the split may")
    report.finish()
    return report


def read_description(folder: Path) -> DatasetInfo:
    """Reads the classes of records from the `dataset.json` beside them.

    Raises:
        DataError: If there is none.
        ConfigError: If it is wrong.
    """
    description = folder / DESCRIPTION_NAME
    if not description.is_file():
        raise DataError(
            f"{folder}: {DESCRIPTION_NAME} is missing, which names the classes of the "
            "records; name a data set, or copy the file from where they were written"
        )
    return load_description(description)


def write_records(path: str | os.PathLike[str], records: Iterable[bytes]) -> int:
    """Writes one record file, whole or not at all, and returns the record count.

    Raises:
        OutputError: If the file cannot be written.
    """
    count = 0
    with atomic_write(path, keeps_suffix=False) as temporary:
        try:
            with tf.io.TFRecordWriter(str(temporary)) as writer:
                for record in records:
                    writer.write(record)
                    count += 1
        except tf.errors.OpError as error:
            # `<temporary name>; <what the system says>`
            raise OSError(None, error.message.rpartition("; ")[2]) from error
    return count


def missing_shards(files: Iterable[Path]) -> list[str]:
    """Says which splits lack record files, as after a build that was interrupted.

    Args:
        files: Record files; only names `<split>-<index>-of-<count>.tfrecord` tell
            how many there should be.

    Returns:
        One sentence per split, empty if all files are there.
    """
    splits: dict[tuple[Path, str, int], int] = {}
    for path in files:
        if match := _SHARD_NAME.fullmatch(path.name):
            split = (path.parent, match["split"], int(match["count"]))
            splits[split] = splits.get(split, 0) + 1
    return [
        f"{folder}: {found} of the {count} record files of {split!r} are there; build "
        "the others with the same command again, or copy them"
        for (folder, split, count), found in splits.items()
        if found < count
    ]


def list_record_files(root: str | os.PathLike[str], split: str = "*") -> list[Path]:
    """Lists the record files of a folder in order, or the one file named.

    Args:
        root: A folder, or a record file.
        split: Only shards of this split, for example `"train"`.

    Raises:
        DataError: If there are none.
    """
    root = Path(root)
    if root.is_file():
        return [root]
    shards = root.glob(f"{split}-*.tfrecord")
    found = sorted(p for p in shards if not p.name.startswith("."))  # unfinished ones
    if not found:
        raise DataError(f"{root}: holds no record files ({split}-*.tfrecord)")
    return found


def _readable_records(path: Path, report: CheckReport) -> Iterator[tuple[int, bytes]]:
    """Yields records with their index up to the first damaged one, which is noted."""
    try:
        yield from enumerate(read_records(path))
    except DataError as error:
        report.add_problem(path, str(error))


def _check_record(
    record: bytes, where: str, info: DatasetInfo, report: CheckReport
) -> None:
    try:
        decoded = decode_example(record, where=where)
    except DataError as error:
        report.add_problem(where, str(error))
        return
    report.add_image((int(decoded[HEIGHT]), int(decoded[WIDTH])))
    if LABEL not in decoded:
        report.add_problem(where, "has no label; training needs one")
        return
    divisor = info.label_divisor
    for key in (LABEL, PREV_LABEL, NEXT_LABEL):
        if key not in decoded:
            continue
        panoptic = decoded[key][..., 0]
        maps = LabelMaps(panoptic // divisor, panoptic % divisor)
        if key == LABEL:
            report.add_label(where, maps)
        else:  # the neighbors are counted where they are the frame itself
            for message in label_problems(maps, info):
                report.add_problem(where, f"{key}: {message}")


def _format_word(header: ImageHeader, filename: str) -> str:
    is_jpg = header.format == "jpeg" and filename.lower().endswith(".jpg")
    return "jpg" if is_jpg else header.format


def _check_stored_image(data: bytes, size: Sequence[int], where: str) -> ImageHeader:
    header = read_header(data, where=where)
    if (header.height, header.width) != tuple(size):
        raise DataError(
            f"{where}: the image is {header.height}x{header.width}, "
            f"expected {size[0]}x{size[1]}"
        )
    if header.format not in ("png", "jpeg"):
        raise DataError(f"{where}: expected PNG or JPEG, found {header.format}")
    return header


def _raw(array: NDArray[np.int32], size: tuple[int, int], where: str) -> bytes:
    if array.shape != size:
        raise DataError(
            f"{where}: is {'x'.join(map(str, array.shape))}, but the image is "
            f"{size[0]}x{size[1]}; label, depth and image must have one size"
        )
    return array.astype("<i4").tobytes()


def _serialize(features: Mapping[str, bytes | int]) -> bytes:
    def feature(value: bytes | int) -> Any:
        if isinstance(value, int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    example = tf.train.Example(
        features=tf.train.Features(
            feature={key: feature(value) for key, value in features.items()}
        )
    )
    return bytes(example.SerializeToString(deterministic=True))


def _deserialize(serialized: bytes, where: str) -> dict[str, bytes | int]:
    """Reads the features of an Example that hold exactly one string or integer."""
    try:
        example = tf.train.Example.FromString(serialized)
    except Exception as error:  # protobuf's DecodeError moves between its versions
        raise DataError(f"{where}: is not a tf.train.Example") from error
    features: dict[str, bytes | int] = {}
    for key, feature in example.features.feature.items():
        for values in (feature.bytes_list.value, feature.int64_list.value):
            if len(values) == 1:
                features[key] = values[0]
    return features


def _string(features: Mapping[str, bytes | int], key: str, where: str) -> bytes:
    value = features.get(key)
    if not isinstance(value, bytes):
        raise DataError(f"{where}: feature {key!r} is missing or not one string")
    return value


def _number(features: Mapping[str, bytes | int], key: str, where: str) -> int:
    value = features.get(key)
    if not isinstance(value, int):
        raise DataError(f"{where}: feature {key!r} is missing or not one integer")
    return value
