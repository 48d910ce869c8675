"""From heads to panoptic maps."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic import (
    Heads,
    MergeSettings,
    find_centers,
    group_pixels,
    merge_heads,
    merge_semantic_and_instance,
    resize_bilinear,
)
from deeplab2_edge.panoptic.heads import class_probabilities, offsets_at

GOLDEN = np.load(Path(__file__).parents[1] / "golden/panoptic/resize.npz")
SETTINGS = MergeSettings(
    thing_ids=(1, 3), label_divisor=100, ignore_label=9, nms_kernel=5
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    canvas=st.tuples(st.integers(1, 33), st.integers(1, 33)),
)
def test_merge_heads_equals_the_steps_on_full_maps(
    seed: int, size: tuple[int, int], canvas: tuple[int, int]
) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(*size, 4)).astype(np.float32)
    heat = rng.uniform(size=size).astype(np.float32)
    offsets = rng.normal(size=(*size, 2)).astype(np.float32)
    maps = merge_heads(logits, heat, offsets, canvas=canvas, settings=SETTINGS)

    semantic = np.argmax(resize_bilinear(logits, canvas), axis=-1)
    centers_yx, scores = find_centers(
        resize_bilinear(heat, canvas), threshold=0.1, nms_kernel=5, keep_k=400
    )
    growth = [(n - 1) / (m - 1) for n, m in zip(canvas, size, strict=True)]
    grown = resize_bilinear(offsets * np.array(growth, np.float32), canvas)
    instance = group_pixels(centers_yx, grown, np.isin(semantic, (1, 3)))
    panoptic = merge_semantic_and_instance(
        semantic,
        instance,
        thing_ids=(1, 3),
        label_divisor=100,
        stuff_area_limit=0,
        void_label=9,
    )
    np.testing.assert_array_equal(maps.semantic, semantic)
    np.testing.assert_array_equal(maps.centers_yx, centers_yx)
    np.testing.assert_array_equal(maps.center_scores, scores)
    np.testing.assert_array_equal(maps.instance, instance)
    np.testing.assert_array_equal(
        maps.instance_scores, np.append(np.float32(0), scores)[instance]
    )
    np.testing.assert_array_equal(maps.panoptic, panoptic)


def test_offsets_grow_with_the_canvas_as_in_the_reference() -> None:
    target = GOLDEN["resize_and_rescale_offsets/out/y"]
    for x, y in zip(GOLDEN["resize_and_rescale_offsets/in/x"], target, strict=True):
        offsets = np.stack(offsets_at(x, (33, 49), np.arange(33 * 49)), axis=-1)
        np.testing.assert_allclose(offsets.reshape(y.shape), y, atol=1e-5)


def test_probabilities_of_things_are_those_of_the_whole_map() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (5, 9, 4)).astype(np.float32)
    classes = rng.integers(0, 4, (140, 200)).astype(np.int32)
    found = class_probabilities(logits, classes, thing_ids=(1, 3))
    powers = np.exp(resize_bilinear(logits, (140, 200)))
    whole = powers / powers.sum(axis=-1, keepdims=True)
    expected = np.take_along_axis(whole, classes[..., None], axis=-1)[..., 0]
    is_thing = np.isin(classes, (1, 3))
    np.testing.assert_allclose(found, np.where(is_thing, expected, 0), rtol=1e-5)


def test_a_plateau_of_the_heads_gives_one_center_on_the_canvas() -> None:
    logits = np.zeros((5, 9, 2), np.float32)
    logits[..., 1] = 1
    heat = np.zeros((5, 9), np.float32)
    heat[2, 3:5] = 0.5
    offsets = np.zeros((5, 9, 2), np.float32)
    canvas = (17, 33)
    merged = dataclasses.replace(SETTINGS, merge_plateaus=True)
    maps = merge_heads(logits, heat, offsets, canvas=canvas, settings=merged)
    assert maps.centers_yx.tolist() == [[8, 12]]
    maps = merge_heads(logits, heat, offsets, canvas=canvas, settings=SETTINGS)
    assert len(maps.centers_yx) == 5


def test_thing_ids_outside_the_logits_are_no_trouble() -> None:
    heads = np.zeros((2, 2, 1), np.float32), np.ones((2, 2), np.float32)
    offsets = np.zeros((2, 2, 2), np.float32)
    maps = merge_heads(*heads, offsets, canvas=(5, 5), settings=SETTINGS)
    assert not maps.panoptic.any()


def test_heads_check_their_shapes() -> None:
    logits, heat = np.zeros((2, 3, 4), np.float32), np.zeros((2, 3), np.float32)
    Heads(logits, heat, np.zeros((2, 3, 2), np.float32))
    with pytest.raises(UsageError, match="offset_map has shape"):
        Heads(logits, heat, np.zeros((2, 2, 2), np.float32))
    with pytest.raises(UsageError, match="center_heatmap has shape"):
        Heads(logits, heat[..., None], np.zeros((2, 3, 2), np.float32))
    with pytest.raises(UsageError, match="semantic_logits has shape"):
        Heads(logits[0], heat, np.zeros((2, 3, 2), np.float32))


def test_settings_check_their_values_and_take_lists() -> None:
    listed = MergeSettings([1, 2], 1000, 255)  # type: ignore[arg-type]
    assert listed == MergeSettings((1, 2), 1000, 255)
    with pytest.raises(UsageError, match="nms_kernel is 0"):
        MergeSettings((1,), 1000, 255, nms_kernel=0)
    with pytest.raises(UsageError, match="thing_ids"):
        MergeSettings((-1,), 1000, 255)
