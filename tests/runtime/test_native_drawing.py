"""Overlays in C++: the pixels of OpenCV's and NumPy's."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError
from deeplab2_edge.runtime.draw import Color, _blend_segments
from deeplab2_edge.runtime.native.drawing import blend_segments

pytestmark = pytest.mark.usefixtures("native_library")


def colors_of(shades: NDArray[np.uint8]) -> list[Color]:
    return [(red, green, blue) for red, green, blue in shades.tolist()]


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
    arguments = image, segment_map, colors_of(shades), is_thing.tolist()
    found = blend_segments(*arguments, alpha=alpha, contour=255)
    expected = _blend_segments(*arguments, alpha=alpha, contour=255)
    np.testing.assert_array_equal(found, expected)


def test_all_levels_of_a_large_image() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (301, 403, 3), np.uint8)
    segment_map = rng.integers(0, 61, (301, 403)).astype(np.uint16)
    shades = rng.integers(0, 256, (60, 3), np.uint8)
    is_thing = np.arange(60) % 7 == 0
    others = segment_map, colors_of(shades), is_thing.tolist()
    found = blend_segments(image[:, ::-1], *others, alpha=0.55, contour=200)
    flipped = np.ascontiguousarray(image[:, ::-1])
    expected = _blend_segments(flipped, *others, alpha=0.55, contour=200)
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
