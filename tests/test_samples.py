"""Folders, records and the synthetic world read through the same samples."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from deeplab2_edge import synth
from deeplab2_edge.datasets.registry import get_dataset, save_description
from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.images import encode_png, write_png
from deeplab2_edge.samples import open_samples

SIZE = (33, 65)
INFO = get_dataset("synthetic_street")


@pytest.fixture(scope="module")
def record_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = pytest.importorskip("deeplab2_edge.records", reason="needs TensorFlow")
    folder = tmp_path_factory.mktemp("records")
    for shard in range(2):
        scenes = (synth.render_scene(2 * shard + k, size=SIZE) for k in range(2))
        records.write_records(
            folder / f"val-{shard:05d}-of-00002.tfrecord",
            (
                records.encode_example(
                    records.Frame(encode_png(scene.image), scene.panoptic),
                    filename="scene",
                )
                for scene in scenes
            ),
        )
    save_description(INFO, folder / "dataset.json")
    return folder


def test_synthetic_splits_do_not_meet() -> None:
    val = open_samples("synthetic", limit=2, synthetic_size=SIZE).samples
    train = open_samples("synthetic:train", limit=2, synthetic_size=SIZE).samples
    assert not {s.name for s in val} & {s.name for s in train}
    assert val[0].load_image().shape == (*SIZE, 3)
    with pytest.raises(UsageError, match="splits train and val"):
        open_samples("synthetic:test")


@pytest.mark.tf
def test_records_give_what_was_written(record_folder: Path) -> None:
    found = open_samples(record_folder)
    assert (found.info, len(found.samples)) == (INFO, 4)
    scene = synth.render_scene(3, size=SIZE)
    np.testing.assert_array_equal(found.samples[3].load_image(), scene.image)
    np.testing.assert_array_equal(found.samples[3].load_panoptic(), scene.panoptic)
    by_pattern = open_samples(record_folder / "val-*.tfrecord", limit=2)
    assert [s.name for s in by_pattern.samples] == [
        found.samples[0].name,
        found.samples[3].name,
    ]


@pytest.mark.tf
def test_records_without_a_description_need_a_data_set(
    record_folder: Path, tmp_path: Path
) -> None:
    shard = record_folder / "val-00000-of-00002.tfrecord"
    shutil.copy(shard, tmp_path / shard.name)
    with pytest.raises(DataError, match=r"dataset\.json is missing"):
        open_samples(tmp_path)
    assert len(open_samples(tmp_path, INFO).samples) == 2


@pytest.mark.tf
def test_unfinished_record_files_are_not_read(
    record_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(record_folder, tmp_path / "records"))
    count = len(open_samples(folder).samples)
    (folder / ".val-00001.partial.tfrecord").write_bytes(b"half")
    assert len(open_samples(folder).samples) == count
    assert len(open_samples(folder / "*.tfrecord").samples) == count


@pytest.mark.tf
def test_a_damaged_record_is_named(record_folder: Path, tmp_path: Path) -> None:
    data = bytearray((record_folder / "val-00000-of-00002.tfrecord").read_bytes())
    data[200] ^= 0xFF
    (tmp_path / "val.tfrecord").write_bytes(data)
    with pytest.raises(DataError, match=r"val\.tfrecord: record 0 is damaged"):
        open_samples(tmp_path, INFO).samples[0].load_image()


@pytest.mark.tf
def test_a_class_that_a_data_set_does_not_have_is_named(tmp_path: Path) -> None:
    records = pytest.importorskip("deeplab2_edge.records", reason="needs TensorFlow")
    scene = synth.render_scene(0, size=SIZE)
    wrong = np.where(scene.panoptic // 1000 == 0, 77_000, scene.panoptic)
    frame = records.Frame(encode_png(scene.image), wrong)
    path = tmp_path / "a.tfrecord"
    records.write_records(
        path, [records.encode_example(frame, filename="a", following=frame)]
    )
    (sample,) = open_samples(path, INFO).samples
    message = (
        f"{path}: record 0: .* pixels hold class 77 .*classes of 'synthetic_street'"
    )
    with pytest.raises(DataError, match=message):
        sample.load_panoptic()
    with pytest.raises(DataError, match=message):
        sample.load_next()  # type: ignore[attr-defined]


def test_folders_and_wrong_places(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.zeros((4, 5, 3), np.uint8))
    assert open_samples(tmp_path).samples[0].load_panoptic() is None
    with pytest.raises(DataError, match="nowhere"):
        open_samples(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="must be at least 1"):
        open_samples(tmp_path, limit=0)


def test_one_image_is_no_folder_of_images(tmp_path: Path) -> None:
    image = tmp_path / "0.png"
    write_png(image, np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(DataError, match="0.png: an image; give the folder"):
        open_samples(image)
