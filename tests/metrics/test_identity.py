"""Id switches, fragmentations and IDF1."""

import itertools
import json
import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.metrics import IdentityFigures, IdentityQuality
from tests.metrics.scenes import disturbed, random_scene

VOID = 255000
THINGS = (1, 2)
Pair = tuple[NDArray[np.int64], NDArray[np.int64]]


def identity() -> IdentityQuality:
    return IdentityQuality(4, 255, label_divisor=1000, thing_ids=THINGS)


def figures(*frames: tuple[list[int], list[int]]) -> IdentityFigures:
    metric = identity()
    for truth, prediction in frames:
        metric.update(np.array([truth]), np.array([prediction]), sequence="a")
    return metric.result().total


def test_a_track_found_under_another_id_is_a_switch() -> None:
    found = figures(*(([1001, 0], [pred, 0]) for pred in (1005, 1005, 1006, 1005)))
    assert (found.id_switches, found.fragmentations, found.tp) == (2, 0, 4)
    assert found.idtp == 3 and found.idf1 == pytest.approx(3 / 4)
    assert found.motsa == pytest.approx(2 / 4) and found.motsp == 1


def test_a_track_missed_between_is_fragmented_and_its_id_remembered() -> None:
    seen, missed = ([1001, 0], [1005, 0]), ([1001, 0], [0, 0])
    found = figures(seen, missed, missed, seen, ([1001, 0], [1006, 0]), missed)
    assert (found.fragmentations, found.id_switches, found.fn) == (1, 1, 3)


def test_a_track_that_was_hidden_is_not_fragmented() -> None:
    seen, hidden = ([1001, 0], [1005, 0]), ([0, 0], [0, 0])
    assert figures(seen, hidden, seen).fragmentations == 0


def test_two_instances_that_swap_their_ids_are_two_switches() -> None:
    found = figures(([1001, 1002], [1001, 1002]), ([1001, 1002], [1002, 1001]))
    assert found.id_switches == 2 and found.idf1 == pytest.approx(0.5)


def test_another_class_is_not_found() -> None:
    found = figures(([1001, 0], [2001, 0]))
    assert (found.tp, found.fp, found.fn) == (0, 1, 1)
    assert math.isnan(found.motsp) and found.motsa == -1


def test_predictions_on_void_and_on_crowds_of_their_class_are_no_mistakes() -> None:
    assert figures(([VOID, VOID, 0], [1001, 1001, 1001])).fp == 0
    assert figures(([1000, 1000, 0], [1001, 1001, 1001])).fp == 0
    assert figures(([2000, 2000, 0], [1001, 1001, 1001])).fp == 1
    # Void does not shrink the overlap of what is found.
    assert figures(([1001, VOID, VOID], [1001, 1001, 1001])).tp == 1


def test_half_an_overlap_is_not_found() -> None:
    assert figures(([1001, 1001], [1001, 0])).tp == 0
    assert figures(([1001, 1001, 1001], [1001, 1001, 0])).tp == 1


def test_sequences_are_apart() -> None:
    metric = identity()
    for sequence, prediction in (("a", 1005), ("b", 1006), ("a", 1005)):
        metric.update(np.array([[1001]]), np.array([[prediction]]), sequence=sequence)
    result = metric.result()
    assert result.total.id_switches == 0 and result.total.num_tracks == 2
    assert [q.num_frames for q in result.per_sequence.values()] == [2, 1]
    assert json.loads(json.dumps(result.to_json()))["per_sequence"]["b"]["tp"] == 1


def test_nothing_gives_no_figures() -> None:
    total = identity().result().total
    assert total.num_frames == 0 and math.isnan(total.idf1) and math.isnan(total.motsa)
    assert total.to_json()["idf1"] is None


def test_wrong_input_is_refused() -> None:
    with pytest.raises(UsageError, match="num_classes"):
        IdentityQuality(0, 255, label_divisor=1000, thing_ids=())
    with pytest.raises(DataError, match="class 9"):
        figures(([9000], [0]))
    one, other = identity(), identity()
    one.update(np.array([[1001]]), np.array([[1001]]), sequence="a")
    with pytest.raises(UsageError, match="class lists"):
        one.merge(IdentityQuality(3, 255, label_divisor=1000, thing_ids=THINGS))
    other.merge(one)
    with pytest.raises(UsageError, match="'a' is in both"):
        other.merge(one)


def naive(frames: list[Pair]) -> tuple[int, ...]:
    """Counts (tp, fp, switches, fragmentations, idtp) mask by mask."""
    tp = fp = switches = fragments = 0
    last: dict[int, int] = {}
    missed: dict[int, bool] = {}
    together: dict[tuple[int, int], int] = defaultdict(int)
    for truth, prediction in frames:
        found = set()
        for true_id in np.unique(truth).tolist():
            if true_id // 1000 not in THINGS or true_id % 1000 == 0:
                continue
            hit = None
            for pred_id in np.unique(prediction).tolist():
                if pred_id // 1000 != true_id // 1000 or pred_id % 1000 == 0:
                    continue
                t, p = truth == true_id, prediction == pred_id
                union = ((t | p) & ((truth != VOID) | t)).sum()
                if (t & p).sum() / union > 0.5:
                    hit = pred_id
            if hit is None:
                missed[true_id] = True
                continue
            found.add(hit)
            tp += 1
            together[true_id, hit] += 1
            if true_id in last:
                switches += last[true_id] != hit
                fragments += missed.get(true_id, False)
            last[true_id], missed[true_id] = hit, False
        for pred_id in set(np.unique(prediction).tolist()) - found:
            if pred_id // 1000 in THINGS and pred_id % 1000:
                on = truth[prediction == pred_id]
                excused = (on == VOID) | (on == pred_id // 1000 * 1000)
                fp += excused.mean() <= 0.5
    true_ids, pred_ids = {t for t, _ in together}, {p for _, p in together}
    pairings = (
        sum(together[pair] for pair in zip(sorted(true_ids), chosen, strict=False))
        for chosen in itertools.permutations(
            [*sorted(pred_ids), *([0] * len(true_ids))], len(true_ids)
        )
    )
    return tp, fp, switches, fragments, max(pairings)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_figures_are_those_counted_mask_by_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = random_scene(rng, size=(24, 30), num_instances=3)
    frames = []
    for _ in range(4):
        prediction = disturbed(rng, scene)
        swap = rng.random() < 0.4
        if swap:
            prediction = np.where(prediction % 1000 == 2, prediction + 7, prediction)
        frames.append((scene, prediction))
    metric = identity()
    for truth, prediction in frames:
        metric.update(truth, prediction, sequence=0)
    total = metric.result().total
    assert naive(frames) == (
        total.tp,
        total.fp,
        total.id_switches,
        total.fragmentations,
        total.idtp,
    )
    assert 0 <= total.idf1 <= 1


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_ids_that_never_change_do_not_depend_on_their_names(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = random_scene(rng, size=(24, 30))
    total = identity()
    for _ in range(3):
        moved = np.roll(scene, int(rng.integers(0, 30)), axis=1)
        renamed = np.where(moved % 1000 != 0, moved + 100, moved)
        renamed[moved == VOID] = VOID
        total.update(moved, renamed, sequence=0)
    figures = total.result().total
    assert figures.id_switches == figures.fp == figures.fn == 0
    assert figures.idf1 == figures.motsa == figures.motsp == 1
