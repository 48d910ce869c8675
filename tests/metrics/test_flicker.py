"""Flicker of predictions where nothing changes."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.metrics import FlickerFigures, FlickerRate
from tests.metrics.scenes import disturbed, random_scene

VOID = 255000


def flicker() -> FlickerRate:
    return FlickerRate(255, label_divisor=1000, thing_ids=(1, 2))


def figures(*frames: tuple[list[int], list[int]]) -> FlickerFigures:
    metric = flicker()
    for truth, prediction in frames:
        metric.update(np.array([truth]), np.array([prediction]), sequence="a")
    return metric.result().total


def test_a_class_that_changes_where_the_truth_does_not_flickers() -> None:
    same = [0, 0, 3000, 3000]
    found = figures((same, same), (same, [0, 3000, 3000, 3000]), (same, same))
    assert found.classes == pytest.approx(2 / 8)
    assert math.isnan(found.ids) and found.num_pairs == 2


def test_a_change_of_the_truth_is_no_flicker() -> None:
    assert figures(([0, 0], [0, 0]), ([0, 3000], [0, 3000])).classes == 0


def test_void_does_not_count() -> None:
    found = figures(([0, VOID], [0, 0]), ([0, VOID], [0, 3000]))
    assert found.classes == 0


def test_another_id_on_the_same_instance_flickers() -> None:
    truth = [1001, 1001, 1002, 0]
    found = figures((truth, [1001, 1001, 1002, 0]), (truth, [1003, 1003, 1002, 0]))
    assert (found.classes, found.ids) == (0, pytest.approx(2 / 3))


def test_crowds_have_no_ids() -> None:
    found = figures(([1000, 2001], [1001, 2001]), ([1000, 2001], [1002, 2001]))
    assert found.ids == 0


def test_the_first_frame_of_a_sequence_has_nothing_before_it() -> None:
    metric = flicker()
    metric.update(np.array([[0]]), np.array([[0]]), sequence="a")
    metric.update(np.array([[0]]), np.array([[3000]]), sequence="b")
    result = metric.result()
    assert math.isnan(result.total.classes) and result.total.num_pairs == 0
    assert [*result.per_sequence] == ["a", "b"]
    assert json.loads(json.dumps(result.to_json()))["classes"] is None


def test_wrong_input_is_refused() -> None:
    metric = flicker()
    one = np.array([[0]])
    with pytest.raises(DataError, match="shape"):
        metric.update(one, np.zeros((2, 1), int), sequence="a")
    metric.update(one, one, sequence="a")
    with pytest.raises(DataError, match="one size"):
        metric.update(np.zeros((2, 1), int), np.zeros((2, 1), int), sequence="a")
    metric.update(one, one, sequence="b")
    with pytest.raises(DataError, match="another one began"):
        metric.update(one, one, sequence="a")
    with pytest.raises(UsageError, match="class lists"):
        metric.merge(FlickerRate(0, label_divisor=1000, thing_ids=(1, 2)))
    with pytest.raises(UsageError, match="in both"):
        metric.merge(metric)
    with pytest.raises(UsageError, match="label_divisor"):
        FlickerRate(255, label_divisor=0, thing_ids=())


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_shares_are_those_counted_pixel_by_pixel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = random_scene(rng, size=(20, 30))
    truths = [np.roll(scene, int(rng.integers(0, 3)), axis=1) for _ in range(4)]
    predictions = [disturbed(rng, truth) for truth in truths]
    metric, parts = flicker(), [flicker(), flicker()]
    for truth, prediction in zip(truths, predictions, strict=True):
        metric.update(truth, prediction, sequence="a")
    counts = np.zeros(4)
    for i in range(1, 4):
        for before, after, was, now in zip(
            truths[i - 1].flat,
            truths[i].flat,
            predictions[i - 1].flat,
            predictions[i].flat,
            strict=True,
        ):
            if before // 1000 == after // 1000 != 255:
                counts += [1, was // 1000 != now // 1000, 0, 0]
                if before == after and after // 1000 in (1, 2) and after % 1000:
                    counts += [0, 0, 1, was != now]
    total = metric.result().total
    assert total.classes == pytest.approx(counts[1] / counts[0])
    assert total.ids == pytest.approx(counts[3] / counts[2])
    for number, part in enumerate(parts):
        for truth, prediction in zip(truths, predictions, strict=True):
            part.update(truth, prediction, sequence=number)
    parts[0].merge(parts[1])
    assert parts[0].result().total.classes == pytest.approx(total.classes)
    assert parts[0].result().total.num_pairs == 6


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_truth_itself_never_flickers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    metric = flicker()
    for _ in range(3):
        scene = random_scene(rng, size=(20, 30))
        metric.update(scene, scene, sequence="a")
    assert metric.result().total.classes == 0
