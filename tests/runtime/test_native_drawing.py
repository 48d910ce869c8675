"""Overlays in C++: the pixels of OpenCV's and NumPy's."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deeplab2_edge.errors import MissingExtraError, UsageError
from deeplab2_edge.runtime import native
from deeplab2_edge.runtime.native.drawing import blend_segments


@pytest.fixture(scope="module", autouse=True)
def _library() -> None:
    try:
        native.load_core()
    except MissingExtraError as error:
        pytest.skip(str(error))


def plain_overlay(
    image: NDArray[np.uint8],
    segment_map: NDArray[np.uint16],
    shades: NDArray[np.uint8],
    is_thing: NDArray[np.bool_],
    alpha: float,
) -> NDArray[np.uint8]:
    painted = np.concatenate([np.zeros((1, 3), np.uint8), shades])[segment_map]
    blended = cv2.addWeighted(image, 1.0 - alpha, painted, alpha, 0.0)
    blended[segment_map == 0] = image[segment_map == 0]
    things = np.where(np.append(False, is_thing)[segment_map], segment_map, 0)
    is_edge = np.zeros(things.shape, np.bool_)
    is_edge[:, :-1] = things[:, :-1] != things[:, 1:]
    is_edge[:-1] |= things[:-1] != things[1:]
    blended[is_edge] = 255
    return np.asarray(blended, np.uint8)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    size=st.tuples(st.integers(1, 30), st.integers(1, 50)),
    num_segments=st.integers(0, 9),
    alpha=st.one_of(st.sampled_from([0.0, 0.5, 0.55, 1.0]), st.floats(0, 1)),
)
def test_overlay_is_that_of_the_plain_one(
    seed: int, size: tuple[int, int], num_segments: int, alpha: float
) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    coarse = rng.integers(0, num_segments + 1, (7, 9)).astype(np.uint16)
    segment_map = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_NEAREST)
    segment_map = segment_map.reshape(size)
    shades = rng.integers(0, 256, (num_segments, 3), np.uint8)
    is_thing = rng.integers(0, 2, num_segments).astype(np.bool_)
    found = blend_segments(
        image,
        segment_map,
        [tuple(shade) for shade in shades.tolist()],
        is_thing.tolist(),
        alpha=alpha,
        contour=255,
    )
    expected = plain_overlay(image, segment_map, shades, is_thing, alpha)
    np.testing.assert_array_equal(found, expected)


def test_all_levels_of_a_large_image() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (301, 403, 3), np.uint8)
    segment_map = rng.integers(0, 61, (301, 403)).astype(np.uint16)
    shades = rng.integers(0, 256, (60, 3), np.uint8)
    is_thing = np.arange(60) % 7 == 0
    found = blend_segments(
        image[:, ::-1],
        segment_map,
        [tuple(shade) for shade in shades.tolist()],
        is_thing.tolist(),
        alpha=0.55,
        contour=255,
    )
    flipped = np.ascontiguousarray(image[:, ::-1])
    expected = plain_overlay(flipped, segment_map, shades, is_thing, 0.55)
    np.testing.assert_array_equal(found, expected)


def test_numbers_without_a_segment_are_refused() -> None:
    image = np.zeros((4, 5, 3), np.uint8)
    segment_map = np.zeros((4, 5), np.uint16)
    for pixel in ((0, 0), (3, 4)):
        wrong = segment_map.copy()
        wrong[pixel] = 2
        with pytest.raises(UsageError, match="numbers beyond 1"):
            blend_segments(image, wrong, [(1, 2, 3)], [True], alpha=0.5, contour=255)
    with pytest.raises(UsageError, match=r"expected uint8 \[4, 5, 3\]"):
        blend_segments(image[:3], segment_map, [], [], alpha=0.5, contour=255)
