"""The published data sets become the published records, from their own layouts."""

import functools
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from deeplab2_edge.datasets.registry import get_dataset
from deeplab2_edge.errors import DataError, OutputError, UsageError
from deeplab2_edge.images import encode_png
from tests.train import layout_trees as trees

tf = pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
records = pytest.importorskip("deeplab2_edge.records")
builders = pytest.importorskip("deeplab2_edge.train.data.builders")

pytestmark = pytest.mark.tf

GOLDEN = Path(__file__).parents[1] / "golden/records"
# Records of the published system that hold the same features.
GOLDEN_RECORDS = {
    "cityscapes_panoptic": ("cityscapes_crowd_ignored", "png"),
    "coco_panoptic": ("coco", "jpeg"),
    "ade20k_panoptic": ("ade20k", "jpeg"),
    "kitti_step": ("kitti_step_two_frames_val", "png"),
    "motchallenge_step": ("kitti_step_two_frames_val", "jpg"),
    "cityscapes_dvps": ("semkitti_dvps", "png"),
    "semkitti_dvps": ("semkitti_dvps", "png"),
}


def open_tree(dataset: str, root: Path, split: str = "train", **options: Any) -> Any:
    num_shards = options.pop("num_shards", 1)
    layout_options = builders.LayoutOptions(**options)
    return builders.open_split(
        dataset, root, split, layout_options, num_shards=num_shards, is_partial=True
    )


def all_records(opened: Any) -> list[bytes]:
    indices = range(len(opened.source))
    return [record for index in indices for record in opened.source.encode(index)]


def decoded_of(opened: Any) -> list[dict[str, Any]]:
    return [records.decode_example(r, where="r") for r in all_records(opened)]


def kinds_of(record: bytes) -> dict[str, str]:
    features = tf.train.Example.FromString(record).features.feature
    return {key: feature.WhichOneof("kind") for key, feature in features.items()}


def format_of(record: bytes) -> str:
    features = tf.train.Example.FromString(record).features.feature
    return str(features["image/format"].bytes_list.value[0].decode())


@pytest.mark.parametrize("dataset", builders.LAYOUTS)
def test_records_have_the_features_of_published_records(
    dataset: str, tmp_path: Path
) -> None:
    golden, image_format = GOLDEN_RECORDS[dataset]
    expected = kinds_of(next(records.read_records(GOLDEN / f"{golden}.tfrecord")))
    trees.TREES[dataset](tmp_path)
    opened = open_tree(dataset, tmp_path, two_frames="step" in dataset)
    found = all_records(opened)
    assert len(found) == opened.num_records > 0
    assert opened.num_expected == max(
        get_dataset(dataset).split_sizes.get(split, 0)
        for split in ("train", "train_fine")
    )
    for record in found:
        assert kinds_of(record) == expected
        assert format_of(record) == image_format
        fields = records.check_example(record, where="r")
        assert fields.label
        assert fields.previous_frame == ("step" in dataset)
        assert fields.next_frame == fields.depth == ("dvps" in dataset)


@pytest.mark.parametrize("dataset", builders.LAYOUTS)
def test_built_records_are_clean_and_report_counts_and_checksums(
    dataset: str, tmp_path: Path
) -> None:
    trees.TREES[dataset](tmp_path)
    opened = open_tree(dataset, tmp_path, num_shards=2)
    build = functools.partial(
        builders.build_records, opened.source, split="train", num_shards=2, quiet=True
    )
    summary = build(tmp_path / "one", slices=opened.slices)
    assert summary.num_records == opened.num_records
    assert summary.num_shards == 2
    assert records.check_records(tmp_path / "one", quiet=True).is_clean
    manifest = json.loads(Path(summary.manifest).read_text())
    assert manifest["is_complete"]
    assert len(manifest["shards"]) == 2
    again = build(tmp_path / "two", slices=opened.slices)
    assert again.checksum == summary.checksum


