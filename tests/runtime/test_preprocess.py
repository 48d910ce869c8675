"""Preprocessing: the sizes of the published system, and exact pixels."""

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab2_edge.errors import DataError
from deeplab2_edge.images import MAX_PIXELS
from deeplab2_edge.model_file import ResizeRule
from deeplab2_edge.panoptic import resize_bilinear
from deeplab2_edge.runtime.preprocess import (
    Placement,
    place_on_canvas,
    resize_image,
    resized_size,
)

LARGE = ResizeRule(min=(641, 641), max=(641, 641))
LARGE_32 = ResizeRule(min=(641, 641), max=(641, 641), factor=32)


@pytest.mark.parametrize(
    ("image", "canvas", "rule", "expected"),
    [
        ((480, 640), (641, 641), LARGE, (481, 641)),
        ((640, 480), (641, 641), LARGE, (641, 481)),
        ((427, 640), (641, 641), LARGE, (428, 641)),
        ((427, 640), (641, 641), LARGE_32, (449, 641)),
        ((375, 500), (641, 641), LARGE, (481, 641)),
        ((1024, 2048), (641, 641), LARGE, (320, 641)),
        ((1024, 2048), (641, 641), LARGE_32, (321, 641)),
        ((1024, 2048), (1025, 2049), ResizeRule(), (1024, 2048)),
        ((1200, 1600), (1025, 2049), ResizeRule(), (1025, 1366)),
        ((480, 640), (1025, 1025), ResizeRule(min=(1025, 1025)), (769, 1025)),
        ((427, 640), (1025, 1025), ResizeRule(min=(1025, 1025)), (684, 1025)),
        ((1, 1), (65, 129), ResizeRule(), (1, 1)),
        ((1, 100_000), (65, 129), ResizeRule(), (1, 129)),
        ((100_000, 1), (65, 129), ResizeRule(), (65, 1)),
    ],
)
def test_resized_size_is_that_of_the_published_system(
    image: tuple[int, int],
    canvas: tuple[int, int],
    rule: ResizeRule,
    expected: tuple[int, int],
) -> None:
    assert resized_size(image, canvas, rule) == expected


def test_rule_that_does_not_fit_the_canvas_is_refused() -> None:
    with pytest.raises(DataError, match="larger than the canvas"):
        resized_size((300, 300), (65, 65), ResizeRule(max=(129, 129)))


@pytest.mark.parametrize("size", [(33, 65), (120, 17), (1, 1), (97, 203), (60, 80)])
def test_resize_image_equals_the_reference(size: tuple[int, int]) -> None:
    image = _noise(60, 80)
    exact = resize_bilinear(image, size)
    resized = resize_image(image, size)
    assert resized.dtype == np.uint8
    # Half a level of rounding, and float32 noise at exact halves.
    assert np.abs(resized - exact).max() <= 0.5 + 1e-4


def test_resize_image_rounds_half_up() -> None:
    image = np.array([[[0, 1, 254], [1, 2, 255]]], np.uint8)
    np.testing.assert_array_equal(
        resize_image(image, (1, 3))[0], [[0, 1, 254], [1, 2, 255], [1, 2, 255]]
    )


def test_image_of_the_size_of_the_canvas_is_not_copied() -> None:
    image = _noise(65, 129)
    canvas, placement = place_on_canvas(image, (65, 129), ResizeRule())
    assert canvas is image
    assert placement == Placement((65, 129), (65, 129))


def test_small_image_is_padded_and_not_enlarged() -> None:
    image = _noise(10, 20)
    canvas, placement = place_on_canvas(image, (65, 129), ResizeRule())
    assert placement == Placement((10, 20), (10, 20))
    np.testing.assert_array_equal(canvas[:10, :20], image)
    assert (canvas[10:] == 128).all()
    assert (canvas[:, 20:] == 128).all()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("photo", "give a path or"),
        (np.zeros((5, 5), np.uint8), "grey"),
        (np.zeros((5, 5, 4), np.uint8), "alpha"),
        (np.zeros((5, 5, 1), np.uint8), r"must be \[H, W, 3\]"),
        (np.zeros((0, 5, 3), np.uint8), r"must be \[H, W, 3\]"),
        (np.zeros((5, 5, 3), np.float32), "float32; it must be uint8"),
        (np.zeros((1, 5, 5, 3), np.uint8), r"must be \[H, W, 3\]"),
    ],
)
def test_what_is_no_image_is_refused(image: NDArray[np.uint8], message: str) -> None:
    with pytest.raises(DataError, match=message):
        place_on_canvas(image, (65, 129), ResizeRule())


def test_huge_image_is_refused() -> None:
    # A view: the array itself takes three bytes.
    image = np.broadcast_to(np.zeros(3, np.uint8), (20_000, 20_000, 3))
    assert image.shape[0] * image.shape[1] > MAX_PIXELS
    with pytest.raises(DataError, match="20000x20000"):
        place_on_canvas(image, (65, 129), ResizeRule())


def _noise(height: int, width: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(height * 1000 + width)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
