"""Records keep the published format, and damaged ones are refused by name."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deeplab2_edge.datasets.registry import get_dataset
from deeplab2_edge.errors import DataError, OutputError
from deeplab2_edge.images import encode_jpeg, encode_png

tf = pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
records = pytest.importorskip("deeplab2_edge.records")

pytestmark = pytest.mark.tf

PUBLISHED = sorted((Path(__file__).parent / "golden/records").glob("*.tfrecord"))
INFO = get_dataset("camvid")
SIZE = (6, 8)


def frame(value: int = 0, size: tuple[int, int] = SIZE) -> Any:
    image = np.full((*size, 3), value, np.uint8)
    panoptic = np.zeros(size, np.int32)
    panoptic[:2] = 8 * INFO.label_divisor + 1
    return records.Frame(encode_png(image), panoptic)


def features_of(record: bytes) -> dict[str, Any]:
    example = tf.train.Example.FromString(record)
    return {
        key: (feature.bytes_list.value or feature.int64_list.value)[0]
        for key, feature in example.features.feature.items()
    }


def changed(record: bytes, key: str, value: bytes | int | None) -> bytes:
    """Returns the record with one feature replaced, or removed."""
    example = tf.train.Example.FromString(record)
    feature = example.features.feature
    del feature[key]
    if isinstance(value, bytes):
        feature[key].bytes_list.value.append(value)
    elif isinstance(value, int):
        feature[key].int64_list.value.append(value)
    return bytes(example.SerializeToString())


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_published_records_are_encoded_with_equal_features(path: Path) -> None:
    for record in records.read_records(path):
        features = features_of(record)
        decoded = records.decode_example(record, where=path.name)
        frames = []
        for prefix in ("", "prev_", "next_"):
            label = decoded.get(f"{prefix}label")
            image = features.get(f"{prefix}image/encoded")
            frames.append(
                None if image is None else records.Frame(image, label[..., 0])
            )
        depth = decoded["depth"][..., 0] if "depth" in decoded else None
        again = records.encode_example(
            frames[0],
            filename=decoded["image_name"],
            sequence_id=decoded.get("sequence"),
            frame_id=decoded.get("frame"),
            previous=frames[1],
            following=frames[2],
            depth=depth,
        )
        assert features_of(again) == features


def test_parsing_can_be_traced_in_a_pipeline(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    encoded = [records.encode_example(frame(i), filename=str(i)) for i in range(3)]
    assert records.write_records(path, encoded) == 3
    dataset = tf.data.TFRecordDataset(str(path)).map(records.parse_example).batch(3)
    (batch,) = dataset
    assert batch["image"].shape == (3, *SIZE, 3)
    assert batch["label"].dtype == tf.int32
    assert [name.decode() for name in batch["image_name"].numpy()] == ["0", "1", "2"]


def test_fields_tell_what_a_record_holds() -> None:
    depth = np.full(SIZE, 512, np.int32)
    record = records.encode_example(
        frame(), filename="a", sequence_id="s", frame_id="f", previous=frame(),
        depth=depth,
    )  # fmt: skip
    fields = records.check_example(record, where="x")
    assert fields == records.RecordFields(video=True, previous_frame=True, depth=True)
    decoded = records.decode_example(record, where="x")
    np.testing.assert_array_equal(decoded["depth"][..., 0], depth)
    assert (decoded["sequence"], decoded["frame"]) == ("s", "f")


def test_record_without_label_says_so() -> None:
    record = records.encode_example(
        records.Frame(frame().image), filename="a", sequence_id=None
    )
    assert not records.check_example(record, where="x").label
    with pytest.raises(tf.errors.InvalidArgumentError, match="class/encoded"):
        records.parse_example(record)


GREY = records.Frame(encode_jpeg(np.zeros(SIZE, np.uint8)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frame": GREY}, "upright 8-bit RGB"),
        ({"frame": records.Frame(b"GIF89a")}, "not a PNG"),
        ({"previous": frame(size=(6, 9))}, "prev_image/encoded: the image is 6x9"),
        ({"depth": np.zeros((3, 3), np.int32)}, "depth/encoded: is 3x3"),
    ],
)
def test_what_does_not_fit_together_is_not_encoded(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        records.encode_example(**({"frame": frame(), "filename": "a"} | arguments))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("image/encoded", None, "'image/encoded' is missing"),
        ("image/encoded", b"GIF89a", "not a PNG"),
        ("image/height", None, "'image/height' is missing"),
        ("image/height", b"6", "'image/height' is missing or not one integer"),
        ("image/height", 7, "the image is 6x8, expected 7x8"),
        ("image/height", -6, "declares -6x8x3"),
        ("image/width", 2**40, "at most 100000000 pixels"),
        ("image/channels", 4, "expected 3 channels"),
        ("image/segmentation/class/encoded", b"1234", "has 4 bytes; .* needs 192"),
        ("image/segmentation/class/format", b"png", "only raw panoptic labels"),
    ],
)
def test_hostile_records_are_refused_with_their_place(
    key: str, value: bytes | int | None, message: str
) -> None:
    record = records.encode_example(frame(), filename="a")
    with pytest.raises(DataError, match=message) as caught:
        records.decode_example(changed(record, key, value), where="f.tfrecord[3]")
    assert str(caught.value).startswith("f.tfrecord[3]: ")


@pytest.mark.parametrize("data", [b"", b"\xff" * 40, b"\x0a\xff\xff\xff\xff\x0f"])
def test_what_is_no_example_is_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="f.tfrecord.0."):
        records.decode_example(data, where="f.tfrecord[0]")


def test_damaged_files_name_file_and_record(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    record = records.encode_example(frame(), filename="a")
    records.write_records(path, [record] * 3)
    good = path.read_bytes()
    assert records.count_records(path) == 3

    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1  # in the content of the second record
    path.write_bytes(flipped)
    with pytest.raises(DataError, match=r"a.tfrecord: record 1 is damaged"):
        list(records.read_records(path))

    path.write_bytes(good[:-9])
    with pytest.raises(DataError, match="record 2 is cut short"):
        list(records.read_records(path))

    path.write_bytes(struct.pack("<QI", 2**60, 0) + good)
    with pytest.raises(DataError, match="record 0 is cut short or damaged"):
        list(records.read_records(path))


def test_records_over_the_cap_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tfrecord"
    records.write_records(path, [bytes(2000)])
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 1000)
    with pytest.raises(DataError, match="has 2000 bytes; at most 1000"):
        list(records.read_records(path))


def test_missing_files_and_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        list(records.read_records(tmp_path / "none.tfrecord"))
    with pytest.raises(DataError, match="holds no record files"):
        records.list_record_files(tmp_path)
    with pytest.raises(OutputError, match="a.tfrecord"):
        records.write_records(tmp_path / "none/a.tfrecord", [b""])


def test_unfinished_shards_are_not_listed(tmp_path: Path) -> None:
    for name in ("train-00000-of-00001", "val-00000-of-00001", ".train-0.12.partial"):
        (tmp_path / f"{name}.tfrecord").touch()
    found = [path.name for path in records.list_record_files(tmp_path)]
    assert found == ["train-00000-of-00001.tfrecord", "val-00000-of-00001.tfrecord"]
    assert len(records.list_record_files(tmp_path, "val")) == 1


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def failing() -> Any:
        yield b"first"
        raise DataError("second")

    with pytest.raises(DataError):
        records.write_records(tmp_path / "a.tfrecord", failing())
    assert list(tmp_path.iterdir()) == []


def test_check_counts_records_and_tells_their_problems(tmp_path: Path) -> None:
    wrong = frame()
    wrong.panoptic[5] = 77 * INFO.label_divisor
    good = records.encode_example(frame(), filename="a", following=frame())
    bad = records.encode_example(frame(), filename="b", following=wrong)
    unlabelled = records.encode_example(records.Frame(frame().image), filename="c")
    path = tmp_path / "train-00000-of-00001.tfrecord"
    records.write_records(path, [good, bad, unlabelled])
    report = records.check_records(tmp_path, INFO, quiet=True)
    assert (report.num_images, report.num_labels) == (3, 2)
    assert report.class_instances[8] == 2
    first, second = report.problems
    assert first.file == f"{path}[1]"
    assert first.message.startswith("next_label: 8 pixels hold class 77")
    assert second.message.startswith("has no label")
    with pytest.raises(DataError, match=r"dataset\.json is missing"):
        records.check_records(tmp_path, quiet=True)


def test_check_tells_that_files_of_a_split_are_missing(tmp_path: Path) -> None:
    record = records.encode_example(frame(), filename="a")
    for name in ("train-00001-of-00003", "val-00000-of-00001", "other"):
        records.write_records(tmp_path / f"{name}.tfrecord", [record])
    report = records.check_records(tmp_path, INFO, quiet=True)
    (problem,) = report.problems
    assert problem.message.startswith("1 of the 3 record files of 'train' are there")
    one = tmp_path / "train-00001-of-00003.tfrecord"
    assert records.check_records(one, INFO, quiet=True).is_clean


def test_check_tells_that_there_are_no_records(tmp_path: Path) -> None:
    path = tmp_path / "train-00000-of-00001.tfrecord"
    records.write_records(path, [])
    (problem,) = records.check_records(tmp_path, INFO, quiet=True).problems
    assert problem.message.startswith("holds no records; write them with")
    report = records.check_records(path, INFO, quiet=True)
    assert report.is_clean and report.notes[0].startswith("the file holds no records")


def test_check_goes_on_after_a_damaged_file(tmp_path: Path) -> None:
    record = records.encode_example(frame(), filename="a")
    for index in range(2):
        path = tmp_path / f"train-{index:05d}-of-00002.tfrecord"
        records.write_records(path, [record, record])
    first = tmp_path / "train-00000-of-00002.tfrecord"
    first.write_bytes(first.read_bytes()[:-3] + b"abc")
    report = records.check_records(tmp_path, INFO, quiet=True)
    assert report.num_images == 3
    (problem,) = report.problems
    assert problem.message.startswith("record 1 is damaged")
