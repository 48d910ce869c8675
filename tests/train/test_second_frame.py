"""Targets that link two frames, worked out by hand, and the faults of centers."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from deeplab2_edge.datasets.registry import get_dataset
from tests.functions.forced_draws import ForcedDraws

tf = pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
draws = pytest.importorskip("deeplab2_edge.train.data.draws")
instances = pytest.importorskip("deeplab2_edge.train.data.instances")
second_frame = pytest.importorskip("deeplab2_edge.train.data.second_frame")
targets = pytest.importorskip("deeplab2_edge.train.data.targets")

pytestmark = pytest.mark.tf

INFO = get_dataset("camvid")
CAR, OTHER, CROWD = 8001, 8002, 8000
EXACT = targets.TargetSettings(sigma=1.0, center_noise=0.0, false_center_rate=0.0)


def segments(panoptic: Any) -> Any:
    return instances.find_segments(tf.constant(panoptic, tf.int32), INFO)


def motion(current: Any, previous: Any, settings: Any, chosen: Any) -> Any:
    found, heatmap = second_frame.motion_targets(
        segments(current), segments(previous), settings, chosen
    )
    return {key: value.numpy() for key, value in found.items()}, heatmap.numpy()


def test_the_next_frame_points_to_centers_of_this_one() -> None:
    found = second_frame.next_frame_targets(
        segments([[0, CAR, CAR, CAR, CROWD]]), segments([[CAR, 0, CAR, OTHER, CROWD]])
    )
    offsets = found["next_instance_regression_gt"].numpy()
    assert offsets[0].tolist() == [[0, 2], [0, 0], [0, 0], [0, 0], [0, 0]]
    # The pixel on the center has no weight, and neither have new instances and crowds.
    weights = found["next_regression_loss_weight"].numpy()
    assert weights.tolist() == [[1, 0, 0, 0, 0]]


def test_this_frame_points_to_centers_of_the_previous_one() -> None:
    found, heatmap = motion(
        [[CAR, OTHER, 0, CROWD]],
        [[0, 0, CAR, CROWD]],
        EXACT,
        ForcedDraws("lo", 0.5),
    )
    assert found["frame_offset_gt"][0].tolist() == [[0, 2], [0, 0], [0, 0], [0, 0]]
    assert found["frame_regression_loss_weight"].tolist() == [[1, 0, 0, 0]]
    near = np.exp(-0.5)
    np.testing.assert_allclose(heatmap, [[near**4, near, 1, near]], rtol=1e-6)


def test_a_first_frame_points_to_its_own_centers() -> None:
    frame = [[CAR, CAR, CAR, 0, OTHER]]
    found, heatmap = motion(frame, frame, EXACT, ForcedDraws("lo", 0.5))
    own = targets.instance_targets(segments(frame), EXACT)
    np.testing.assert_array_equal(
        found["frame_offset_gt"], own["instance_regression_gt"]
    )
    np.testing.assert_array_equal(heatmap, own["instance_center_gt"])


def test_a_frame_without_instances_has_no_motion() -> None:
    found, heatmap = motion([[0, 1000]], [[0, 2000]], EXACT, ForcedDraws("lo", 0.0))
    assert not found["frame_offset_gt"].any() and not heatmap.any()


def peaks(number: int, **changes: float) -> list[list[int]]:
    panoptic = np.zeros((90, 90), np.int32)
    panoptic[20:60, 10:80] = CAR
    settings = dataclasses.replace(EXACT, **changes)
    seeded = draws.SeededDraws(tf.constant([0, number], tf.int64))
    found, heatmap = motion(panoptic, panoptic, settings, seeded)
    center = found["frame_offset_gt"][20, 10] + (20, 10)
    assert heatmap[tuple(center.astype(int))] == 1.0
    places: list[list[int]] = np.argwhere(heatmap == 1.0).tolist()
    return places


def test_previous_centers_are_displaced_in_proportion_to_their_extent() -> None:
    centers = np.array([peaks(n, center_noise=0.1)[0] for n in range(60)])
    np.testing.assert_allclose(centers.mean(0), (39.5, 44.5), atol=2.5)
    np.testing.assert_allclose(centers.std(0), (3.9, 6.9), rtol=0.35)


def test_some_previous_centers_get_a_false_one_beside() -> None:
    counts = [len(peaks(n, center_noise=0.1, false_center_rate=0.5)) for n in range(30)]
    assert set(counts) == {1, 2}


def test_displaced_centers_stay_inside() -> None:
    panoptic = np.full((3, 40), CAR)
    settings = dataclasses.replace(EXACT, center_noise=9.0, false_center_rate=1.0)
    for number in range(20):
        seeded = draws.SeededDraws(tf.constant([1, number], tf.int64))
        _, heatmap = motion(panoptic, panoptic, settings, seeded)
        assert heatmap.max() == 1.0
