"""Training targets of one frame, worked out by hand."""

from typing import Any

import numpy as np
import pytest

from deeplab2_edge.config import DatasetOptions
from deeplab2_edge.datasets.info import DatasetInfo

tf = pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
heatmap = pytest.importorskip("deeplab2_edge.postprocess.heatmap")
instances = pytest.importorskip("deeplab2_edge.train.data.instances")
targets = pytest.importorskip("deeplab2_edge.train.data.targets")

pytestmark = pytest.mark.tf

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


def make(panoptic: Any, **settings: Any) -> dict[str, Any]:
    @tf.function  # type: ignore[untyped-decorator]
    def run() -> dict[str, Any]:
        segments = instances.find_segments(tf.constant(panoptic, tf.int32), STREET)
        chosen = targets.TargetSettings(**settings)
        found = targets.semantic_targets(segments, chosen)
        found |= targets.instance_targets(segments, chosen)
        if chosen.max_thing_id is not None:
            found |= targets.thing_id_targets(segments, chosen.max_thing_id, "street")
        return dict(found)

    return {key: value.numpy() for key, value in run().items()}


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
    drawn = heatmap.draw_centers(
        tf.constant([[0, 0], [0, 3]]), tf.constant([1, 4]), 1.0
    ).numpy()
    near = np.exp(-0.5)
    np.testing.assert_allclose(drawn, [[1.0, near, near, 1.0]], rtol=1e-6)


def test_an_impossible_sigma_is_refused() -> None:
    with pytest.raises(ValueError, match="sigma is 0"):
        heatmap.gaussian_window(0)


def test_small_instances_are_weighted_only_if_the_option_says_so() -> None:
    read = targets.TargetSettings.from_options
    assert read(DatasetOptions()).small_instance_threshold == 0
    options = DatasetOptions(increase_small_instance_weights=True)
    assert read(options).small_instance_threshold == 4096
    assert read(options).small_instance_weight == 3.0


def test_things_are_numbered_in_the_order_of_their_first_pixel() -> None:
    found = make([[0, 2007, 2000], [2003, 2007, 255000]], max_thing_id=3)
    assert found["thing_id_mask_gt"].tolist() == [[-1, 0, -1], [1, 0, -1]]
    assert found["thing_id_class_gt"].tolist() == [2.0, 2.0, -1.0]


def test_more_things_than_the_limit_are_refused_by_its_name() -> None:
    assert make([[2001, 2002]], max_thing_id=2)["thing_id_mask_gt"].tolist() == [[0, 1]]
    message = "street: holds 3 things, but max_thing_id is 2"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        make([[2001, 2002, 2003]], max_thing_id=2)


def test_an_instance_of_a_class_that_is_no_thing_is_refused() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="class 1 has an instance"):
        make([[1001, 2002]], max_thing_id=2)
