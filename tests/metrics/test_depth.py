"""Errors of depth."""

import json
import math

import numpy as np
import pytest

from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.metrics import DepthError

TRUE = np.array([[1.0, 2.0, 0.0, 4.0]], np.float32)
PREDICTED = np.array([[1.1, 1.5, 3.0, 4.0]], np.float32)


def test_hand_made_depth() -> None:
    metric = DepthError()
    metric.update(TRUE, PREDICTED)
    result = metric.result()
    assert result.silog == pytest.approx(16.2798, abs=1e-4)
    assert result.sq_rel == pytest.approx(0.0241667, abs=1e-6)
    assert result.abs_rel == pytest.approx(0.1166667, abs=1e-6)
    assert result.inlier == pytest.approx(2 / 3)
    assert result.rmse == pytest.approx(math.sqrt(0.26 / 3), abs=1e-6)


def test_images_without_depth_are_skipped_and_told() -> None:
    metric, other = DepthError(), DepthError()
    metric.update(TRUE, PREDICTED)
    other.update(np.zeros((1, 4)), PREDICTED)
    assert json.loads(json.dumps(other.result().to_json()))["silog"] is None
    metric.merge(other)
    result = metric.result()
    assert (result.num_images, result.num_skipped) == (1, 1)
    assert result.abs_rel == pytest.approx(0.1166667, abs=1e-6)


def test_a_factor_of_the_threshold_is_no_inlier() -> None:
    metric = DepthError()
    metric.update(np.array([[4.0, 4.0]]), np.array([[5.0, 4.9]]))
    assert metric.result().inlier == 0.5


def test_wrong_input_is_refused() -> None:
    with pytest.raises(DataError, match="depth prediction is 0 on 1 pixels"):
        DepthError().update(TRUE, np.array([[0.0, 1, 1, 1]]))
    with pytest.raises(DataError, match="depth prediction is nan"):
        DepthError().update(TRUE, np.array([[math.nan, 1, 1, 1]]))
    with pytest.raises(DataError, match="shape"):
        DepthError().update(TRUE, PREDICTED[:, :2])
    with pytest.raises(UsageError):
        DepthError(inlier_threshold=1.0)
    with pytest.raises(UsageError):
        DepthError().merge(DepthError(inlier_threshold=1.1))
