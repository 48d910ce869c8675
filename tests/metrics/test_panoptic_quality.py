"""Panoptic quality."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.metrics import PanopticQuality, PanopticQualityResult


def quality(num_classes: int = 3, ignore_label: int = 255) -> PanopticQuality:
    return PanopticQuality(
        num_classes, ignore_label, label_divisor=1000, thing_ids=(1,)
    )


def figures(result: PanopticQualityResult) -> list[float]:
    return [result.pq, result.sq, result.rq, result.tp, result.fn, result.fp]


def hand_made(third_row: int) -> PanopticQualityResult:
    groundtruth, prediction = np.zeros((4, 4), np.int32), np.zeros((4, 4), np.int32)
    groundtruth[:2], groundtruth[2], groundtruth[3] = 1001, third_row, 255000
    prediction[:2, :3], prediction[3] = 1001, 2001
    metric = quality()
    metric.update(groundtruth, prediction)
    return metric.result()


def test_a_prediction_on_void_is_excused() -> None:
    result = hand_made(0)
    assert figures(result) == pytest.approx([17 / 24, 17 / 24, 1, 1, 0, 0])
    assert (result.pq_things, result.pq_stuff) == pytest.approx((3 / 4, 2 / 3))


def test_crowds_are_ordinary_segments() -> None:
    expected = [0.25, 0.375, 1 / 3, 0.5, 0.5, 0.5]
    assert figures(hand_made(1000)) == pytest.approx(expected)


def test_an_iou_of_one_half_is_no_match() -> None:
    metric = quality()
    metric.update(np.array([[1001, 1001, 0, 0]]), np.array([[1001, 0, 0, 0]]))
    assert metric.tp.tolist() == [1, 0, 0]
    assert metric.fn.tolist() == metric.fp.tolist() == [0, 1, 0]


def test_without_segments_the_result_is_not_a_number() -> None:
    metric = quality()
    metric.update(np.zeros((0, 4), np.int32), np.zeros((0, 4), np.int32))
    result = metric.result()
    assert all(map(math.isnan, figures(result))) and result.per_class == {}
    assert json.loads(json.dumps(result.to_json()))["pq"] is None


def test_unknown_classes_and_shapes_are_refused() -> None:
    void = np.array([[255000]])
    with pytest.raises(DataError, match="prediction has id 3001, class 3"):
        quality().update(void, np.array([[3001]]))
    with pytest.raises(DataError, match="ground truth has id -5"):
        quality().update(np.array([[-5]]), void)
    with pytest.raises(DataError, match="shape"):
        quality().update(void, np.zeros((1, 2), int))
    with pytest.raises(UsageError):
        quality().merge(quality(ignore_label=0))


def test_large_ids_count_as_others() -> None:
    metric = PanopticQuality(3, 255, label_divisor=1 << 22, thing_ids=(1, 2))
    labels = np.array([[2 << 22, (2 << 22) + 1, 1 << 22]])
    metric.update(labels, labels)
    assert metric.tp.tolist() == [0, 1, 2] and metric.result().pq == 1


def naive_counts(groundtruth: NDArray[Any], prediction: NDArray[Any]) -> list[Any]:
    counts = [[0.0, 0, 0, 0] for _ in range(3)]
    is_void = groundtruth == 255000
    unmatched_true = set(np.unique(groundtruth[groundtruth // 1000 != 255]).tolist())
    unmatched_pred = set(np.unique(prediction[prediction // 1000 != 255]).tolist())
    for true_id in sorted(unmatched_true):
        for pred_id in sorted(unmatched_pred):
            if true_id // 1000 == pred_id // 1000:
                true, pred = groundtruth == true_id, prediction == pred_id
                shared = (true & pred).sum()
                iou = shared / ((true | pred) & ~(pred & is_void)).sum()
                if iou > 0.5:
                    counts[true_id // 1000][0] += iou
                    counts[true_id // 1000][1] += 1
                    unmatched_true.discard(true_id)
                    unmatched_pred.discard(pred_id)
    for true_id in unmatched_true:
        counts[true_id // 1000][2] += 1
    for pred_id in unmatched_pred:
        pred = prediction == pred_id
        counts[pred_id // 1000][3] += bool((pred & is_void).sum() / pred.sum() <= 0.5)
    return counts


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), noise=st.floats(0, 0.6))
def test_counts_equal_the_direct_definition(seed: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    ids = np.array([0, 1001, 1002, 2000, 255000])
    groundtruth, other = rng.choice(ids, (2, 5, 6))
    groundtruth[:3] = rng.choice(ids)
    prediction = np.where(rng.uniform(size=(5, 6)) < noise, other, groundtruth)
    metric = quality()
    metric.update(groundtruth, prediction)
    got = np.stack([metric.iou_sum, metric.tp, metric.fn, metric.fp], axis=1)
    np.testing.assert_allclose(got, naive_counts(groundtruth, prediction))
    halves = quality(), quality()
    for half in halves:
        half.update(groundtruth, prediction)
    halves[0].merge(halves[1])
    np.testing.assert_allclose(halves[0].iou_sum, 2 * metric.iou_sum)
