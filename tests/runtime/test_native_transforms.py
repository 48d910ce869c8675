"""Placing images in C++: the bits of the NumPy path."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError
from deeplab2_edge.model_file import ResizeRule
from deeplab2_edge.runtime.native.transforms import place_image
from deeplab2_edge.runtime.preprocess import Placement, place_on_canvas

TYPES = (np.uint8, np.int8, np.int16, np.float32)


pytestmark = pytest.mark.usefixtures("native_library")


def check(
    image: NDArray[np.uint8],
    canvas: tuple[int, int],
    rule: ResizeRule,
    table: NDArray[Any] | None,
) -> None:
    pixels, placement = place_on_canvas(image, canvas, rule)
    expected = pixels if table is None else table[pixels]
    # What is not written stays visible.
    out = np.full(expected.shape, 77, expected.dtype)
    place_image(image, placement, canvas, out, table)
    np.testing.assert_array_equal(out, expected)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    canvas=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    enlarges=st.booleans(),
    dtype=st.sampled_from([None, *TYPES]),
)
def test_canvas_is_that_of_the_reference(
    seed: int,
    size: tuple[int, int],
    canvas: tuple[int, int],
    enlarges: bool,
    dtype: Any,
) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    if seed % 3 == 0:  # halves between two levels
        image = image % 2 + np.uint8(254)
    rule = ResizeRule(min=canvas, max=canvas) if enlarges else ResizeRule()
    table = None
    if dtype is not None:
        table = (rng.permutation(256) - 128 * (dtype == np.int8)).astype(dtype)
    check(image, canvas, rule, table)


@pytest.mark.parametrize("size", [(480, 640), (375, 1242), (129, 257), (60, 1000)])
def test_photographs(size: tuple[int, int]) -> None:
    image = np.random.default_rng(3).integers(0, 256, (*size, 3), np.uint8)
    table = np.linspace(-1, 1, 256).astype(np.float32)
    check(image, (129, 257), ResizeRule(), table)


@pytest.mark.parametrize("view", ["rows", "columns", "flipped", "bgr", "transposed"])
def test_views_are_read_where_they_lie(view: str) -> None:
    whole = np.random.default_rng(4).integers(0, 256, (50, 70, 3), np.uint8)
    image = {
        "rows": whole[::2],
        "columns": whole[3:47, 5:61],
        "flipped": whole[::-1],
        "bgr": whole[..., ::-1],
        "transposed": whole.transpose(1, 0, 2),
    }[view]
    check(image, (33, 65), ResizeRule(), None)


def test_an_image_of_the_size_of_the_canvas_is_looked_up() -> None:
    image = np.random.default_rng(5).integers(0, 256, (17, 33, 3), np.uint8)
    check(image, (17, 33), ResizeRule(), np.arange(-128, 128).astype(np.int8))


def test_what_does_not_fit_is_refused() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    fits = Placement((4, 6), (4, 6))
    out = np.zeros((5, 7, 3), np.uint8)
    with pytest.raises(UsageError, match=r"image is uint8 \[4, 6, 3\]; expected"):
        place_image(image, Placement((6, 4), (4, 6)), (5, 7), out, None)
    with pytest.raises(UsageError, match="does not fit a canvas"):
        place_image(image, Placement((4, 6), (6, 6)), (5, 7), out, None)
    with pytest.raises(UsageError, match="does not fit a canvas"):
        place_image(image, Placement((4, 6), (0, 6)), (5, 7), out, None)
    with pytest.raises(UsageError, match="expected .*C order"):
        place_image(image, fits, (5, 7), out.transpose(1, 0, 2), None)
    with pytest.raises(UsageError, match="expected .*C order"):
        place_image(image, fits, (5, 7), out[:, ::-1], None)
    with pytest.raises(UsageError, match="float64"):
        place_image(image, fits, (5, 7), out.astype(float), None)
    with pytest.raises(UsageError, match="a table is needed for int8"):
        place_image(image, fits, (5, 7), out.view(np.int8), None)
    with pytest.raises(UsageError, match=r"table is float64 \[256\]"):
        place_image(image, fits, (5, 7), out, np.zeros(256))
    assert not out.any()
