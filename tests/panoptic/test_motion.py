"""Tracking by center offsets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic import (
    MotionSettings,
    MotionTracker,
    is_scene_start,
    render_centers,
)

SIZE = (12, 16)
STILL = np.zeros((*SIZE, 2), np.float32)
EMPTY = np.zeros(SIZE, np.int32)
SETTINGS = MotionSettings((11, 13), label_divisor=1000)


def frame(**boxes: tuple[int, int, int, int]) -> NDArray[np.int32]:
    """Draws boxes `_<id>=(top, left, bottom, right)`, both ends inclusive."""
    panoptic = EMPTY.copy()
    for name, (top, left, bottom, right) in boxes.items():
        panoptic[top : bottom + 1, left : right + 1] = int(name[1:])
    return panoptic


BOX = frame(_11007=(5, 5, 9, 9))


def ids(panoptic: NDArray[np.int32]) -> list[int]:
    return [int(i) for i in np.unique(panoptic)]


def test_radius_is_the_area_between_the_outermost_pixels() -> None:
    maps = render_centers(BOX, thing_ids=(11,), label_divisor=1000)
    assert maps.centers.tolist() == [[7, 7, 11007, 16, 0]]
    assert maps.heatmap.argmax() == 7 * 16 + 7 and maps.heatmap.max() == 1


def test_centers_round_halves_to_even_and_come_in_raster_order() -> None:
    panoptic = frame(_11002=(0, 0, 1, 1), _11001=(0, 4, 0, 7))
    centers = render_centers(panoptic, thing_ids=(11,), label_divisor=1000).centers
    assert centers[:, :4].tolist() == [[0, 0, 11002, 1], [6, 0, 11001, 0]]


def test_heatmap_ends_at_its_window() -> None:
    panoptic = np.zeros((3, 60), np.int32)
    panoptic[1, 4] = 11001
    heat = render_centers(panoptic, thing_ids=(11,), label_divisor=1000).heatmap
    assert heat[1, 4] == 1 and heat[1, 29] > 0 and not heat[:, 30:].any()
    np.testing.assert_allclose(heat[0, 6], np.exp(-5 / 128), rtol=1e-6)


def test_crowd_stuff_and_void_are_no_instances() -> None:
    panoptic = np.array([[11000, 2003, 255000]])
    maps = render_centers(panoptic, thing_ids=(11,), label_divisor=1000)
    assert maps.centers.shape == (0, 5) and not maps.heatmap.any()


@pytest.mark.parametrize(("missed", "expected"), [(5, 11001), (6, 11002)])
def test_a_lost_track_is_found_after_five_missed_frames(
    missed: int, expected: int
) -> None:
    tracker = MotionTracker(SETTINGS)
    assert ids(tracker.update(BOX, STILL).panoptic) == [0, 11001]
    for _ in range(missed):
        maps = tracker.update(EMPTY, STILL)
        assert maps.centers.shape == (0, 5) and not maps.panoptic.any()
    assert ids(tracker.update(BOX, STILL).panoptic) == [0, expected]


def test_offsets_point_to_where_the_center_was() -> None:
    moved = frame(_11001=(5, 11, 9, 15))
    offsets = STILL.copy()
    offsets[7, 13] = (0, -6)
    tracker = MotionTracker(SETTINGS)
    tracker.update(BOX, STILL)
    assert ids(tracker.update(moved, offsets).panoptic) == [0, 11001]
    tracker.reset()
    tracker.update(BOX, STILL)
    assert ids(tracker.update(moved, STILL).panoptic) == [0, 11002]


def test_offsets_of_the_heads_grow_with_the_canvas() -> None:
    size = (13, 17)
    before, after = np.zeros(size, np.int32), np.zeros(size, np.int32)
    before[4:9, 2:7], after[4:9, 10:15] = 11001, 11001
    small = np.zeros((4, 5, 2), np.float32)
    small[..., 1] = -2
    tracker = MotionTracker(SETTINGS)
    tracker.update(before, small)
    assert ids(tracker.update(after, small).panoptic) == [0, 11001]


def test_other_classes_start_new_tracks_on_one_counter() -> None:
    tracker = MotionTracker(SETTINGS)
    tracker.update(BOX, STILL)
    panoptic = np.where(BOX == 11007, 13007, 0)
    assert ids(tracker.update(panoptic, STILL).panoptic) == [0, 13002]


def test_two_instances_can_swap_ids() -> None:
    boxes = (0, 0, 4, 4), (7, 10, 11, 14)
    tracker = MotionTracker(SETTINGS)
    first = tracker.update(frame(_11001=boxes[0], _11002=boxes[1]), STILL).panoptic
    second = tracker.update(frame(_11002=boxes[0], _11001=boxes[1]), STILL).panoptic
    np.testing.assert_array_equal(first, second)


def test_an_offset_that_is_not_a_number_finds_nothing() -> None:
    tracker = MotionTracker(SETTINGS)
    tracker.update(BOX, STILL)
    maps = tracker.update(BOX, np.full_like(STILL, np.nan))
    assert ids(maps.panoptic) == [0, 11002]


def test_heatmap_for_the_network_is_empty_at_the_start_of_a_scene() -> None:
    tracker = MotionTracker(SETTINGS)
    assert not tracker.previous_heatmap(SIZE).any()
    maps = tracker.update(BOX, STILL)
    np.testing.assert_array_equal(tracker.previous_heatmap(SIZE), maps.heatmap)
    tracker.reset()
    assert not tracker.previous_heatmap(SIZE).any() and tracker.next_id == 1


def test_scene_start_means_equal_frames() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    other = image.copy()
    other[1, 1, 2] = 1
    assert is_scene_start(image, image.copy()) and not is_scene_start(image, other)


def test_ids_beyond_the_divisor_are_refused_and_a_larger_one_takes_them() -> None:
    boxes = {f"_110{i:02}": (i % 10, i % 7, i % 10, i % 7) for i in range(1, 4)}
    small = MotionTracker(MotionSettings((110,), label_divisor=100, track_divisor=3))
    with pytest.raises(UsageError, match="track_divisor"):
        small.update(frame(**boxes), STILL)
    large = MotionTracker(
        MotionSettings((110,), label_divisor=100, track_divisor=10_000)
    )
    assert ids(large.update(frame(**boxes), STILL).panoptic) == [
        0,
        1_100_001,
        1_100_002,
        1_100_003,
    ]


def test_ids_come_again_when_all_were_used_but_not_those_remembered() -> None:
    tracker = MotionTracker(
        MotionSettings((11,), 1000, keep_frames=2, track_divisor=4, reuses_ids=True)
    )
    found = []
    for turn in range(3):
        other = (9, 9, 11, 11) if turn % 2 else (0, 9, 2, 11)
        maps = tracker.update(frame(_11001=(0, 0, 4, 4), _11002=other), STILL)
        found.append(ids(maps.panoptic)[1:])
    # The first stays; the other is new in every frame and takes what is free.
    assert found == [[45, 46], [45, 47], [45, 46]]
    with pytest.raises(UsageError, match="track_divisor"):
        tracker.update(frame(_11001=(6, 0, 8, 2), _11002=(9, 9, 11, 11)), STILL)


def test_forgetting_goes_on_with_ids() -> None:
    tracker = MotionTracker(SETTINGS)
    tracker.update(BOX, STILL)
    tracker.forget()
    assert not tracker.previous_heatmap(BOX.shape[:2]).any()
    assert ids(tracker.update(BOX, STILL).panoptic) == [0, 11002]


def test_wrong_shapes_and_settings_are_refused() -> None:
    tracker = MotionTracker(SETTINGS)
    with pytest.raises(UsageError, match="frame_offset_map"):
        tracker.update(BOX, STILL[..., 0])
    tracker.update(BOX, STILL)
    with pytest.raises(UsageError, match="reset the tracker"):
        tracker.update(BOX[:5], STILL)
    with pytest.raises(UsageError, match="expected"):
        tracker.previous_heatmap((5, 5))
    with pytest.raises(UsageError, match="keep_frames is 0"):
        MotionSettings((1,), 1000, keep_frames=0)
    with pytest.raises(UsageError, match="sigma is 0"):
        render_centers(BOX, thing_ids=(11,), label_divisor=1000, sigma=0)


def scene(rng: np.random.Generator, num_boxes: int) -> NDArray[np.int32]:
    """Draws boxes of different places, with stuff, crowd and void between them."""
    panoptic = rng.choice([0, 2000, 11000, 255000], SIZE).astype(np.int32)
    for number in rng.permutation(num_boxes) + 1:
        top, left = rng.integers(0, 9), rng.integers(0, 13)
        class_id = rng.choice([11, 13])
        panoptic[top : top + 3, left : left + 3] = class_id * 1000 + number
    return panoptic


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), num_boxes=st.integers(0, 6))
def test_tracks_never_share_an_id_and_keep_the_segments(
    seed: int, num_boxes: int
) -> None:
    rng = np.random.default_rng(seed)
    tracker = MotionTracker(SETTINGS)
    for _ in range(4):
        panoptic = scene(rng, num_boxes)
        tracked = tracker.update(panoptic, STILL).panoptic
        pairs = {*zip(panoptic.ravel().tolist(), tracked.ravel().tolist(), strict=True)}
        # One to one, of the same class, and only instances change.
        assert len(pairs) == len({new for _, new in pairs}) == len(ids(panoptic))
        for old, new in pairs:
            assert old // 1000 == new // 1000
            assert old == new or old % 1000


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), num_boxes=st.integers(1, 3))
def test_ids_stay_when_nothing_moves(seed: int, num_boxes: int) -> None:
    panoptic = scene(np.random.default_rng(seed), num_boxes)
    centers = render_centers(panoptic, thing_ids=(11, 13), label_divisor=1000).centers
    if np.any(centers[:, 3] == 0):  # hidden but for a line: nothing is close enough
        return
    tracker = MotionTracker(SETTINGS)
    first = tracker.update(panoptic, STILL).panoptic
    np.testing.assert_array_equal(tracker.update(panoptic, STILL).panoptic, first)
