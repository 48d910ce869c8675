"""Training targets: those of the published system, and cases worked out by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deeplab2_edge.config import DatasetOptions
from deeplab2_edge.datasets.info import DatasetInfo

tf = pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
targets = pytest.importorskip("deeplab2_edge.train.data.targets")

pytestmark = pytest.mark.tf

GOLDEN = np.load(Path(__file__).parents[1] / "golden/train/targets.npz")
CASES = sorted({key.split("/")[0] for key in GOLDEN.files})
STREET = DatasetInfo(
    name="street",
    num_classes=3,
    ignore_label=255,
    label_divisor=1000,
    thing_ids=(2,),
    class_names=("road", "sky", "car"),
    colors=((1, 1, 1), (2, 2, 2), (3, 3, 3)),
    split_sizes={},
)


def make(panoptic: Any, info: DatasetInfo = STREET, **settings: Any) -> dict[str, Any]:
    found = tf.function(targets.make_targets)(
        tf.constant(panoptic, tf.int32), info, targets.TargetSettings(**settings)
    )
    return {key: value.numpy() for key, value in found.items()}


@pytest.mark.parametrize("case", [c for c in CASES if not c.startswith("gaussian")])
def test_targets_equal_the_published_ones(case: str) -> None:
    config = json.loads(str(GOLDEN[f"{case}/config"]))
    published, options = config["dataset_info"], config["options"]
    num_classes = published["num_classes"]
    info = DatasetInfo(
        name="golden",
        num_classes=num_classes,
        ignore_label=published["ignore_label"],
        label_divisor=published["panoptic_label_divisor"],
        thing_ids=tuple(published["class_has_instances_list"]),
        class_names=tuple(f"class {number}" for number in range(num_classes)),
        colors=((0, 0, 0),) * num_classes,
        split_sizes={},
    )
    small = options.get("focus_small_instances", {"threshold": 0, "weight": 1.0})
    label = GOLDEN[f"{case}/in/label"]
    if config["flip"]:
        label = label[:, ::-1]
    panoptic = np.full(config["crop_size"], info.ignored_panoptic_id)
    panoptic[: label.shape[0], : label.shape[1]] = label
    found = make(
        panoptic,
        info,
        sigma=options.get("sigma", 8.0),
        small_instance_threshold=small["threshold"],
        small_instance_weight=small["weight"],
        has_instances=not options.get("only_semantic_annotations"),
    )
    prefix = f"{case}/out/"
    expected = {
        key.removeprefix(prefix): GOLDEN[key]
        for key in GOLDEN.files
        if key.startswith(prefix)
    }
    assert set(found) == set(expected)
    for key, value in expected.items():
        tolerance = 1e-6 if key == "instance_center_gt" else 0
        np.testing.assert_allclose(found[key], value, rtol=0, atol=tolerance)


@pytest.mark.parametrize("sigma", [4, 8])
def test_gaussian_windows_equal_the_published_ones(sigma: int) -> None:
    window = targets.gaussian_window(sigma)
    np.testing.assert_allclose(
        window, GOLDEN[f"gaussian_sigma{sigma}/out/kernel"], atol=1e-7
    )
    assert window.max() == 1.0


def test_offsets_point_to_the_center_rounded_half_to_even() -> None:
    panoptic = np.zeros((9, 10), np.int32)
    panoptic[2:6, 3:8] = 2001  # mean (3.5, 5)
    found = make(panoptic)
    assert found["instance_regression_gt"][2, 3].tolist() == [2.0, 2.0]
    assert found["instance_center_gt"][4, 5] == 1.0
    assert not found["instance_regression_gt"][0].any()


def test_crowd_teaches_its_class_only() -> None:
    found = make([[2000, 2000, 0]])
    assert found["semantic_gt"].tolist() == [[2, 2, 0]]
    assert found["is_crowd_gt"].tolist() == [[True, True, False]]
    assert found["semantic_loss_weight"].tolist() == [[1, 1, 1]]
    assert found["center_loss_weight"].tolist() == [[0, 0, 1]]
    assert found["regression_loss_weight"].tolist() == [[0, 0, 0]]
    assert not found["instance_center_gt"].any()


def test_ignored_pixels_have_no_center_and_no_weight() -> None:
    found = make([[255000, 2001]])
    assert found["semantic_gt"].tolist() == [[255, 2]]
    assert found["center_loss_weight"].tolist() == [[0, 1]]
    assert found["instance_center_gt"][0, 1] == 1.0


def test_instances_below_the_threshold_are_weighted() -> None:
    found = make(
        [[2001, 2001, 2002, 0]], small_instance_threshold=2, small_instance_weight=3.0
    )
    assert found["semantic_loss_weight"].tolist() == [[1, 1, 3, 1]]


def test_overlapping_gaussians_keep_the_larger_value() -> None:
    drawn = targets.draw_centers(
        tf.constant([[0, 0], [0, 3]]), tf.constant([1, 4]), 1.0
    ).numpy()
    near = np.exp(-0.5)
    np.testing.assert_allclose(drawn, [[1.0, near, near, 1.0]], rtol=1e-6)


def test_an_impossible_sigma_is_refused() -> None:
    with pytest.raises(ValueError, match="sigma is 0"):
        targets.gaussian_window(0)


def test_small_instances_are_weighted_only_if_the_option_says_so() -> None:
    read = targets.TargetSettings.from_options
    assert read(DatasetOptions()).small_instance_threshold == 0
    options = DatasetOptions(increase_small_instance_weights=True)
    assert read(options).small_instance_threshold == 4096
    assert read(options).small_instance_weight == 3.0
