"""Builders write the published records, in parallel, and resume where they stopped."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from deeplab2_edge.datasets.check import check_folder
from deeplab2_edge.datasets.folders import open_folder
from deeplab2_edge.datasets.registry import DatasetInfo, get_dataset, load_description
from deeplab2_edge.errors import DataError, OutputError, UsageError
from deeplab2_edge.images import read_label_png, write_jpeg, write_png
from deeplab2_edge.runtime.sources import open_sources

tf = pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
records = pytest.importorskip("deeplab2_edge.records")
builders = pytest.importorskip("deeplab2_edge.train.data.builders")

pytestmark = pytest.mark.tf

INFO = get_dataset("camvid")
SIZE = (33, 65)


@dataclass
class CountingSource:
    """Encodes numbers and remembers which."""

    count: int
    look: str = ""
    fails_at: int = -1
    encoded: list[int] = field(default_factory=list)
    states: dict[int, str] = field(default_factory=dict)

    @property
    def info(self) -> DatasetInfo:
        return INFO

    def __len__(self) -> int:
        return self.count

    def encode(self, index: int) -> Sequence[bytes]:
        if index == self.fails_at:
            raise DataError(f"item {index} is broken")
        self.encoded.append(index)
        return [f"{self.look}{index}".encode()]

    def fingerprint(self) -> str:
        return self.look

    def state(self, index: int) -> Sequence[object]:
        return [self.states.get(index)]


def build(source: Any, output: Path, **options: Any) -> Any:
    options = {"num_shards": 3, "quiet": True} | options
    return builders.build_records(source, output, "train", **options)


def contents(output: Path) -> list[list[bytes]]:
    files = records.list_record_files(output, "train")
    return [list(records.read_records(path)) for path in files]


def features_of(record: bytes) -> dict[str, Any]:
    feature = tf.train.Example.FromString(record).features.feature
    return {
        k: (f.bytes_list.value or f.int64_list.value)[0] for k, f in feature.items()
    }


def write_plain(root: Path, names: Sequence[str] = ("a", "b")) -> Path:
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        write_jpeg(root / f"images/{name}.jpg", np.zeros((9, 12, 3), np.uint8))
        write_png(root / f"labels/{name}.png", np.full((9, 12), 3, np.uint8))
    return root


def test_shards_are_contiguous_slices_and_all_exist(tmp_path: Path) -> None:
    summary = build(CountingSource(7), tmp_path, num_shards=5)
    shards = [[int(r) for r in shard] for shard in contents(tmp_path)]
    assert shards == [[0, 1], [2, 3], [4, 5], [6], []]
    assert (summary.num_records, summary.num_shards, summary.num_kept) == (7, 5, 0)
    names = sorted(path.name for path in tmp_path.glob("*.tfrecord"))
    assert names[0] == "train-00000-of-00005.tfrecord"


def test_manifest_vouches_for_every_shard(tmp_path: Path) -> None:
    build(CountingSource(7), tmp_path)
    manifest = json.loads((tmp_path / "train-manifest.json").read_text())
    assert manifest["is_complete"]
    for name, shard in manifest["shards"].items():
        data = (tmp_path / name).read_bytes()
        assert shard["sha256"] == hashlib.sha256(data).hexdigest()
    assert sum(shard["records"] for shard in manifest["shards"].values()) == 7


def test_description_lies_beside_the_records(tmp_path: Path) -> None:
    build(CountingSource(1), tmp_path)
    assert load_description(tmp_path / "dataset.json").thing_ids == INFO.thing_ids


def test_an_interrupted_job_keeps_its_finished_shards(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="item 4"):
        build(CountingSource(6, fails_at=4), tmp_path)
    assert len(list(tmp_path.glob("*.tfrecord"))) == 2  # no half shard
    source = CountingSource(6)
    summary = build(source, tmp_path)
    assert source.encoded == [4, 5]
    assert (summary.num_kept, summary.num_records) == (2, 6)


def test_a_damaged_shard_is_written_again(tmp_path: Path) -> None:
    build(CountingSource(6), tmp_path)
    shard = tmp_path / "train-00001-of-00003.tfrecord"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    (tmp_path / ".train-00000.abc.partial.tfrecord").touch()  # of a killed run
    source = CountingSource(6)
    build(source, tmp_path)
    assert source.encoded == [2, 3]
    assert not list(tmp_path.glob(".*partial*"))


def test_another_job_is_not_mixed_in(tmp_path: Path) -> None:
    build(CountingSource(6), tmp_path)
    for other in (CountingSource(6, look="new"), CountingSource(7)):
        with pytest.raises(UsageError, match="3 train shards of another job"):
            build(other, tmp_path)
    with pytest.raises(UsageError, match="another job"):
        build(CountingSource(6), tmp_path, num_shards=2)
    build(CountingSource(6, look="new"), tmp_path, num_shards=2, overwrite=True)
    assert contents(tmp_path)[0] == [b"new0", b"new1", b"new2"]
    assert len(contents(tmp_path)) == 2


def test_another_data_set_is_not_mixed_in(tmp_path: Path) -> None:
    build(CountingSource(1), tmp_path)
    source = builders.FolderSource(
        open_folder(write_plain(tmp_path / "in"), get_dataset("kitti_step"))
    )
    with pytest.raises(UsageError, match="with other classes"):
        builders.build_records(source, tmp_path, "val", num_shards=1, quiet=True)


def test_arguments_and_output_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must be at least 1"):
        build(CountingSource(1), tmp_path, num_shards=0)
    with pytest.raises(UsageError, match="must be a word"):
        builders.build_records(CountingSource(1), tmp_path, "../x", num_shards=1)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        build(CountingSource(1), tmp_path / "file")


def test_jpeg_and_png_are_stored_as_they_are_and_others_again(tmp_path: Path) -> None:
    write_plain(tmp_path, ["a", "b", "c", "d"])
    images = tmp_path / "images"
    gradient = np.arange(9 * 12 * 3, dtype=np.uint8).reshape(9, 12, 3)
    (images / "b.jpg").unlink()
    write_png(images / "b.png", gradient)
    write_jpeg(images / "c.jpg", gradient[..., 0])
    (images / "d.jpg").unlink()
    cv2.imwrite(str(images / "d.bmp"), gradient[..., ::-1])
    source = builders.FolderSource(open_folder(tmp_path, INFO))
    stored = [features_of(source.encode(index)[0]) for index in range(4)]
    formats = [features["image/format"] for features in stored]
    assert formats == [b"jpeg", b"png", b"jpeg", b"png"]
    assert stored[0]["image/encoded"] == (images / "a.jpg").read_bytes()
    assert stored[1]["image/encoded"] == (images / "b.png").read_bytes()
    decoded = records.decode_example(source.encode(3)[0], where="d")
    np.testing.assert_array_equal(decoded["image"], gradient)
    np.testing.assert_array_equal(decoded["label"], np.full((9, 12, 1), 3000))


def test_labels_of_other_size_or_missing_are_named(tmp_path: Path) -> None:
    write_plain(tmp_path)
    write_png(tmp_path / "labels/a.png", np.zeros((9, 13), np.uint8))
    (tmp_path / "labels/b.png").unlink()
    source = builders.FolderSource(open_folder(tmp_path, INFO))
    with pytest.raises(DataError, match="labels/a.png: is 9x13, but a.jpg is 9x12"):
        source.encode(0)
    with pytest.raises(DataError, match="images/b.jpg: has no label"):
        source.encode(1)


def test_only_the_shards_of_changed_files_are_written_again(tmp_path: Path) -> None:
    build(CountingSource(6), tmp_path)
    source = CountingSource(6, states={3: "mended"})
    summary = build(source, tmp_path)
    assert source.encoded == [2, 3]
    assert (summary.num_kept, summary.num_records) == (2, 6)


def test_a_folder_tells_which_files_changed(tmp_path: Path) -> None:
    write_plain(tmp_path)

    def look() -> tuple[str, list[object], list[object]]:
        source = builders.FolderSource(open_folder(tmp_path, INFO))
        return source.fingerprint(), source.state(0), source.state(1)

    before = look()
    assert look() == before
    write_png(tmp_path / "labels/a.png", np.zeros((9, 12), np.uint8))
    after = look()
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
    write_plain(tmp_path, ["c"])
    assert look()[0] != before[0]


def test_images_without_labels_give_records_without_labels(tmp_path: Path) -> None:
    write_jpeg(tmp_path / "a.jpg", np.zeros((9, 12, 3), np.uint8))
    source = builders.FolderSource(open_folder(tmp_path))
    assert not records.check_example(source.encode(0)[0], where="a").label


def test_processes_write_what_one_process_writes(tmp_path: Path) -> None:
    folder = open_folder(write_plain(tmp_path / "in", "abcde"), INFO)
    source = builders.FolderSource(folder)
    build(source, tmp_path / "one")
    build(source, tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.slow
def test_an_error_in_a_process_is_passed_on(tmp_path: Path) -> None:
    folder = open_folder(write_plain(tmp_path / "in", "abcd"), INFO)
    (tmp_path / "in/labels/c.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="c.png: not a PNG"):
        build(builders.FolderSource(folder), tmp_path / "out", workers=2)
    assert not list((tmp_path / "out").glob(".*partial*"))


def test_scenes_become_records(tmp_path: Path) -> None:
    source = builders.SceneSource(range(2), SIZE)
    build(source, tmp_path, num_shards=1)
    decoded = [
        records.decode_example(record, where="x") for record in contents(tmp_path)[0]
    ]
    assert [item["image_name"] for item in decoded] == ["0000000", "0000001"]
    assert decoded[0]["image"].shape == (*SIZE, 3)
    assert decoded[0]["label"].shape == (*SIZE, 1)
    assert records.check_records(tmp_path, quiet=True).is_clean
    assert source.fingerprint() != builders.SceneSource(range(3), SIZE).fingerprint()


@pytest.mark.parametrize(
    ("neighbors", "num_records", "held"),
    [
        ("both", 2, {"prev_image", "prev_label", "next_image", "next_label", "depth"}),
        ("previous", 3, {"prev_image", "prev_label"}),
        ("next", 2, {"next_image", "next_label", "depth"}),
    ],
)
def test_records_of_videos_hold_the_neighbors_that_are_asked_for(
    neighbors: Any, num_records: int, held: set[str]
) -> None:
    source = builders.VideoSource(range(1), 3, SIZE, neighbors)
    encoded = source.encode(0)
    assert len(encoded) == num_records
    everything = builders.VideoSource(range(1), 3, SIZE)
    assert (source.fingerprint() == everything.fingerprint()) is (neighbors == "both")
    for one, all_of_it in zip(encoded, everything.encode(0), strict=False):
        few = records.decode_example(one, where="x")
        many = records.decode_example(all_of_it, where="x")
        optional = {"prev_image", "prev_label", "next_image", "next_label", "depth"}
        assert {k for k in optional if few.get(k) is not None} == held
        for key in held:
            np.testing.assert_array_equal(few[key], many[key])


def test_videos_become_records_of_neighbors_with_depth() -> None:
    source = builders.VideoSource(range(1), 3, SIZE)
    first, second = (records.decode_example(r, where="x") for r in source.encode(0))
    np.testing.assert_array_equal(first["prev_image"], first["image"])
    np.testing.assert_array_equal(first["next_label"], second["label"])
    np.testing.assert_array_equal(second["prev_label"], first["label"])
    assert (second["sequence"], second["frame"]) == ("0000000", "000001")
    assert second["depth"].max() > 256  # further than a metre
    with pytest.raises(UsageError, match="need 2"):
        builders.VideoSource(range(1), 1, SIZE)


@pytest.mark.parametrize("num_frames", [0, 2])
def test_scenes_become_a_folder_that_opens_with_the_same_labels(
    num_frames: int, tmp_path: Path
) -> None:
    synth = pytest.importorskip("deeplab2_edge.synth")
    count = builders.write_scene_folder(
        tmp_path, range(2), size=SIZE, num_frames=num_frames, quiet=True
    )
    folder = open_folder(tmp_path)
    assert count == len(folder.samples) == (4 if num_frames else 2)
    assert check_folder(tmp_path, quiet=True).is_clean
    clips = {source.clip for source in open_sources([str(tmp_path)])}
    assert len(clips) == (2 if num_frames else 1)
    scene = synth.render_scene(0, size=SIZE)
    sample = folder.samples[0]
    panoptic = sample.load_panoptic()
    assert panoptic is not None
    divisor = folder.info.label_divisor
    np.testing.assert_array_equal(panoptic // divisor, scene.panoptic // divisor)
    depth = read_label_png(tmp_path / f"depth/{sample.name}.png")
    np.testing.assert_allclose(
        depth / 256, np.minimum(scene.depth, 65535 / 256), atol=1 / 512 + 1e-6
    )
    intrinsics = json.loads((tmp_path / "intrinsics.json").read_text())
    np.testing.assert_allclose(intrinsics[sample.name], scene.intrinsics)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_leaves_whole_shards_only(tmp_path: Path) -> None:
    program = "import sys; from deeplab2_edge.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "data", "synth", "--num", "400"]
    command += ["--output", str(tmp_path), "--shards", "100", "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    manifest = tmp_path / "train-manifest.json"
    for _ in range(120):
        time.sleep(0.5)
        if manifest.exists() or process.poll() is not None:
            break
    assert process.poll() is None, process.communicate()
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in errors
    assert not list(tmp_path.glob(".*partial*"))
