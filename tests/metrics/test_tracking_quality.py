"""Segmentation and tracking quality, and with depth."""

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.metrics import DepthTrackingQuality, TrackingQuality
from tests.metrics.scenes import disturbed, random_scene

VOID = 255000


def tracking(num_classes: int = 2, ignore_label: int = 255) -> TrackingQuality:
    return TrackingQuality(
        num_classes, ignore_label, label_divisor=1000, thing_ids=(1,)
    )


def frames(*rows: list[int]) -> list[NDArray[np.int64]]:
    return [np.array([row]) for row in rows]


def test_predicted_void_is_one_more_class() -> None:
    metric = tracking()
    metric.update(*frames([0, 0, 1001, 1001], [0, VOID, 1001, 1001]), sequence="a")
    result = metric.result()
    assert result.aq == 1.0
    assert result.per_class == {0: 0.5, 1: 1.0, 255: 0.0}
    assert (result.sq, result.stq) == pytest.approx((0.5, math.sqrt(0.5)))


def test_a_switched_id_halves_the_association() -> None:
    metric = tracking()
    metric.update(*frames([1001, 0], [1001, 0]), sequence=0)
    metric.update(*frames([1001, 0], [1002, 0]), sequence=0)
    # Each predicted tube covers half: 2 * (1 / 2) * (1 / 2).
    assert metric.result().aq == pytest.approx(0.5)
    assert metric.result().per_sequence[0].num_frames == 2


def test_predictions_on_crowds_do_not_count_but_on_void_they_do() -> None:
    for surrounding, expected in ((1000, 1.0), (VOID, 0.5)):
        metric = tracking()
        labels = [1001, surrounding]
        metric.update(*frames(labels, [1001, 1001]), sequence="a")
        assert metric.result().aq == pytest.approx(expected)


def test_a_sequence_without_instances_has_no_association() -> None:
    metric = tracking()
    metric.update(*frames([0, 0], [0, 0]), sequence="a")
    result = metric.result()
    assert (result.aq, result.sq, result.stq) == (0, 1, 0)
    assert tracking().result().stq == 0
    document = json.loads(json.dumps(result.to_json()))
    assert document["per_sequence"]["a"]["num_tubes"] == 0


def naive_association(
    sequences: list[tuple[NDArray[np.int64], NDArray[np.int64]]],
) -> float:
    total, tubes = 0.0, 0
    for groundtruth, prediction in sequences:
        things = (1, 2)
        is_crowd = np.isin(groundtruth // 1000, things) & (groundtruth % 1000 == 0)
        true = np.where(
            np.isin(groundtruth // 1000, things) & ~is_crowd, groundtruth, 0
        )
        found = np.where(np.isin(prediction // 1000, things) & ~is_crowd, prediction, 0)
        for g in set(np.unique(true).tolist()) - {0}:
            tubes += 1
            for p in set(np.unique(found).tolist()) - {0}:
                shared = ((true == g) & (found == p)).sum()
                union = ((true == g) | (found == p)).sum()
                total += shared * shared / union / (true == g).sum()
    return total / tubes


@pytest.mark.parametrize("seed", range(4))
def test_association_equals_the_direct_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    metric = TrackingQuality(4, 255, label_divisor=1000, thing_ids=(1, 2))
    parts = [TrackingQuality(4, 255, label_divisor=1000, thing_ids=(1, 2))]
    parts.append(TrackingQuality(4, 255, label_divisor=1000, thing_ids=(1, 2)))
    sequences = []
    for name in range(2):
        scenes = [random_scene(rng) for _ in range(3)]
        videos = np.stack(scenes), np.stack([disturbed(rng, s) for s in scenes])
        sequences.append(videos)
        for at, (groundtruth, prediction) in enumerate(zip(*videos, strict=True)):
            metric.update(groundtruth, prediction, sequence=name)
            # Frames of one sequence go to two workers.
            parts[at % 2].update(groundtruth, prediction, sequence=name)
    result = metric.result()
    assert result.aq == pytest.approx(naive_association(sequences), rel=1e-12)
    parts[0].merge(parts[1])
    assert parts[0].result().stq == pytest.approx(result.stq, rel=1e-12)


def test_weights_count_pixels_in_part() -> None:
    rng = np.random.default_rng(0)
    scene = random_scene(rng)
    found = disturbed(rng, scene)
    plain, halved = (
        TrackingQuality(4, 255, label_divisor=1000, thing_ids=(1, 2)) for _ in range(2)
    )
    plain.update(scene, found, sequence=0)
    halved.update(scene, found, sequence=0, weights=np.full(scene.shape, 0.5))
    assert halved.result().stq == pytest.approx(plain.result().stq)
    np.testing.assert_allclose(2 * halved.confusion(0), plain.confusion(0))
    with pytest.raises(DataError, match="weights"):
        plain.update(scene, found, sequence=0, weights=np.full(scene.shape, -1.0))


def test_wrong_input_is_refused() -> None:
    with pytest.raises(DataError, match="prediction has id 3000, class 3"):
        tracking().update(*frames([0], [3000]), sequence=0)
    with pytest.raises(DataError, match="shape"):
        tracking().update(np.zeros((1, 2), int), np.zeros((1, 3), int), sequence=0)
    with pytest.raises(UsageError):
        tracking().merge(tracking(3))


def test_depth_quality_is_a_geometric_mean() -> None:
    metric = DepthTrackingQuality(2, 255, label_divisor=1000, thing_ids=(1,))
    labels = np.array([[1001, 0, 0, 0]])
    true = np.array([[2.0, 2.0, 0.0, 2.0]], np.float32)
    predicted = np.array([[2.0, 2.4, 9.0, 0.0]], np.float32)
    metric.update(labels, labels, true, predicted, sequence="a")
    result = metric.result()
    assert result.tracking.stq == 1.0
    assert result.per_threshold[1.25][1] == pytest.approx(2 / 3)
    assert result.per_threshold[1.1][1] == pytest.approx(1 / 3)
    assert result.dq == pytest.approx(math.sqrt(2 / 9))
    assert result.dstq == pytest.approx(math.sqrt(2 / 9) ** (1 / 3))
    json.dumps(result.to_json(), allow_nan=False)
    other = DepthTrackingQuality(2, 255, label_divisor=1000, thing_ids=(1,))
    other.update(labels, labels, np.zeros((1, 4)), predicted, sequence="b")
    assert other.result().per_sequence["b"][1.1] == (0.0, 0.0)
    metric.merge(other)
    assert metric.result().dq == pytest.approx(result.dq)
