"""Resizing with aligned corners, and argmax without resizing."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic import resize_bilinear, resize_nearest, upsample_argmax

GOLDEN = np.load(Path(__file__).parents[1] / "golden/panoptic/resize.npz")


def test_bilinear_between_two_pixels() -> None:
    assert resize_bilinear(np.array([[0.0, 4.0]]), (1, 5)).tolist() == [[0, 1, 2, 3, 4]]


def test_bilinear_keeps_the_corners() -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    y = resize_bilinear(x, (9, 10))
    assert y[[0, 0, -1, -1], [0, -1, 0, -1]].tolist() == [0, 3, 8, 11]


def test_one_pixel_axis_is_repeated_and_one_pixel_output_is_the_first() -> None:
    assert resize_bilinear(np.full((1, 1), 7), (2, 3)).tolist() == [[7] * 3] * 2
    assert resize_bilinear(np.array([[3, 9]]), (1, 1)).tolist() == [[3]]
    assert resize_nearest(np.array([[3, 9]]), (1, 1)).tolist() == [[3]]


def test_unchanged_size_gives_a_copy() -> None:
    x = np.ones((2, 2), np.float32)
    resize_bilinear(x, (2, 2))[:] = 0
    assert x.all()


@pytest.mark.parametrize("target", ["y", "down"])
def test_bilinear_equals_the_reference(target: str) -> None:
    expected = GOLDEN[f"resize_bilinear/out/{target}"]
    for x, y in zip(GOLDEN["resize_bilinear/in/x"], expected, strict=True):
        np.testing.assert_array_equal(resize_bilinear(x, y.shape[:2]), y)


@pytest.mark.parametrize("case", ["up", "down", "max_only"])
def test_nearest_equals_the_reference(case: str) -> None:
    x = GOLDEN[f"resize_to_range_{case}/in/label"]
    y = GOLDEN[f"resize_to_range_{case}/out/label"]
    result = resize_nearest(x, y.shape)
    np.testing.assert_array_equal(result, y)
    assert result.dtype == x.dtype


@pytest.mark.parametrize(
    ("shape", "size"), [((0, 3), (2, 2)), ((3,), (2, 2)), ((3, 3), (0, 2))]
)
def test_bad_shapes_are_refused(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="expected"):
        resize_bilinear(np.zeros(shape, np.float32), size)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    source=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_upsample_argmax_is_the_argmax_of_the_resized_logits(
    seed: int, source: tuple[int, int, int], size: tuple[int, int]
) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=source).astype(np.float32)
    expected = np.argmax(resize_bilinear(logits, size), axis=-1)
    np.testing.assert_array_equal(upsample_argmax(logits, size), expected)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    source=st.tuples(st.integers(2, 7), st.integers(2, 7), st.integers(1, 4)),
)
def test_upsample_argmax_of_int8_logits_with_ties(
    seed: int, source: tuple[int, int, int]
) -> None:
    # At a factor of 4 the weights are quarters and float32 is exact, ties included.
    rng = np.random.default_rng(seed)
    logits = rng.integers(-2, 3, size=source).astype(np.int8)
    size = (4 * source[0] - 3, 4 * source[1] - 3)
    expected = np.argmax(resize_bilinear(logits, size), axis=-1)
    np.testing.assert_array_equal(upsample_argmax(logits, size), expected)


def test_upsample_argmax_finds_a_class_that_wins_at_no_corner() -> None:
    logits = np.array([[[9, 0, 6], [0, 9, 6]]], np.float32)
    assert upsample_argmax(logits, (1, 5)).tolist() == [[0, 0, 2, 1, 1]]


def test_upsample_argmax_with_more_cells_than_one_chunk() -> None:
    logits = np.random.default_rng(1).normal(size=(90, 70, 3)).astype(np.float32)
    expected = np.argmax(resize_bilinear(logits, (200, 180)), axis=-1)
    np.testing.assert_array_equal(upsample_argmax(logits, (200, 180)), expected)
