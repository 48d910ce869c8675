"""Passes over maps of instances in C++: the bits of the NumPy reference."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic import MotionSettings, MotionTracker, VideoStitcher
from deeplab2_edge.panoptic.instances import NUMPY_PASSES
from deeplab2_edge.runtime.native.instances import NATIVE_PASSES, rename

MAPS = st.builds(
    lambda seed, size, levels, divisor: draw_map(seed, size, levels, divisor),
    seed=st.integers(0, 1 << 30),
    size=st.tuples(st.integers(1, 20), st.integers(1, 30)),
    levels=st.integers(1, 60),
    divisor=st.sampled_from([1, 2, 7, 1000]),
)


pytestmark = pytest.mark.usefixtures("native_library")


def draw_map(
    seed: int, size: tuple[int, int], levels: int, divisor: int
) -> tuple[NDArray[np.int32], int]:
    """Makes a map of runs, with ids of few classes, and some that are negative."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(-3 * (seed % 2), 2**30 if seed % 5 == 0 else 5000, levels)
    index = np.repeat(rng.integers(0, levels, size), rng.integers(1, 4), axis=1)
    return ids[index[:, : size[1]]].astype(np.int32), divisor


def check(found: Any, expected: Any) -> None:
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=200, deadline=None)
@given(MAPS)
def test_instances_are_those_of_the_reference(
    drawn: tuple[NDArray[np.int32], int],
) -> None:
    panoptic, divisor = drawn
    options = {"label_divisor": divisor}
    expected = NUMPY_PASSES.list_instances(panoptic, **options)
    found = NATIVE_PASSES.list_instances(panoptic, **options)
    for field in dataclasses.fields(expected):
        check(getattr(found, field.name), getattr(expected, field.name))
    check(
        NATIVE_PASSES.instance_ids(panoptic, **options),
        NUMPY_PASSES.instance_ids(panoptic, **options),
    )


@settings(max_examples=200, deadline=None)
@given(MAPS, st.integers(0, 1 << 30))
def test_overlaps_are_those_of_the_reference(
    drawn: tuple[NDArray[np.int32], int], seed: int
) -> None:
    first, divisor = drawn
    rng = np.random.default_rng(seed)
    second = np.where(rng.random(first.shape) < 0.6, first, np.roll(first, 2))
    expected = NUMPY_PASSES.overlaps(first, second, label_divisor=divisor)
    found = NATIVE_PASSES.overlaps(first, second, label_divisor=divisor)
    for value, wanted in zip(found, expected, strict=True):
        check(value, wanted)


@settings(max_examples=200, deadline=None)
@given(MAPS, st.integers(0, 1 << 30), st.sampled_from([1, 3, 1000, 70_000]))
def test_renamed_maps_are_those_of_the_reference(
    drawn: tuple[NDArray[np.int32], int], seed: int, new_divisor: int
) -> None:
    panoptic, divisor = drawn
    rng = np.random.default_rng(seed)
    known = np.unique(panoptic)
    old = rng.permutation(np.append(known[rng.random(len(known)) < 0.5], [-77, 9999]))
    old = np.unique(old).astype(np.int32)
    new = rng.integers(0, 1 << 30, len(old)).astype(np.int32)
    options = {"label_divisor": divisor, "new_divisor": new_divisor}
    results = []
    for passes in (NUMPY_PASSES, NATIVE_PASSES):
        try:
            results.append(passes.rename(panoptic, old, new, **options))
        except UsageError as error:
            results.append(np.array(str(error)))
    check(results[1], results[0])


def test_more_instances_than_expected_are_all_listed() -> None:
    panoptic = np.random.default_rng(0).permutation(5000).reshape(50, 100)
    found = NATIVE_PASSES.list_instances(panoptic, label_divisor=1000)
    assert found.ids.tolist() == [i for i in panoptic.ravel() if i % 1000]


def test_what_does_not_fit_is_refused() -> None:
    panoptic = np.ones((3, 4), np.int32)
    divisors = {"label_divisor": 10, "new_divisor": 10}
    with pytest.raises(UsageError, match=r"expected \[H, W\]"):
        NATIVE_PASSES.list_instances(panoptic[0], label_divisor=10)
    with pytest.raises(UsageError, match="make no sense"):
        NATIVE_PASSES.list_instances(panoptic, label_divisor=0)
    with pytest.raises(UsageError, match="make no sense"):
        rename(panoptic, np.array([1, 1]), np.array([2, 3]), **divisors)
    with pytest.raises(UsageError, match="make no sense"):
        NATIVE_PASSES.overlaps(panoptic, panoptic[:2], label_divisor=10)


def test_videos_are_tracked_as_without() -> None:
    rng = np.random.default_rng(1)
    frames = [
        np.kron(rng.integers(0, 9, (5, 6)) * 100 + rng.integers(0, 4, (5, 6)), BLOCK)
        for _ in range(6)
    ]
    offsets = rng.normal(scale=4, size=(5, 6, 2)).astype(np.float32)
    tracked, stitched = [], []
    for passes in (NUMPY_PASSES, NATIVE_PASSES):
        rules = MotionSettings((1, 2, 5), 100, track_divisor=1000)
        tracker = MotionTracker(rules, passes=passes)
        tracked.append([tracker.update(frame, offsets).panoptic for frame in frames])
        stitcher = VideoStitcher(100, track_divisor=1000, passes=passes)
        pairs = zip(frames, [*frames[1:], None], strict=True)
        stitched.append([stitcher.update(*pair) for pair in pairs])
    np.testing.assert_array_equal(tracked[0], tracked[1])
    np.testing.assert_array_equal(stitched[0], stitched[1])


BLOCK = np.ones((4, 7), np.int32)
