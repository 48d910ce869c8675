"""Mean IoU."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.metrics import MeanIou

GOLDEN = np.load(Path(__file__).parents[1] / "golden/metrics/metrics.npz")


@pytest.mark.parametrize("case", ["cityscapes_like", "coco_like", "dvps_like"])
def test_mean_iou_equals_the_reference(case: str) -> None:
    config = json.loads(str(GOLDEN[f"miou_{case}/config"]))
    metric = MeanIou(config["num_classes"], config["ignore_label"])
    images = (
        GOLDEN[f"miou_{case}/in/gt_semantic"],
        GOLDEN[f"miou_{case}/in/pred_semantic"],
    )
    for groundtruth, prediction in zip(*images, strict=True):
        metric.update(groundtruth, prediction)
    np.testing.assert_array_equal(
        metric.confusion, GOLDEN[f"miou_{case}/out/confusion"]
    )
    expected = float(GOLDEN[f"miou_{case}/out/mean_iou"])
    assert metric.result().miou == pytest.approx(expected, abs=1e-7)


def test_only_classes_that_occur_take_part() -> None:
    metric = MeanIou(4, 255)
    metric.update(np.array([[0, 0, 1, 255]]), np.array([[0, 1, 1, 3]]))
    result = metric.result()
    assert result.per_class == {0: 0.5, 1: 0.5}
    assert result.miou == 0.5


def test_merging_equals_one_accumulator() -> None:
    first, second, both = MeanIou(3, 255), MeanIou(3, 255), MeanIou(3, 255)
    images = np.random.default_rng(0).integers(0, 3, (2, 2, 5, 5))
    for metric, (groundtruth, prediction) in zip((first, second), images, strict=True):
        metric.update(groundtruth, prediction)
        both.update(groundtruth, prediction)
    first.merge(second)
    assert first.result() == both.result()
    with pytest.raises(UsageError):
        first.merge(MeanIou(4, 255))


def test_without_pixels_the_result_is_not_a_number() -> None:
    result = MeanIou(3, 255).result()
    assert math.isnan(result.miou)
    assert result.to_json() == {"miou": None, "per_class": {}}


def test_unknown_classes_and_shapes_are_refused() -> None:
    metric = MeanIou(3, 255)
    with pytest.raises(DataError, match="ground truth has class 7"):
        metric.update(np.array([[7]]), np.array([[0]]))
    with pytest.raises(DataError, match="prediction has class -1"):
        metric.update(np.array([[0]]), np.array([[-1]]))
    with pytest.raises(DataError, match="shape"):
        metric.update(np.zeros((2, 2), int), np.zeros((2, 3), int))