@pytest.mark.parametrize("dataset", sorted(set(builders.LAYOUTS) - {"ade20k_panoptic"}))
def test_test_splits_give_records_without_labels(dataset: str, tmp_path: Path) -> None:
    if dataset == "coco_panoptic":
        trees.jpeg(tmp_path / "test2017/000000000001.jpg", 1)
    elif dataset == "cityscapes_panoptic":
        path = "leftImg8bit/test/berlin/berlin_000000_000019_leftImg8bit.png"
        trees.png(tmp_path / path, 1)
    else:
        trees.TREES[dataset](tmp_path, "test")
    found = all_records(open_tree(dataset, tmp_path, "test"))
    assert found
    for record in found:
        fields = records.check_example(record, where="r")
        assert not fields.label
        assert not fields.depth


def test_cityscapes_numbers_instances_in_the_order_of_the_list(tmp_path: Path) -> None:
    opened = open_tree("cityscapes_panoptic", trees.cityscapes(tmp_path))
    first, second = decoded_of(opened)
    assert first["image_name"] == "aachen_000000_000019"
    assert second["image_name"] == "bonn_000000_000019"
    np.testing.assert_array_equal(first["image"], trees.picture(0))
    row = first["label"][0, ::4, 0]
    assert list(row) == [13001, 255000, 0, 13002, 11001, 255000]
    assert (first["label"][-1] == 255000).all()  # in no segment
    kept = open_tree("cityscapes_panoptic", tmp_path, keeps_crowd=True)
    assert decoded_of(kept)[0]["label"][0, 4, 0] == 11000


def test_cityscapes_classes_alone_can_be_trained_on(tmp_path: Path) -> None:
    trees.cityscapes(tmp_path)
    first = decoded_of(open_tree("cityscapes_panoptic", tmp_path, semantic_only=True))[
        0
    ]
    classes, _ = trees.scene(0, 13, 255)
    np.testing.assert_array_equal(first["label"][..., 0], classes * 1000)


def test_coco_categories_become_contiguous_and_void_is_zero(tmp_path: Path) -> None:
    first = decoded_of(open_tree("coco_panoptic", trees.coco(tmp_path)))[0]
    assert first["image_name"] == "000000000139"
    row = first["label"][0, ::4, 0]
    # Toothbrush (90) is class 80, rug (200) 133, banner (92) 81; the crowd is void.
    assert list(row) == [80 * 256 + 1, 133 * 256, 0, 80 * 256 + 2, 81 * 256, 0]
    kept = open_tree("coco_panoptic", tmp_path, keeps_crowd=True)
    assert decoded_of(kept)[0]["label"][0, 8, 0] == 256


def test_ade20k_shifts_categories_by_one(tmp_path: Path) -> None:
    first = decoded_of(open_tree("ade20k_panoptic", trees.ade20k(tmp_path)))[0]
    row = first["label"][0, ::4, 0]
    assert list(row[:4]) == [150001, 1000, 0, 150002]


def test_step_keeps_numbers_and_crowds(tmp_path: Path) -> None:
    found = decoded_of(open_tree("kitti_step", trees.step(tmp_path)))
    assert [(item["sequence"], item["frame"]) for item in found[1:4]] == [
        ("0000", "000001"),
        ("0000", "000002"),
        ("0002", "000000"),
    ]
    assert found[1]["image_name"] == "000001.png"
    assert list(found[0]["label"][2, :12:4, 0]) == [13007, 13300, 13000]
    assert (found[0]["label"][-1] == 255000).all()


def test_step_pairs_hold_the_frame_before(tmp_path: Path) -> None:
    opened = open_tree("kitti_step", trees.step(tmp_path), two_frames=True)
    found = decoded_of(opened)
    seeds = [0, 0, 1, 0, 0, 1]  # the first frame of a sequence stands for its own
    for item, seed in zip(found, seeds, strict=True):
        np.testing.assert_array_equal(item["prev_image"], trees.picture(seed))
    assert opened.notes == ("train gives 6 records, the published split 5027",)


def test_step_tells_gaps_in_a_sequence(tmp_path: Path) -> None:
    trees.step(tmp_path, frames=(0, 1, 4))
    opened = open_tree("kitti_step", tmp_path, two_frames=True)
    assert opened.notes[0].startswith(
        "2 frames inside a sequence have no frame before (0000/000004, 0002/000004)"
    )
    third = decoded_of(opened)[2]
    np.testing.assert_array_equal(third["prev_image"], third["image"])


