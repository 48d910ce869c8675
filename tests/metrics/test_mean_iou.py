"""Mean IoU."""

import math

import numpy as np
import pytest

from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.metrics import MeanIou


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
