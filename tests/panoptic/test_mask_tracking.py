"""Tracking by masks that move along optical flow."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic import Instances, MaskTracker, MaskTrackingSettings

CAR, PERSON = 8, 9


def seen(*boxes: tuple[int, int, int, int, int], width: int = 60) -> Instances:
    """Draws (class, top, left, height, width); later ones lie on top."""
    masks = np.zeros((20, width), np.int16)
    for number, (_, top, left, high, wide) in enumerate(boxes, start=1):
        masks[max(top, 0) : top + high, max(left, 0) : left + wide] = number
    return Instances(
        masks,
        np.array([box[0] for box in boxes], np.int64),
        np.array([(t + h / 2, x + w / 2) for _, t, x, h, w in boxes]).reshape(-1, 2),
        np.array([h * w for *_, h, w in boxes], float),
    )


def numbers(tracker: MaskTracker, *frames: Instances) -> list[list[int]]:
    return [tracker.update(frame).tolist() for frame in frames]


def test_masks_that_overlap_are_one_track() -> None:
    frames = [seen((CAR, 5, 10 + 2 * n, 8, 10)) for n in range(4)]
    assert numbers(MaskTracker(), *frames) == [[1]] * 4


def test_another_class_is_another_track() -> None:
    frames = seen((CAR, 5, 10, 8, 10)), seen((PERSON, 5, 10, 8, 10))
    assert numbers(MaskTracker(), *frames) == [[1], [2]]


def test_pairs_are_those_of_the_largest_sum() -> None:
    # By itself, the right instance would take the left track.
    before = seen((CAR, 0, 0, 1, 4), (CAR, 0, 4, 1, 3))
    after = seen((CAR, 0, 0, 1, 2), (CAR, 0, 2, 1, 5))
    assert numbers(MaskTracker(), before, after) == [[1, 2], [1, 2]]


def test_what_moves_fast_is_found_where_its_velocity_takes_it() -> None:
    boxes = [(CAR, 5, 4 + 9 * n, 6, 6) for n in range(5)]
    assert numbers(MaskTracker(), *map(seen, boxes)) == [[1]] * 5
    near = MaskTrackingSettings(reach=1.0)
    assert numbers(MaskTracker(near), *map(seen, boxes))[1] == [2]


def test_what_has_another_size_is_another_track() -> None:
    frames = seen((CAR, 8, 5, 4, 4)), seen((CAR, 2, 10, 9, 9))
    assert numbers(MaskTracker(), *frames) == [[1], [2]]


def test_flow_tells_apart_what_distance_cannot() -> None:
    # Everything moves right by as much as two cars stand apart.
    before = seen((CAR, 5, 5, 8, 10), (CAR, 5, 20, 8, 10))
    after = seen((CAR, 5, 20, 8, 10), (CAR, 5, 35, 8, 10))
    assert numbers(MaskTracker(), before, after)[1] == [2, 3]
    tracker = MaskTracker()
    tracker.update(before)
    # At half the resolution, from where it is to where it was.
    flow = np.zeros((10, 30, 2), np.float32)
    flow[..., 0] = -7.5
    assert tracker.update(after, flow).tolist() == [1, 2]


def test_a_lost_track_drifts_with_the_flow_and_is_found_again() -> None:
    tracker = MaskTracker(MaskTrackingSettings(reach=0.0))
    flow = np.zeros((20, 60, 2), np.float32)
    flow[..., 0] = -6
    tracker.update(seen((CAR, 5, 5, 8, 8)))
    for _ in range(3):
        assert tracker.update(seen(), flow).tolist() == []
    assert tracker.update(seen((CAR, 5, 29, 8, 8)), flow).tolist() == [1]


def test_a_track_behind_another_is_found_again() -> None:
    person, car = (PERSON, 6, 20, 8, 4), (CAR, 2, 16, 14, 20)
    both = [seen(person, (CAR, 2, 60, 14, 20)), seen((CAR, 2, 36, 14, 20), person)]
    assert numbers(MaskTracker(), *both, seen(car), seen(car), seen(person)) == [
        [1, 2],
        [2, 1],
        [2],
        [2],
        [1],
    ]


def test_a_track_is_forgotten_after_too_many_missed_frames() -> None:
    two = MaskTrackingSettings(max_missed_frames=2)
    car, none = seen((CAR, 5, 5, 8, 8)), seen()
    assert numbers(MaskTracker(two), car, none, none, car)[3] == [1]
    tracker = MaskTracker(two)
    assert numbers(tracker, car, none, none, none, car)[4] == [2]
    assert tracker.num_tracks == 1


def test_instances_without_a_pixel_are_followed_by_distance() -> None:
    tiny = Instances(
        np.zeros((4, 4), np.int16),
        np.array([CAR]),
        np.array([[1.0, 1.0]]),
        np.array([0.3]),
    )
    assert numbers(MaskTracker(), tiny, tiny) == [[1], [1]]


def test_forgetting_goes_on_with_numbers_and_reset_does_not() -> None:
    car, tracker = seen((CAR, 5, 5, 8, 8)), MaskTracker()
    assert numbers(tracker, car, car) == [[1], [1]]
    tracker.forget()
    assert numbers(tracker, car) == [[2]]
    tracker.reset()
    assert numbers(tracker, car) == [[1]]


def test_numbers_come_again_when_all_were_used_but_not_those_in_use() -> None:
    tracker = MaskTracker(MaskTrackingSettings(max_number=3, max_missed_frames=0))
    stays, none = (CAR, 0, 0, 5, 5), (CAR, 12, 40, 5, 5)
    found = []
    for _ in range(4):
        found += numbers(tracker, seen(stays, none), seen(stays))
    assert found == [[1, 2], [1], [1, 3], [1], [1, 2], [1], [1, 3], [1]]


def test_more_tracks_than_numbers_are_refused() -> None:
    tracker = MaskTracker(MaskTrackingSettings(max_number=1))
    with pytest.raises(UsageError, match="max_number"):
        tracker.update(seen((CAR, 0, 0, 5, 5), (CAR, 12, 40, 5, 5)))


def test_wrong_input_is_refused() -> None:
    car = seen((CAR, 5, 5, 8, 8))
    tracker = MaskTracker()
    tracker.update(car)
    with pytest.raises(UsageError, match="another size"):
        tracker.update(seen((CAR, 5, 5, 8, 8), width=61))
    with pytest.raises(UsageError, match="flow has shape"):
        tracker.update(car, np.zeros((20, 60), np.float32))
    with pytest.raises(UsageError, match="areas_px"):
        Instances(car.masks, car.classes, car.centers_yx, np.ones(2))
    with pytest.raises(UsageError, match="holds 0 to 1"):
        Instances(car.masks, car.classes[:0], np.zeros((0, 2)), np.zeros(0))
    for name, value in (
        ("min_overlap", float("nan")),
        ("reach", -1.0),
        ("max_growth", 0.5),
        ("max_missed_frames", -1),
        ("max_number", 0),
    ):
        with pytest.raises(UsageError, match=name):
            MaskTrackingSettings(**{name: value})  # type: ignore[arg-type]


def random_instances(rng: np.random.Generator) -> Instances:
    boxes = [
        (int(rng.choice([CAR, PERSON])), *rng.integers(0, (14, 50)), *size)
        for size in rng.integers(1, 9, (rng.integers(0, 6), 2)).tolist()
    ]
    return seen(*boxes)


def pixels(instances: Instances) -> NDArray[np.integer]:
    return instances.masks.reshape(-1)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), with_flow=st.booleans())
def test_numbers_are_unique_and_stay_when_nothing_moves(
    seed: int, with_flow: bool
) -> None:
    rng = np.random.default_rng(seed)
    tracker = MaskTracker(MaskTrackingSettings(max_missed_frames=int(rng.integers(4))))
    class_of: dict[int, int] = {}
    for _ in range(5):
        frame = random_instances(rng)
        flow = rng.normal(0, 4, (10, 30, 2)).astype(np.float32) if with_flow else None
        found = tracker.update(frame, flow)
        assert len(found) == len({*found.tolist()}) == len(frame.classes)
        assert tracker.num_tracks >= len(found)
        for number, class_id in zip(
            found.tolist(), frame.classes.tolist(), strict=True
        ):
            # A number stands for one class as long as the video lasts.
            assert class_of.setdefault(number, class_id) == class_id
        np.testing.assert_array_equal(tracker.update(frame), found)
        order = rng.permutation(len(found))
        table = np.zeros(len(found) + 1, np.int16)
        table[order + 1] = np.arange(1, len(found) + 1)
        shuffled = Instances(
            table[frame.masks],
            frame.classes[order],
            frame.centers_yx[order],
            frame.areas_px[order],
        )
        np.testing.assert_array_equal(tracker.update(shuffled), found[order])