@pytest.mark.parametrize(
    ("split", "two_frames", "num_shards", "expected"),
    [
        ("train", False, 4, [2, 2, 2]),  # none is empty
        ("train", True, 4, [2, 2, 2]),
        ("val", False, 2, [3, 3]),
        ("val", True, 10, [3, 3]),  # a sequence each
        ("test", True, 1, [3, 3]),
    ],
)
def test_step_shards(
    split: str,
    two_frames: bool,
    num_shards: int,
    expected: list[int],
    tmp_path: Path,
) -> None:
    trees.step(tmp_path, split)
    opened = open_tree(
        "kitti_step", tmp_path, split, two_frames=two_frames, num_shards=num_shards
    )
    assert [len(items) for items in opened.slices] == expected


@pytest.mark.parametrize("more", ["", "_munster_000168_000004"])
def test_dvps_pairs_hold_the_next_frame_and_depth(more: str, tmp_path: Path) -> None:
    opened = open_tree("cityscapes_dvps", trees.dvps(tmp_path, more=more))
    assert (len(opened.source), opened.num_records) == (6, 4)
    found = decoded_of(opened)
    assert [(item["sequence"], item["frame"]) for item in found] == [
        ("000000", "000000"),
        ("000000", "000001"),
        ("000001", "000000"),
        ("000001", "000001"),
    ]
    second = found[1]
    assert second["image_name"] == f"000000_000001{more}_leftImg8bit.png"
    np.testing.assert_array_equal(second["next_image"], trees.picture(2))
    np.testing.assert_array_equal(second["depth"][..., 0], trees.DEPTH + 1)
    assert list(second["label"][2, :12:4, 0]) == [13007, 13300, 13000]
    assert (second["next_label"][-1] == 32000).all()


def test_dvps_labels_may_be_one_16_bit_value(tmp_path: Path) -> None:
    opened = open_tree("cityscapes_dvps", trees.dvps(tmp_path))
    before = decoded_of(opened)[0]["label"]
    classes, instances = trees.scene(9, 13, 32)
    for path in (tmp_path / "train").glob("*instanceTrainIds.png"):
        trees.write(path, encode_png((classes * 1000 + instances).astype(np.uint16)))
    np.testing.assert_array_equal(decoded_of(opened)[0]["label"], before)


def test_semkitti_labels_have_a_large_divisor(tmp_path: Path) -> None:
    first = decoded_of(open_tree("semkitti_dvps", trees.semkitti(tmp_path)))[0]
    assert list(first["label"][2, :12:4, 0]) == [7, 300, 0]
    assert first["label"][0, 0, 0] == 9 * 65536
    assert (first["label"][-1] == 255 * 65536).all()


Damage = Callable[[Path], object]
CAR = "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png"
MAP = "panoptic_maps/train/0002/000001.png"
LABEL = "train/000001_000001_gtFine_instanceTrainIds.png"
DEPTH = "train/000001_000001_depth.png"
COCO_LABEL = "annotations/panoptic_train2017/000000000285.png"


def remove(name: str) -> Damage:
    def damage(root: Path) -> None:
        path = root / name
        path.rename(root / "moved_away") if path.is_dir() else path.unlink()

    return damage


def put(name: str, data: bytes) -> Damage:
    return lambda root: trees.write(root / name, data)


