"""The input pipeline: every record once per epoch, resumable at any step."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from deeplab2_edge.config import (
    AugmentationOptions,
    DatasetOptions,
    PanopticCopyPasteOptions,
)
from deeplab2_edge.datasets.registry import get_dataset
from deeplab2_edge.errors import ConfigError, DataError
from deeplab2_edge.images import encode_png
from tests.test_records import changed

tf = pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
records = pytest.importorskip("deeplab2_edge.records")
pipeline = pytest.importorskip("deeplab2_edge.train.data.pipeline")

from deeplab2_edge.train.data import readable_errors  # noqa: E402

pytestmark = pytest.mark.tf

INFO = get_dataset("camvid")
NUM_RECORDS = 7


def frame(number: int, *, has_label: bool = True) -> Any:
    """Makes a gray image whose brightness is its number, with one car."""
    image = np.full((20, 30, 3), number, np.uint8)
    panoptic = np.zeros((20, 30), np.int32)
    panoptic[5:10, 5:15] = 8 * INFO.label_divisor + 1
    encoded = cv2.imencode(".png", image)[1].tobytes()
    return records.Frame(encoded, panoptic if has_label else None)


def record(number: int, *, has_label: bool = True, **parts: Any) -> bytes:
    image = frame(number, has_label=has_label)
    name = f"image{number}"
    return bytes(records.encode_example(image, filename=name, **parts))


@pytest.fixture
def options(tmp_path: Path) -> DatasetOptions:
    shards = [range(0, 4), range(4, 4), range(4, NUM_RECORDS)]
    for shard, numbers in enumerate(shards):
        path = tmp_path / f"train-{shard:05d}-of-00003.tfrecord"
        records.write_records(path, map(record, numbers))
    return DatasetOptions(
        file_pattern=(f"{tmp_path}/train-*.tfrecord",),
        batch_size=2,
        crop_size=(17, 33),
        augmentations=AugmentationOptions(min_scale_factor=0.5, max_scale_factor=2.0),
    )


def batches(options: DatasetOptions, count: int, **settings: Any) -> list[Any]:
    dataset = pipeline.training_dataset(options, INFO, **{"seed": 3} | settings)
    return list(dataset.take(count).as_numpy_iterator())


def test_a_run_resumed_anywhere_sees_the_batches_of_an_uninterrupted_one(
    options: DatasetOptions,
) -> None:
    whole = batches(options, 12)
    for start in (0, 3, 7, 8):  # within, at and beyond the first epoch
        resumed = batches(options, 3, start_step=start)
        for expected, found in zip(whole[start:], resumed, strict=False):
            assert expected.keys() == found.keys()
            for key in expected:
                np.testing.assert_array_equal(expected[key], found[key])


def test_every_epoch_is_another_permutation_of_all_records() -> None:
    order = pipeline.shuffled_order(50, seed=1, start=0).take(150).as_numpy_iterator()
    positions, numbers = zip(*order, strict=True)
    assert positions == tuple(range(150))
    epochs = [numbers[start : start + 50] for start in (0, 50, 100)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len(set(epochs)) == 3


def test_a_seed_decides_the_order_and_the_augmentation(options: DatasetOptions) -> None:
    first, again, other = (batches(options, 3, seed=seed) for seed in (1, 1, 2))
    images = [np.stack([b["image"] for b in run]) for run in (first, again, other)]
    np.testing.assert_array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


def test_a_record_gets_another_crop_in_every_epoch(options: DatasetOptions) -> None:
    alone = options.replace(batch_size=NUM_RECORDS)
    areas = [np.sort((b["semantic_gt"] == 8).sum((1, 2))) for b in batches(alone, 2)]
    assert areas[0].tolist() != areas[1].tolist()


def test_training_batches_have_static_shapes(options: DatasetOptions) -> None:
    spec = pipeline.training_dataset(options, INFO, seed=0).element_spec
    assert {key: tuple(value.shape) for key, value in spec.items()} == {
        "image": (2, 17, 33, 3),
        "semantic_gt": (2, 17, 33),
        "semantic_loss_weight": (2, 17, 33),
        "is_crowd_gt": (2, 17, 33),
        "panoptic_gt": (2, 17, 33),
        "instance_center_gt": (2, 17, 33),
        "center_loss_weight": (2, 17, 33),
        "instance_regression_gt": (2, 17, 33, 2),
        "regression_loss_weight": (2, 17, 33),
    }


def test_a_semantic_model_gets_no_instances(options: DatasetOptions) -> None:
    (batch,) = batches(options, 1, has_instances=False)
    assert set(batch) == {
        "image",
        "semantic_gt",
        "semantic_loss_weight",
        "is_crowd_gt",
    }


def test_evaluation_gives_every_record_once_in_order(options: DatasetOptions) -> None:
    dataset = pipeline.evaluation_dataset(options, INFO)
    samples = list(dataset.as_numpy_iterator())
    names = [sample["image_name"][0].decode() for sample in samples]
    assert names == [f"image{number}" for number in range(NUM_RECORDS)]
    sample = samples[5]
    assert sample["size_raw"].tolist() == [[20, 30]]
    assert sample["panoptic_raw"].shape == (1, 20, 30)
    assert sample["resized_image"].shape == (1, 17, 25, 3)  # 20x30 shrunk to the crop
    assert sample["image"].shape == (1, 17, 33, 3)
    assert (sample["image"][0, :, :25] == 5).all()
    assert (sample["image"][0, :, 25:] == 127.5).all()
    assert (sample["panoptic_gt"][0, :, 25:] == INFO.ignored_panoptic_id).all()


def test_records_without_labels_can_be_predicted_but_not_trained_on(
    options: DatasetOptions, tmp_path: Path
) -> None:
    path = tmp_path / "test.tfrecord"
    records.write_records(path, [record(0, has_label=False)])
    unlabelled = options.replace(file_pattern=(str(path),))
    with pytest.raises(DataError, match="test.tfrecord.*no panoptic label"):
        batches(unlabelled, 1)
    dataset = pipeline.evaluation_dataset(
        unlabelled.replace(decode_groundtruth_label=False), INFO
    )
    (sample,) = dataset.as_numpy_iterator()
    assert set(sample) == {"image", "resized_image", "image_name", "size_raw"}


def test_missing_files_are_named(options: DatasetOptions) -> None:
    with pytest.raises(
        DataError, match=r"nowhere/\*' matches no file; .* data build.* `data synth`"
    ):
        batches(options.replace(file_pattern=("nowhere/*",)), 1)


def test_empty_files_are_named(options: DatasetOptions, tmp_path: Path) -> None:
    (tmp_path / "empty.tfrecord").touch()
    with pytest.raises(DataError, match="empty.tfrecord.* hold no records"):
        batches(options.replace(file_pattern=(f"{tmp_path}/empty.tfrecord",)), 1)


def test_a_file_cut_short_is_named(options: DatasetOptions, tmp_path: Path) -> None:
    path = tmp_path / "train-00002-of-00003.tfrecord"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match="00002.*record 2 is cut short"):
        batches(options, 1)


def test_a_changed_byte_is_noticed(options: DatasetOptions, tmp_path: Path) -> None:
    path = tmp_path / "train-00000-of-00003.tfrecord"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="00000.*record 0 is damaged .wrong checksum"):
        batches(options, 1)


DAMAGE: dict[str, Any] = {
    "checksum": None,
    "no label": changed(record(3), "image/segmentation/class/encoded", None),
    "short label": changed(record(3), "image/segmentation/class/encoded", b"1234"),
    "no image": changed(record(3), "image/encoded", b"GIF89a"),
    "image of another size": changed(
        record(3), "image/encoded", encode_png(np.zeros((30, 20, 3), np.uint8))
    ),
    "no example": b"\xff" * 40,
}


@pytest.mark.parametrize(
    ("damage", "is_training"),
    [*((damage, False) for damage in DAMAGE), ("checksum", True), ("no image", True)],
)
def test_a_damaged_record_is_named_when_it_is_reached(
    damage: str, is_training: bool, options: DatasetOptions, tmp_path: Path
) -> None:
    path = tmp_path / "train-00002-of-00003.tfrecord"
    records.write_records(path, [record(0), record(1), DAMAGE[damage] or record(2)])
    if damage == "checksum":
        content = bytearray(path.read_bytes())
        content[-100] ^= 1
        path.write_bytes(content)
    message = (
        r"^the input pipeline stopped: [^ ]*/train-00002-of-00003.tfrecord: record 2 "
        r"is damaged or incomplete \(needed: image, panoptic label\); `deeplab2-edge "
        "data check` says .*: copy it again, or build it anew$"
    )
    with pytest.raises(DataError, match=message), readable_errors():
        if is_training:
            batches(options, 7)
        else:
            list(pipeline.evaluation_dataset(options, INFO))


def test_what_tensorflow_says_is_told_without_its_graph() -> None:
    numbers = tf.data.Dataset.range(3).map(lambda number: 1 // (number - 2))
    message = "^the input pipeline stopped: Integer division by zero$"
    with pytest.raises(DataError, match=message), readable_errors():
        list(numbers)


def test_an_unresolved_placeholder_is_named(options: DatasetOptions) -> None:
    with pytest.raises(ConfigError, match="TRAIN_SET"):
        batches(options.replace(file_pattern=("${TRAIN_SET}",)), 1)


def write_video(folder: Path, options: DatasetOptions) -> DatasetOptions:
    """Writes records with all that a frame of a video can have."""
    parts = {"depth": np.full((20, 30), 512, np.int32), "sequence_id": "street"}
    serialized = [
        record(
            number,
            previous=frame(number - 1),
            following=frame(number + 1),
            frame_id=f"{number:06d}",
            **parts,
        )
        for number in range(1, 4)
    ]
    path = folder / "video.tfrecord"
    records.write_records(path, serialized)
    return options.replace(file_pattern=(str(path),))


PASTING = AugmentationOptions(
    min_scale_factor=0.5,
    max_scale_factor=2.0,
    autoaugment_policy_name="simple_classification_policy",
    panoptic_copy_paste=PanopticCopyPasteOptions(panoptic_copy_paste_scale=0.5),
)
FAMILIES = {
    "max": {"thing_id_mask_annotations": True, "augmentations": PASTING},
    "motion": {"use_two_frames": True},
    "vip": {"use_next_frame": True},
}
SECOND_FRAME_SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "max": {
        "image": (2, 17, 33, 3),
        "thing_id_mask_gt": (2, 17, 33),
        "thing_id_class_gt": (2, 128),
    },
    "motion": {
        "image": (2, 17, 33, 7),
        "frame_offset_gt": (2, 17, 33, 2),
        "frame_regression_loss_weight": (2, 17, 33),
    },
    "vip": {
        "image": (2, 17, 33, 6),
        "next_image": (2, 17, 33, 3),
        "next_instance_regression_gt": (2, 17, 33, 2),
        "next_regression_loss_weight": (2, 17, 33),
        "depth_gt": (2, 17, 33, 1),
    },
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gets_its_samples_and_resumes(
    family: str, options: DatasetOptions, tmp_path: Path
) -> None:
    options = write_video(tmp_path, options).replace(**FAMILIES[family])
    settings = {"has_depth": family == "vip"}
    dataset = pipeline.training_dataset(options, INFO, seed=3, **settings)
    shapes = {key: tuple(spec.shape) for key, spec in dataset.element_spec.items()}
    assert SECOND_FRAME_SHAPES[family].items() <= shapes.items()
    whole = list(dataset.take(4).as_numpy_iterator())
    resumed = batches(options, 2, start_step=2, **settings)
    for expected, found in zip(whole[2:], resumed, strict=True):
        for key in expected:
            np.testing.assert_array_equal(expected[key], found[key])


def test_the_seventh_channel_shows_the_previous_centers(
    options: DatasetOptions, tmp_path: Path
) -> None:
    options = write_video(tmp_path, options).replace(use_two_frames=True)
    (batch,) = batches(options, 1)
    heatmap = batch["image"][..., 6]
    assert heatmap.min() >= 0 and heatmap.max() == 1
    current, previous = batch["image"][..., 0], batch["image"][..., 3]
    is_image = current != 127.5
    assert (current - previous)[is_image].tolist() == [1.0] * is_image.sum()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_evaluated_without_random_events(
    family: str, options: DatasetOptions, tmp_path: Path
) -> None:
    options = write_video(tmp_path, options).replace(**FAMILIES[family])
    settings = {"has_depth": family == "vip"}
    first, again = (
        list(pipeline.evaluation_dataset(options, INFO, **settings)) for _ in range(2)
    )
    assert len(first) == 3
    for one, other in zip(first, again, strict=True):
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])
    sample = first[1]
    assert sample["image"].shape[-1] == (3 if family == "max" else 6)
    assert sample["sequence_id"].numpy().tolist() == [b"street"]
    assert sample["frame_id"].numpy().tolist() == [b"000002"]
    if family == "vip":
        assert sample["next_panoptic_raw"].shape == (1, 20, 30)
        assert (sample["depth_raw"].numpy() == 2.0).all()


def test_copies_of_the_data_set_are_shuffled_differently() -> None:
    first, second = (
        [
            int(number)
            for _, number in pipeline.shuffled_order(9, seed=1, start=4, copy=copy)
            .take(18)
            .as_numpy_iterator()
        ]
        for copy in (0, 1)
    )
    assert first != second
    assert sorted(second[5:14]) == list(range(9))


def test_samples_may_overtake_each_other_on_request(options: DatasetOptions) -> None:
    dataset = pipeline.training_dataset(options, INFO, seed=0, deterministic=False)
    assert next(iter(dataset))["image"].shape == (2, 17, 33, 3)


@pytest.mark.parametrize(
    ("changes", "has_depth", "message"),
    [
        ({"use_two_frames": True, "use_next_frame": True}, False, "are both set"),
        (
            {"use_two_frames": True, "augmentations": PASTING},
            False,
            "panoptic_copy_paste is set together with a second frame",
        ),
        (
            {"use_next_frame": True, "thing_id_mask_annotations": True},
            False,
            "thing_id_mask_annotations is set together",
        ),
        ({"augmentations": PASTING}, True, "pasted segments have no depth"),
        ({"min_resize_value": (17,)}, True, "depth cannot be resized to a range"),
        ({"cameras_to_use": ("front",)}, False, "cameras_to_use is set"),
        ({"sigma": 0.0}, False, "sigma is 0; it must be a positive number"),
    ],
)
def test_options_that_contradict_each_other_are_named(
    options: DatasetOptions, changes: dict[str, Any], has_depth: bool, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        batches(options.replace(**changes), 1, has_depth=has_depth)


@pytest.mark.parametrize(
    ("changes", "has_depth", "message"),
    [
        ({"use_two_frames": True}, False, "no previous frame, which use_two_frames"),
        ({"use_next_frame": True}, False, "no next frame, which use_next_frame"),
        ({}, True, "holds no depth, which the depth head asks for"),
    ],
)
def test_parts_that_records_lack_are_named(
    options: DatasetOptions, changes: dict[str, Any], has_depth: bool, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        batches(options.replace(**changes), 1, has_depth=has_depth)


def write_crossing(folder: Path, panoptic_id: int, options: Any) -> DatasetOptions:
    """Writes one image, "crossing", with one more segment."""
    panoptic = frame(0).panoptic.copy()
    panoptic[0] = panoptic_id
    image = records.Frame(frame(0).image, panoptic)
    path = folder / "crossing.tfrecord"
    records.write_records(path, [records.encode_example(image, filename="crossing")])
    return options.replace(  # type: ignore[no-any-return]
        file_pattern=(str(path),),
        crop_size=(20, 30),
        augmentations=AugmentationOptions(),
    )


def test_too_many_things_are_told_in_a_sentence(
    options: DatasetOptions, tmp_path: Path
) -> None:
    options = write_crossing(tmp_path, 8 * INFO.label_divisor + 2, options)
    options = options.replace(thing_id_mask_annotations=True, max_thing_id=1)
    message = "^the input pipeline stopped: crossing: holds 2 things, but max_thing_id"
    with pytest.raises(DataError, match=message) as caught, readable_errors():
        batches(options, 1)
    assert "\n" not in str(caught.value)


def test_a_class_that_does_not_exist_is_told_in_a_sentence(
    options: DatasetOptions, tmp_path: Path
) -> None:
    options = write_crossing(tmp_path, 12 * INFO.label_divisor, options)
    message = "crossing: a pixel has the panoptic id 12000, of class 12; camvid has"
    with pytest.raises(DataError, match=message), readable_errors():
        batches(options, 1)


@pytest.mark.parametrize("augmentations", [AugmentationOptions(), PASTING])
def test_processes_share_the_batches_of_one(
    options: DatasetOptions, augmentations: AugmentationOptions
) -> None:
    options = options.replace(batch_size=4, augmentations=augmentations)
    whole = batches(options, 3)
    shares = [
        batches(options, 6, share=pipeline.Share(index, 2, num_replicas=2))
        for index in (0, 1)
    ]
    for step, expected in enumerate(whole):
        parts = [part for share in shares for part in share[2 * step : 2 * step + 2]]
        found = np.concatenate([part["image"] for part in parts])
        np.testing.assert_array_equal(found, expected["image"])


def test_a_batch_that_cannot_be_shared_is_refused(options: DatasetOptions) -> None:
    with pytest.raises(ConfigError, match="batch_size is 2; .* replicas, 3"):
        batches(options, 1, share=pipeline.Share(0, 3))
