"""Decoding of masks in C++: the maps of the NumPy reference."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deeplab2_edge import panoptic
from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic import MaskMaps, MaskSettings, MaskwiseSettings
from deeplab2_edge.runtime.heads import RawHead
from deeplab2_edge.runtime.native.masks import decode_masks

RULES = MaskSettings((1, 3), 1000, 255)


pytestmark = pytest.mark.usefixtures("native_library")


def check(
    masks: RawHead,
    classes: RawHead,
    canvas: tuple[int, int],
    rules: MaskSettings,
    num_threads: int = 1,
) -> MaskMaps:
    expected = panoptic.decode_masks(
        masks.real(), classes.real(), canvas=canvas, settings=rules
    )
    found = decode_masks(
        masks, classes, canvas=canvas, settings=rules, num_threads=num_threads
    )
    tolerance = (8 + masks.values.shape[-1] / 4) / 2**23
    for field in dataclasses.fields(expected):
        wanted, value = getattr(expected, field.name), getattr(found, field.name)
        assert value.dtype == wanted.dtype
        if field.name == "instance_scores":
            np.testing.assert_allclose(value, wanted, rtol=tolerance, atol=0)
        else:
            np.testing.assert_array_equal(value, wanted, field.name)
    return expected


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    size=st.tuples(st.integers(1, 9), st.integers(1, 12)),
    growth=st.sampled_from([0.4, 1, 2, 4]),
    num_masks=st.sampled_from([1, 2, 3, 4, 7, 16, 33]),
    num_classes=st.integers(2, 5),
    spread=st.sampled_from([0.0, 0.5, 3.0, 40.0]),
    is_round=st.booleans(),
    class_threshold=st.sampled_from([0.0, 0.3, 0.7, 1.1]),
    pixel_threshold=st.sampled_from([0.0, 1 / 3, 0.25, 0.4, 0.5, 1.0]),
    limits=st.sampled_from([(0, 0), (5, 40), (60, 3)]),
    num_threads=st.integers(1, 3),
)
def test_maps_are_those_of_the_reference(
    seed: int,
    size: tuple[int, int],
    growth: float,
    num_masks: int,
    num_classes: int,
    spread: float,
    is_round: bool,
    class_threshold: float,
    pixel_threshold: float,
    limits: tuple[int, int],
    num_threads: int,
) -> None:
    rng = np.random.default_rng(seed)
    masks = rng.normal(size=(*size, num_masks)) * spread
    classes = rng.normal(size=(num_masks, num_classes + 1)) * 3
    if is_round:  # ties, and probabilities that are the thresholds
        masks, classes = np.round(masks), np.round(classes)
    rules = dataclasses.replace(
        RULES,
        transformer_class_confidence_threshold=class_threshold,
        pixel_confidence_threshold=pixel_threshold,
        stuff_area_limit=limits[0],
        thing_area_limit=limits[1],
    )
    canvas = tuple(int((side - 1) * growth) + 1 + seed % 3 for side in size)
    check(
        RawHead(masks.astype(np.float32)),
        RawHead(classes.astype(np.float32)),
        canvas,  # type: ignore[arg-type]
        rules,
        num_threads,
    )


@pytest.mark.parametrize("num_threads", [1, 4])
def test_blobs_as_networks_give_them(num_threads: int) -> None:
    rng = np.random.default_rng(1)
    y, x = np.indices((33, 65))[..., np.newaxis]
    center_y, center_x = rng.uniform(0, 33, 128), rng.uniform(0, 65, 128)
    radius = rng.uniform(3, 9, 128)
    masks = 8 - 4 * ((y - center_y) ** 2 + (x - center_x) ** 2) / radius**2
    masks = np.maximum(masks, -20) + rng.normal(scale=0.5, size=masks.shape)
    classes = rng.normal(scale=6, size=(128, 20))
    maps = check(
        RawHead(masks.astype(np.float32)),
        RawHead(classes.astype(np.float32)),
        (129, 257),
        RULES,
        num_threads,
    )
    assert len(np.unique(maps.panoptic)) > 20


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
def test_integers_stand_for_what_their_scale_says(dtype: Any) -> None:
    rng = np.random.default_rng(2)
    integers = rng.integers(0, 120, (9, 13, 12)).astype(dtype)
    classes = rng.normal(scale=6, size=(12, 6)).astype(np.float32)
    check(RawHead(integers, 0.11, 7), RawHead(classes), (33, 49), RULES)


def test_pixels_at_the_threshold_are_those_of_the_reference() -> None:
    # Four equal logits: a quarter, exactly; and its neighbors by a few bits.
    rng = np.random.default_rng(3)
    masks = np.zeros((17, 33, 4), np.float32)
    masks += rng.integers(-3, 4, masks.shape) * np.float32(2**-23)
    classes = np.tile(np.array([9, 0, 0, 0], np.float32), (4, 1))
    rules = dataclasses.replace(RULES, pixel_confidence_threshold=0.25)
    maps = check(RawHead(masks), RawHead(classes), (65, 129), rules)
    is_void = maps.panoptic == 255_000
    assert is_void.any() and not is_void.all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_no_number_is_left_to_the_reference(value: float) -> None:
    rng = np.random.default_rng(4)
    masks = rng.normal(size=(7, 9, 5)).astype(np.float32)
    masks[3, 4, 2] = value
    classes = RawHead(rng.normal(scale=5, size=(5, 5)).astype(np.float32))
    expected = panoptic.decode_masks(
        masks, classes.real(), canvas=(25, 33), settings=RULES
    )
    found = decode_masks(RawHead(masks), classes, canvas=(25, 33), settings=RULES)
    np.testing.assert_array_equal(found.panoptic, expected.panoptic)
    np.testing.assert_array_equal(found.instance_scores, expected.instance_scores)


def test_maskwise_rules_give_the_same_maps() -> None:
    rng = np.random.default_rng(5)
    masks: NDArray[np.float32] = rng.normal(scale=4, size=(9, 9, 8)).astype(np.float32)
    classes = rng.normal(scale=5, size=(8, 5)).astype(np.float32)
    rules = dataclasses.replace(RULES, maskwise=MaskwiseSettings())
    check(RawHead(masks), RawHead(classes), (33, 33), rules)


def test_what_does_not_fit_is_refused() -> None:
    masks, classes = np.zeros((3, 3, 4), np.float32), np.zeros((4, 4), np.float32)
    with pytest.raises(UsageError, match="class_logits"):
        decode_masks(
            RawHead(masks), RawHead(classes[:3]), canvas=(5, 5), settings=RULES
        )
    with pytest.raises(UsageError, match="sizes make no sense"):
        decode_masks(RawHead(masks), RawHead(classes), canvas=(0, 5), settings=RULES)