@pytest.mark.parametrize(
    ("dataset", "damage", "message"),
    [
        ("cityscapes_panoptic", remove("leftImg8bit"),
         "leftImg8bit/train: no such folder; the official layout has leftImg8bit/"),
        ("cityscapes_panoptic", remove("gtFine/cityscapes_panoptic_train_trainId.json"),
         r"train_trainId.json: no such file; .* csCreatePanopticImgs"),
        ("cityscapes_panoptic", remove("gtFine/cityscapes_panoptic_train_trainId"),
         r"train_trainId: no such folder"),
        ("cityscapes_panoptic", remove(CAR), "image of annotation aachen.* is missing"),
        ("cityscapes_panoptic",
         put(CAR.replace("19_left", "20_left"), encode_png(trees.picture(9))),
         r"000020_leftImg8bit.png: is not annotated in .* \(so are 1 image"),
        ("coco_panoptic", remove("train2017"), "train2017: no such folder"),
        ("coco_panoptic", remove(COCO_LABEL), "000000000285.png: the label .* is miss"),
        ("ade20k_panoptic", remove("images/training"),
         "images/training: no such folder; .*Mask2Former"),
        ("kitti_step", remove("panoptic_maps"), "panoptic_maps/train: no such folder"),
        ("kitti_step", remove(MAP), f"{MAP}: no such file; the official layout has"),
        ("kitti_step", put("images/train/0000/first.png", encode_png(trees.picture(1))),
         "first.png: expected a frame with a number"),
        ("cityscapes_dvps", remove("train"), "train: no such folder; the official lay"),
        ("cityscapes_dvps", remove(LABEL), f"{LABEL}: no such file"),
        ("cityscapes_dvps", remove(DEPTH), f"{DEPTH}: no such file"),
        ("semkitti_dvps", put("train/x_leftImg8bit.png", encode_png(trees.picture(1))),
         "x_leftImg8bit.png: the name must begin with <sequence>_<frame>_"),
        ("semkitti_dvps",
         put("train/000000_000001_b_leftImg8bit.png", encode_png(trees.picture(1))),
         "000000_000001_b_gtFine_instanceTrainIds.png: no such file"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named_before_anything_is_written(
    dataset: str, damage: Damage, message: str, tmp_path: Path
) -> None:
    damage(trees.TREES[dataset](tmp_path))
    with pytest.raises(DataError, match=message):
        open_tree(dataset, tmp_path)


def bomb(width: int, height: int) -> bytes:
    """Makes a PNG that declares more pixels than it holds."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(64))
    chunks = [
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c))
        for c in (header, data, b"IEND")
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def label_with(value: int, instance: int = 0, shape: Any = trees.SIZE) -> bytes:
    classes = np.full(shape, value, np.int32)
    return trees.rgb_label(classes, np.full(shape, instance, np.int32))


GRAY = np.zeros(trees.SIZE, np.uint8)


@pytest.mark.parametrize(
    ("dataset", "damage", "message"),
    [
        ("kitti_step", put(MAP, label_with(19)),
         f"{MAP}: 384 pixels hold class 19 .*0 to 18 and 255 is ignored"),
        ("kitti_step", put(MAP, label_with(13, 1000)), "instance id 1000"),
        ("kitti_step", put(MAP, label_with(8, 1)), "instance ids on the stuff class"),
        ("kitti_step", put(MAP, label_with(0, shape=(16, 25))),
         f"{MAP}: is 16x25, but 000001.png is 16x24"),
        ("kitti_step", put(MAP, encode_png(GRAY)),
         "000001.png: is 8-bit gray .class.; labels of 'kitti_step' are 8-bit RGB"),
        ("kitti_step", put(MAP, bomb(30000, 30000)), f"{MAP}: .* 30000x30000 pixels"),
        ("kitti_step", put(MAP, bomb(24, 16)), f"{MAP}: the image is damaged"),
        ("kitti_step", put(MAP, label_with(0)[:-20]), f"{MAP}: .*damaged"),
        ("kitti_step", put("images/train/0002/000001.png", bomb(65535, 65535)),
         "images/train/0002/000001.png: .* 65535x65535 pixels"),
        ("motchallenge_step", put("panoptic_maps/train/0000/000001.png", label_with(8)),
         "class 8 .*0 to 6"),
        ("semkitti_dvps", put(LABEL, encode_png(GRAY.astype(np.uint16))),
         "is 16-bit gray .*; labels of 'semkitti_dvps' are 8-bit RGB"),
        ("semkitti_dvps", put(DEPTH, encode_png(GRAY)), "depth must be a 16-bit gray"),
        ("semkitti_dvps", put(DEPTH, encode_png(np.zeros((16, 23), np.uint16))),
         f"{DEPTH}: is 16x23, but 000001_000001_leftImg8bit.png is 16x24"),
        ("coco_panoptic", put(COCO_LABEL, label_with(0)),
         f"{COCO_LABEL}: segment 70300 has 0 pixels, its `area` says 60"),
        ("coco_panoptic", put(COCO_LABEL, encode_png(GRAY)), "must be 8-bit RGB"),
        ("coco_panoptic", put("train2017/000000000285.jpg", b"\xff\xd8\xff\xe0no"),
         "000000000285.jpg: the image is damaged"),
    ],
)  # fmt: skip
def test_labels_and_images_that_cannot_be_used_are_named(
    dataset: str, damage: Damage, message: str, tmp_path: Path
) -> None:
    damage(trees.TREES[dataset](tmp_path))
    with pytest.raises(DataError, match=message):
        all_records(open_tree(dataset, tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"category_id": 12}, "segment 70300 has category 12, which data set"),
        ({"category_id": 93, "iscrowd": 1}, "crowd of stuff class 'blanket'"),
        ({"id": 140300}, "segment 140300 is listed twice"),
        ({"id": 0}, "segment id 0 is listed"),
        ({"id": -1}, "must be a whole number"),
    ],
)
def test_segments_that_make_no_sense_are_refused(
    change: dict[str, int], message: str, tmp_path: Path
) -> None:
    path = trees.coco(tmp_path) / "annotations/panoptic_train2017.json"
    document = json.loads(path.read_text())
    document["annotations"][0]["segments_info"][0].update(change)
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=message):
        open_tree("coco_panoptic", tmp_path)


def test_too_many_instances_for_the_divisor_are_refused(tmp_path: Path) -> None:
    path = trees.coco(tmp_path) / "annotations/panoptic_train2017.json"
    document = json.loads(path.read_text())
    segments = document["annotations"][0]["segments_info"]
    # 256 toothbrushes before the one that has pixels.
    absent = [{"id": 5_000_000 + i, "category_id": 90} for i in range(256)]
    document["annotations"][0]["segments_info"] = [*absent, *segments]
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match="instance id 258 .* label divisor 256"):
        all_records(open_tree("coco_panoptic", tmp_path))


def test_cityscapes_image_id_is_the_prefix_of_the_file(tmp_path: Path) -> None:
    path = trees.cityscapes(tmp_path) / "gtFine/cityscapes_panoptic_train_trainId.json"
    path.write_text(path.read_text().replace('"bonn_000000_000019"', '"bonn_1"'))
    with pytest.raises(DataError, match="has image_id 'bonn_1'; expected 'bonn_000000"):
        open_tree("cityscapes_panoptic", tmp_path)


def test_gray_and_turned_images_are_stored_upright_in_rgb(tmp_path: Path) -> None:
    trees.coco(tmp_path)
    gray = trees.picture(1)[..., 0]
    cv2.imwrite(str(tmp_path / "train2017/000000000139.jpg"), gray)
    opened = open_tree("coco_panoptic", tmp_path)
    record = opened.source.encode(0)[0]
    assert format_of(record) == "jpeg"
    image = records.decode_example(record, where="r")["image"]
    assert image.shape == (*trees.SIZE, 3)
    assert (image == image[..., :1]).all()


def test_a_split_with_fewer_images_than_published_is_refused(tmp_path: Path) -> None:
    root = trees.coco(tmp_path)
    with pytest.raises(DataError, match="train gives 2 records, the published split 1"):
        builders.open_split("coco_panoptic", root, "train")
    opened = builders.open_split("coco_panoptic", root, "train", is_partial=True)
    assert len(opened.slices) == 1000
    assert opened.notes == ("train gives 2 records, the published split 118287",)


@pytest.mark.parametrize(
    ("dataset", "split", "options", "message"),
    [
        ("camvid", "train", {}, "no layout of its own .*--input"),
        ("ade20k_panoptic", "test", {}, "ade20k_panoptic has train, val"),
        ("coco_panoptic", "train", {"two_frames": True}, "--two-frames means nothing"),
        ("kitti_step", "train", {"semantic_only": True}, "--semantic-only means"),
        ("semkitti_dvps", "train", {"keeps_crowd": True}, "--keep-crowd means"),
    ],
)
def test_what_a_data_set_does_not_have_is_refused(
    dataset: str, split: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        open_tree(dataset, tmp_path, split, **options)


def test_a_root_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none: no such folder; coco_panoptic has the"):
        open_tree("coco_panoptic", tmp_path / "none")


def test_missing_labels_are_fine_if_that_is_asked_for(tmp_path: Path) -> None:
    root = trees.step(tmp_path)
    (root / MAP).unlink()
    opened = open_tree("kitti_step", root, allows_unlabelled=True)
    has_label = [records.check_example(r, where="r").label for r in all_records(opened)]
    assert has_label == [True] * 4 + [False, True]


def test_settings_are_part_of_the_job(tmp_path: Path) -> None:
    trees.cityscapes(tmp_path)
    prints = {
        open_tree("cityscapes_panoptic", tmp_path, **options).source.fingerprint()
        for options in ({}, {"keeps_crowd": True}, {"semantic_only": True})
    }
    assert len(prints) == 3
    trees.step(tmp_path)
    one, two = (
        open_tree("kitti_step", tmp_path, two_frames=flag).source.fingerprint()
        for flag in (False, True)
    )
    assert one != two


def test_a_build_goes_on_when_a_damaged_file_is_mended(tmp_path: Path) -> None:
    trees.dvps(tmp_path)
    good = (tmp_path / DEPTH).read_bytes()
    (tmp_path / DEPTH).write_bytes(good[:-5])

    def build() -> Any:
        opened = open_tree("cityscapes_dvps", tmp_path, num_shards=6)
        return builders.build_records(
            opened.source, tmp_path / "out", "train", num_shards=6, quiet=True
        )

    with pytest.raises(DataError, match=DEPTH):
        build()
    (tmp_path / DEPTH).write_bytes(good)
    assert build().num_kept == 4
    (tmp_path / LABEL.replace("1_gtF", "2_gtF")).touch()  # of the next frame
    assert build().num_kept == 5


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
def test_a_full_disk_leaves_whole_shards_only_and_can_be_continued(
    tmp_path: Path,
) -> None:
    import resource  # not on Windows

    # One sequence has large frames; a limit on file sizes acts as a disk that is full.
    trees.step(tmp_path, frames=range(2))
    large = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    for frame in range(2):
        name = f"train/0002/{frame:06d}.png"
        trees.write(tmp_path / "images" / name, encode_png(large))
        label = label_with(0, shape=(64, 96))
        trees.write(tmp_path / "panoptic_maps" / name, label)
    opened = open_tree("kitti_step", tmp_path, num_shards=2)
    output = tmp_path / "records"
    build = functools.partial(
        builders.build_records,
        opened.source,
        output,
        "train",
        num_shards=2,
        slices=opened.slices,
        quiet=True,
    )
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        with pytest.raises(
            OutputError,
            match="00001-of-00002.tfrecord: cannot be written .File too large.; once "
            "that is mended, the same command goes on: 1 of 2 files are written",
        ):
            build()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    left = sorted(path.name for path in output.iterdir())
    assert left == [
        "dataset.json",
        "train-00000-of-00002.tfrecord",
        "train-manifest.json",
    ]
    assert not json.loads((output / "train-manifest.json").read_text())["is_complete"]
    summary = build()
    assert (summary.num_kept, summary.num_records) == (1, 4)


def living(group: int) -> list[str]:
    """Names the processes of a group that are not dead yet."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state not in "ZX":
            found.append(path.parent.name)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_killed_build_continues_to_the_same_records(
    workers: str, tmp_path: Path
) -> None:
    root = trees.step(tmp_path / "in", frames=range(60))
    program = "import sys; from deeplab2_edge.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "data", "build", "--quiet", "--partial"]
    command += ["--dataset", "kitti_step", "--root", str(root), "--shards", "60"]
    command += ["--workers", workers, "--json", "--output"]
    output = tmp_path / "out"
    process = subprocess.Popen(
        [*command, str(output)], stdout=subprocess.DEVNULL, start_new_session=True
    )
    while not (output / "train-manifest.json").exists() and process.poll() is None:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while living(process.pid):  # its workers end as well
        assert time.monotonic() < deadline, living(process.pid)
        time.sleep(0.1)
    whole = len(list(output.glob("*.tfrecord")))
    for path in output.glob("*.tfrecord"):
        assert records.count_records(path) == 2
    documents = [
        json.loads(
            subprocess.run(
                [*command, str(folder)], check=True, capture_output=True
            ).stdout
        )["records"]
        for folder in (output, tmp_path / "undisturbed")
    ]
    assert documents[0]["checksum"] == documents[1]["checksum"]
    assert 0 < documents[0]["num_kept"] <= whole
    assert not list(output.glob(".*partial*"))
