"""Panoptic quality of videos, and with depth."""

import json
import math

import numpy as np
import pytest

from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.metrics import (
    DepthVideoPanopticQuality,
    PanopticQuality,
    VideoPanopticQuality,
)
from tests.metrics.scenes import disturbed, random_scene


def video(windows: tuple[int, ...] = (1, 2, 3)) -> VideoPanopticQuality:
    return VideoPanopticQuality(
        4, 255, label_divisor=1000, thing_ids=(1, 2), windows=windows
    )


@pytest.mark.parametrize("seed", range(3))
def test_windows_equal_frames_side_by_side(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng) for _ in range(5)]
    found = [disturbed(rng, scene) for scene in scenes]
    metric = video()
    for groundtruth, prediction in zip(scenes, found, strict=True):
        metric.update(groundtruth, prediction, sequence="a")
        metric.update(groundtruth, groundtruth, sequence="b")  # alternating
    for size in (1, 2, 3):
        expected = PanopticQuality(4, 255, label_divisor=1000, thing_ids=(1, 2))
        for start in range(6 - size):
            window = slice(start, start + size)
            true = np.concatenate(scenes[window], axis=1)
            expected.update(true, np.concatenate(found[window], axis=1))
            expected.update(true, true)
        assert metric.qualities[size].result() == expected.result()
    single = video()
    single.update_window(scenes[:2], found[:2])
    assert single.result().per_window[2].pq > 0
    assert math.isnan(single.result().per_window[3].pq)
    json.dumps(single.result().to_json(), allow_nan=False)


def test_an_instance_must_keep_its_id() -> None:
    metric = video((1, 2))
    frame = np.full((4, 4), 1001)
    for label in (1001, 1002):
        metric.update(frame, np.full((4, 4), label), sequence=0)
    result = metric.result()
    assert result.per_window[1].pq == 1.0
    # Each predicted tube has half of the true one: no match, two mistakes.
    assert result.per_window[2].per_class[1].fp == 2
    assert result.vpq == 0.5


def test_sequences_go_to_one_worker_as_a_whole() -> None:
    frame = np.full((2, 2), 1001)
    parts = video(), video()
    parts[0].update(frame, frame, sequence="a")
    parts[1].update(frame, frame, sequence="b")
    parts[0].merge(parts[1])
    assert parts[0].result().per_window[1].per_class[1].tp == 2
    with pytest.raises(UsageError, match="sequence b was counted by both"):
        parts[0].merge(parts[1])
    with pytest.raises(UsageError):
        parts[0].merge(video((1,)))


def test_wrong_windows_are_refused() -> None:
    for windows in ((), (0,), (2, 2)):
        with pytest.raises(UsageError, match="windows are"):
            video(windows)
    frame = np.zeros((2, 2), int)
    with pytest.raises(UsageError, match="a window has 1 true and 2 predicted"):
        video().update_window([frame], [frame, frame])


def test_wrong_depth_makes_pixels_void() -> None:
    metric = DepthVideoPanopticQuality(
        4, 255, label_divisor=1000, thing_ids=(1, 2), windows=(1,)
    )
    labels = np.array([[1001] * 4 + [0] * 4])
    true = np.array([[10.0] * 4 + [0.0] * 4], np.float32)
    predicted = np.array([[10.0, 10.9, 12.0, 40.0] + [7.0] * 4], np.float32)
    metric.update(labels, labels, true, predicted, sequence=0)
    result = metric.result()
    # Of the instance remain 2, 3 and 3 of 4 pixels; one half is no match.
    things = [vpq.vpq_things for vpq in result.per_threshold.values()]
    assert things == pytest.approx([0.0, 0.75, 0.75])
    assert result.dvpq_stuff == 1.0
    assert result.dvpq == pytest.approx((0.5 + 0.875 + 0.875) / 3)
    json.dumps(result.to_json(), allow_nan=False)
    with pytest.raises(DataError, match="depth prediction has shape"):
        metric.update(labels, labels, true, predicted[:, :2], sequence=0)
    other = DepthVideoPanopticQuality(
        4, 255, label_divisor=1000, thing_ids=(1, 2), windows=(1,)
    )
    other.update(labels, labels, true, true, sequence=1)
    metric.merge(other)
    assert metric.result().dvpq > result.dvpq
