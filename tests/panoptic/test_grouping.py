"""Grouping of pixels to centers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic import group_pixels, nearest_center


def test_pixels_join_the_center_they_vote_for() -> None:
    offsets = np.zeros((1, 4, 2), np.float32)
    offsets[0, 1] = (0, 2)
    things = np.array([[True, True, False, True]])
    ids = group_pixels(np.array([[0, 0], [0, 3]], np.int32), offsets, things)
    assert ids.tolist() == [[1, 2, 0, 2]]


def test_first_center_wins_a_tie() -> None:
    centers = np.array([[0, 2], [0, 0]], np.int32)
    ids = group_pixels(centers, np.zeros((1, 3, 2), np.float32), np.ones((1, 3), bool))
    assert ids.tolist() == [[2, 1, 1]]


def test_without_centers_there_are_no_instances() -> None:
    ids = group_pixels(
        np.zeros((0, 2), np.int32),
        np.zeros((2, 2, 2), np.float32),
        np.ones((2, 2), bool),
    )
    assert not ids.any() and ids.dtype == np.int32


def test_votes_that_are_not_finite_go_to_the_first_center() -> None:
    votes = np.array([np.nan, np.inf, -np.inf, 9], np.float32)
    centers = np.array([[0, 0], [9, 9]], np.int32)
    assert nearest_center(votes, votes, centers).tolist() == [0, 0, 0, 1]


def test_other_shapes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\(2, 3, 2\)"):
        group_pixels(
            np.zeros((1, 2), np.int32),
            np.zeros((3, 3, 2), np.float32),
            np.ones((2, 3), bool),
        )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_votes=st.integers(0, 300),
    num_centers=st.integers(1, 40),
    extent=st.sampled_from([4, 200, 1000]),
    whole=st.booleans(),
)
def test_nearest_center_is_the_first_of_least_float32_distance(
    seed: int, num_votes: int, num_centers: int, extent: int, whole: bool
) -> None:
    rng = np.random.default_rng(seed)
    centers = rng.integers(0, extent, (num_centers, 2)).astype(np.int32)
    votes = rng.uniform(-0.2 * extent, 1.2 * extent, (num_votes, 2)).astype(np.float32)
    if whole:  # many ties
        votes = np.round(votes)
    distance = np.square(votes[:, None] - centers.astype(np.float32)).sum(axis=-1)
    np.testing.assert_array_equal(
        nearest_center(votes[:, 0], votes[:, 1], centers), distance.argmin(axis=1)
    )
