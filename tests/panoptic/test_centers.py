"""Instance centers."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic import find_centers


def centers(heat: list[list[float]], **options: Any) -> list[list[int]]:
    defaults: dict[str, Any] = {"threshold": 0.1, "nms_kernel": 3, "keep_k": 0}
    found, _ = find_centers(np.array(heat, np.float32), **defaults | options)
    return [[int(y), int(x)] for y, x in found]


def test_threshold_is_strict_in_float32() -> None:
    assert centers([[0.1, 0.0, 0.0, 0.2]]) == [[0, 3]]


def test_zero_is_no_center_whatever_the_threshold() -> None:
    assert centers([[0.0, -1.0]], threshold=-5.0, nms_kernel=1) == []


def test_not_a_number_is_no_center() -> None:
    assert centers([[float("nan"), 0.0, 0.5]], nms_kernel=1) == [[0, 2]]


def test_equal_neighbors_survive_together_unless_merged() -> None:
    heat = [[0.5, 0.5, 0.0, 0.0], [0.5, 0.0, 0.0, 0.5]]
    assert centers(heat) == [[0, 0], [0, 1], [1, 0], [1, 3]]
    assert centers(heat, merge_plateaus=True) == [[0, 0], [1, 3]]


def test_a_plateau_is_connected_over_corners_and_starts_in_raster_order() -> None:
    heat = [[0, 0, 0.5], [0, 0.5, 0], [0.5, 0, 0]]
    assert centers(heat, merge_plateaus=True) == [[0, 2]]


def test_plateaus_of_different_values_stay_apart_with_a_kernel_of_one() -> None:
    heat = [[0.5, 0.5, 0.7, 0.7]]
    assert centers(heat, nms_kernel=1, merge_plateaus=True) == [[0, 0], [0, 2]]


def test_even_kernel_looks_down_and_right() -> None:
    assert centers([[0.3, 0.5, 0.4]], nms_kernel=2) == [[0, 1], [0, 2]]


def test_keep_k_keeps_the_best_and_raster_order() -> None:
    heat = [[0.5, 0, 0.9, 0, 0.5, 0, 0.5]]
    assert centers(heat, keep_k=2) == [[0, 0], [0, 2]]
    assert centers(heat, keep_k=3) == [[0, 0], [0, 2], [0, 4]]
    assert len(centers(heat, keep_k=4)) == len(centers(heat, keep_k=-1)) == 4


def test_no_center_gives_empty_arrays() -> None:
    found, scores = find_centers(
        np.zeros((3, 4), np.float32), threshold=0.1, nms_kernel=7, keep_k=5
    )
    assert found.shape == (0, 2) and scores.shape == (0,)
    assert found.dtype == np.int32 and scores.dtype == np.float32


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(UsageError, match="nms_kernel"):
        centers([[1.0]], nms_kernel=0)
    with pytest.raises(UsageError, match="center_heatmap"):
        find_centers(
            np.zeros((2, 2, 1), np.float32), threshold=0, nms_kernel=3, keep_k=0
        )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    kernel=st.integers(1, 6),
    levels=st.sampled_from([4, 1000]),
)
def test_centers_are_the_maxima_of_their_windows(
    seed: int, shape: tuple[int, int], kernel: int, levels: int
) -> None:
    heat = np.random.default_rng(seed).integers(0, levels, shape) / np.float32(levels)
    heat = np.where(heat > np.float32(0.2), heat, 0).astype(np.float32)
    before = (kernel - 1) // 2
    padded = np.pad(heat, (before, kernel - 1 - before))
    expected = [
        [y, x]
        for y, x in np.ndindex(shape)
        if heat[y, x] > 0 and heat[y, x] == padded[y : y + kernel, x : x + kernel].max()
    ]
    assert centers(heat.tolist(), threshold=0.2, nms_kernel=kernel) == expected
