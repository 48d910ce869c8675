"""Tracking by overlap."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic import IouTracker, IouTrackingSettings, assign

SETTINGS = IouTrackingSettings((11, 13), label_divisor=1000, track_divisor=1000)


def line(*ids: int) -> NDArray[np.int32]:
    return np.array([ids], np.int32)


def run(tracker: IouTracker, *frames: NDArray[np.int32]) -> list[list[int]]:
    return [tracker.update(frame).panoptic[0].tolist() for frame in frames]


def test_ids_follow_the_masks() -> None:
    frames = line(11007, 11007, 11007, 0), line(0, 11002, 11002, 11002)
    assert run(IouTracker(SETTINGS), *frames) == [
        [11001, 11001, 11001, 0],
        [0, 11001, 11001, 11001],
    ]


def test_the_overlap_must_be_above_the_threshold() -> None:
    half = IouTrackingSettings((11,), 1000, iou_threshold=0.5, track_divisor=1000)
    frames = line(11001, 11001, 0), line(0, 11001, 0)
    assert run(IouTracker(half), *frames)[1] == [0, 11002, 0]
    assert run(IouTracker(SETTINGS), *frames)[1] == [0, 11001, 0]


def test_classes_are_tracked_apart_on_one_counter_in_the_order_of_the_settings() -> (
    None
):
    reverse = IouTrackingSettings((13, 11), 1000, track_divisor=1000)
    frames = line(11001, 13001), line(13001, 11001)
    assert run(IouTracker(reverse), *frames) == [[11002, 13001], [13003, 11004]]


def test_pairs_are_those_of_the_largest_sum() -> None:
    # One by one, the right instance would take the left track.
    before = line(11001, 11001, 11001, 11001, 11002, 11002, 11002)
    after = line(11001, 11001, 11002, 11002, 11002, 11002, 11002)
    assert run(IouTracker(SETTINGS), before, after)[1] == [11001] * 2 + [11002] * 5


def test_who_has_no_pair_is_numbered_before_who_is_too_far() -> None:
    before = line(11001, 0, 0, 0, 0, 0)
    after = line(11001, 11001, 11001, 11001, 11001, 11002)
    assert run(IouTracker(SETTINGS), before, after)[1] == [11003] * 5 + [11002]


def test_a_track_is_forgotten_after_too_many_missed_frames() -> None:
    two = IouTrackingSettings((11,), 1000, max_missed_frames=2, track_divisor=1000)
    seen, gone = line(11001, 0), line(0, 0)
    assert run(IouTracker(two), seen, gone, gone, seen)[3] == [11001, 0]
    assert run(IouTracker(two), seen, gone, gone, gone, seen)[4] == [11002, 0]


def test_stuff_crowd_void_and_other_things_have_no_instance() -> None:
    frame = line(0, 2000, 2004, 11000, 12001, 255000)
    maps = IouTracker(SETTINGS).update(frame)
    assert maps.panoptic[0].tolist() == [0, 2000, 2000, 11000, 12000, 255000]
    assert maps.track_ids.shape == maps.is_new.shape == (0,)


def test_ids_are_encoded_with_the_divisor_of_tracks() -> None:
    tracker = IouTracker(IouTrackingSettings((11,), label_divisor=256))
    maps = tracker.update(np.array([[11 * 256 + 9, 256]]))
    assert maps.panoptic.tolist() == [[110_001, 10_000]]
    assert maps.track_ids.tolist() == [110_001] and maps.is_new.tolist() == [True]


def test_reset_starts_again() -> None:
    tracker = IouTracker(SETTINGS)
    run(tracker, line(11001, 13001))
    assert tracker.next_id == 3
    tracker.reset()
    assert tracker.next_id == 1
    assert run(tracker, line(0, 13009, 13009)) == [[0, 13001, 13001]]


def test_flow_moves_masks_back() -> None:
    before, after = line(11001, 11001, 0, 0, 0), line(0, 0, 0, 11001, 11001)
    flow = np.zeros((1, 5, 2), np.float32)
    flow[..., 0] = 3
    tracker = IouTracker(SETTINGS)
    tracker.update(before)
    maps = tracker.update(after, flow=flow)
    assert maps.panoptic.tolist() == [[0, 0, 0, 11001, 11001]]
    assert maps.is_new.tolist() == [False]


def test_occluded_pixels_do_not_count() -> None:
    before, after = line(11001, 0, 0, 0), line(11001, 11001, 11001, 11001)
    occluded = np.array([[False, True, True, True]])
    tracker = IouTracker(SETTINGS)
    tracker.update(before)
    assert tracker.update(after, is_occluded=occluded).panoptic[0, 0] == 11001


def test_flow_between_pixels_reaches_both() -> None:
    before, after = line(11001, 11001, 0, 0), line(0, 11001, 0, 0)
    flow = np.full((1, 4, 2), 0, np.float32)
    flow[..., 0] = 0.5
    tracker = IouTracker(
        IouTrackingSettings((11,), 1000, iou_threshold=0.99, track_divisor=1000)
    )
    tracker.update(before)
    assert tracker.update(after, flow=flow).panoptic[0, 1] == 11001


def test_wrong_input_is_refused() -> None:
    tracker = IouTracker(
        IouTrackingSettings((11,), label_divisor=1000, track_divisor=2)
    )
    with pytest.raises(UsageError, match="track_divisor"):
        tracker.update(line(11001, 11002))
    tracker.reset()
    tracker.update(line(11001))
    with pytest.raises(UsageError, match=r"\(1, 1\)"):
        tracker.update(line(11001, 11001))
    with pytest.raises(UsageError, match="flow has shape"):
        tracker.update(line(11001), flow=np.zeros((1, 1), np.float32))
    with pytest.raises(UsageError, match="is_occluded"):
        tracker.update(line(11001), is_occluded=np.zeros((2, 1), bool))
    with pytest.raises(UsageError, match="iou_threshold"):
        IouTrackingSettings((11,), 1000, iou_threshold=float("nan"))


def scene(rng: np.random.Generator) -> NDArray[np.int32]:
    choices = [0, 2000, 11000, 255000, *(11001, 11002, 13001, 13007)]
    coarse = rng.choice(choices, (3, 4)).astype(np.int32)
    return np.kron(coarse, np.ones((3, 3), np.int32))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_tracks_never_share_an_id_and_stay_when_nothing_moves(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tracker = IouTracker(SETTINGS)
    for _ in range(4):
        frame = scene(rng)
        tracked = tracker.update(frame).panoptic
        pairs = {*zip(frame.ravel().tolist(), tracked.ravel().tolist(), strict=True)}
        assert len(pairs) == len({new for _, new in pairs}) == len(np.unique(frame))
        for old, new in pairs:
            assert old // 1000 == new // 1000
            assert (old % 1000 == 0) == (new % 1000 == 0)
        again = tracker.update(frame)
        np.testing.assert_array_equal(again.panoptic, tracked)
        assert not again.is_new.any()


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    levels=st.sampled_from([2, 1000]),
)
def test_assignment_has_the_least_cost(
    seed: int, shape: tuple[int, int], levels: int
) -> None:
    cost = np.random.default_rng(seed).integers(-levels, levels, shape).astype(float)
    rows, columns = assign(cost)
    assert len(rows) == len({*columns.tolist()}) == min(shape)
    assert np.all(np.diff(rows) > 0)
    wide = cost if shape[0] <= shape[1] else cost.T
    best = min(
        sum(wide[row, column] for row, column in enumerate(chosen))
        for chosen in itertools.permutations(range(wide.shape[1]), wide.shape[0])
    )
    assert cost[rows, columns].sum() == best


def test_assignment_is_that_of_scipy_on_ties_as_well() -> None:
    optimize = pytest.importorskip("scipy.optimize", reason="install scipy")
    rng = np.random.default_rng(5)
    for _ in range(200):
        cost = rng.integers(0, 3, rng.integers(1, 7, 2)).astype(float)
        expected = optimize.linear_sum_assignment(cost)
        np.testing.assert_array_equal(assign(cost), expected)


def test_costs_that_are_not_finite_are_refused() -> None:
    with pytest.raises(UsageError, match="finite"):
        assign(np.array([[np.nan]]))
