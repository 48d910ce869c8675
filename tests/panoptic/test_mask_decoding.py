"""Masks of a mask transformer."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deeplab2_edge.config import EvaluatorOptions, MaskwisePostProcessingOptions
from deeplab2_edge.datasets.registry import get_dataset
from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic import (
    MaskMaps,
    MaskSettings,
    MaskwiseSettings,
    class_order,
    decode_masks,
    resize_bilinear,
    resize_bilinear_in_bands,
)
from deeplab2_edge.panoptic import resize as resize_module

SURE, UNSURE = 9.0, 0.0
ALL = dict.fromkeys(
    (
        "transformer_class_confidence_threshold_thing",
        "transformer_class_confidence_threshold_stuff",
    ),
    0.0,
)


def classes(*rows: tuple[int, float]) -> NDArray[np.float32]:
    """Class logits of three classes and void: (class index, logit) of each mask."""
    logits = np.zeros((len(rows), 4), np.float32)
    for row, (index, logit) in zip(logits, rows, strict=True):
        row[index] = logit
    return logits


def decode(masks: Any, class_logits: NDArray[np.float32], **options: Any) -> MaskMaps:
    """Decodes one line of pixels `[W, N]`; class 2 is the thing."""
    masks = np.array([masks], np.float32)
    defaults = {"thing_ids": (2,), "label_divisor": 100, "ignore_label": 9}
    return decode_masks(
        masks,
        class_logits,
        canvas=masks.shape[:2],
        settings=MaskSettings(**defaults | options),
    )


def test_things_come_first_and_void_is_left_out() -> None:
    assert class_order(5, (4, 1), 255).tolist() == [4, 1, 0, 2, 3]
    assert class_order(7, (1, 2, 3, 4), 0).tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_things_are_numbered_by_mask_and_stuff_of_a_class_is_one() -> None:
    masks = np.eye(4) * 5
    maps = decode(masks, classes((0, SURE), (1, SURE), (1, SURE), (0, SURE)))
    assert maps.panoptic.tolist() == [[201, 0, 0, 204]]
    assert maps.mask_id.tolist() == [[1, 2, 3, 4]]
    assert maps.mask_semantic.tolist() == maps.semantic.tolist() == [[2, 0, 0, 2]]
    np.testing.assert_allclose(
        maps.instance_scores, 1 / (1 + 3 * np.exp(-5)), rtol=1e-6
    )
    np.testing.assert_allclose(
        maps.semantic_scores, 1 / (1 + 3 * np.exp(-9)), rtol=1e-6
    )


def test_a_mask_of_an_uncertain_class_holds_its_pixels_but_shows_nothing() -> None:
    maps = decode([[5, 0], [0, 5]], classes((0, SURE), (1, UNSURE)))
    assert maps.panoptic.tolist() == [[201, 900]]
    assert maps.mask_id.tolist() == [[1, 1]]
    # With equal classes the first wins; the semantic map has no thresholds.
    assert maps.semantic.tolist() == [[2, 2]]


def test_uncertain_pixels_are_void() -> None:
    masks = [[0.0, 0.0, 0.0], [5, 0, 0]]
    maps = decode(masks, classes((0, SURE), (0, SURE), (1, SURE)))
    assert maps.panoptic.tolist() == [[900, 201]]


def test_areas_at_the_limit_are_kept() -> None:
    masks = [[5, 0], [5, 0], [0, 5]]
    sure = classes((0, SURE), (1, SURE))
    for limit, expected in ((2, 201), (3, 900)):
        maps = decode(masks, sure, thing_area_limit=limit)
        assert maps.panoptic.tolist() == [[expected, expected, 0]]
    for limit, expected in ((1, 0), (2, 900)):
        maps = decode(masks, sure, stuff_area_limit=limit)
        assert maps.panoptic.tolist() == [[201, 201, expected]]


@pytest.mark.parametrize("maskwise", [None, MaskwiseSettings()])
def test_without_a_detection_all_is_void(maskwise: MaskwiseSettings | None) -> None:
    maps = decode(np.eye(2) * 5, classes((0, 0.1), (1, 0.1)), maskwise=maskwise)
    assert maps.panoptic.tolist() == [[900, 900]]
    assert maps.mask_id.tolist() == [[1, 1]]
    assert not maps.mask_semantic.any()
    assert not maps.instance_scores.any() and not maps.semantic_scores.any()
    assert maps.semantic.tolist() == [[2, 0]]


def test_masks_are_pasted_by_confidence_and_numbered_in_that_order() -> None:
    masks = np.eye(3) * 5
    maps = decode(
        masks,
        classes((0, 5.0), (0, 9.0), (1, 7.0)),
        maskwise=MaskwiseSettings(),
    )
    assert maps.mask_id.tolist() == [[3, 1, 2]]
    assert maps.panoptic.tolist() == [[203, 201, 0]]
    assert maps.semantic.tolist() == [[2, 2, 0]]


def test_an_overlapped_mask_must_have_enough_free_pixels() -> None:
    # At the threshold of 0.2 both masks have the middle.
    masks = [[5, 0], [0.1, 0], [0, 5]]
    sure = classes((0, SURE), (1, SURE - 1))
    for overlap, expected in ((0.4, 0), (0.5, 900)):
        maps = decode(
            masks,
            sure,
            pixel_confidence_threshold=0.2,
            maskwise=MaskwiseSettings(overlapping_threshold=overlap),
        )
        assert maps.panoptic.tolist() == [[201, 201, expected]]
        assert (maps.semantic_scores > 0).tolist() == [[True, True, expected == 0]]


def test_things_and_stuff_have_thresholds_of_their_own() -> None:
    maps = decode(
        np.eye(2) * 5,
        classes((0, 2.0), (1, 2.0)),
        maskwise=MaskwiseSettings(
            transformer_class_confidence_threshold_thing=0.8,
            transformer_class_confidence_threshold_stuff=0.7,
        ),
    )
    assert maps.panoptic.tolist() == [[900, 0]]


def test_wrong_shapes_and_settings_are_refused() -> None:
    with pytest.raises(UsageError, match="class_logits"):
        decode(np.eye(3), classes((0, SURE)))
    with pytest.raises(UsageError, match="class_logits"):
        decode(np.eye(1), np.zeros((1, 1), np.float32))
    with pytest.raises(UsageError, match="label_divisor is 2"):
        decode(np.eye(2), classes((0, SURE), (0, SURE)), label_divisor=2)
    with pytest.raises(UsageError, match="mask_logits"):
        decode(np.zeros((0, 2)), classes((0, SURE), (0, SURE)))
    with pytest.raises(UsageError, match="thing_area_limit"):
        MaskSettings((1,), 100, 9, thing_area_limit=-1)


def test_settings_are_those_of_the_experiment() -> None:
    # Options hold float32 values, hence numbers that are exact in float32.
    coco, limits = get_dataset("coco_panoptic"), {"thing_area_limit": 200}
    thresholds = {
        "transformer_class_confidence_threshold": 0.5,
        "pixel_confidence_threshold": 0.25,
    }
    options = EvaluatorOptions(**thresholds, **limits)
    expected = MaskSettings(
        coco.thing_ids, coco.label_divisor, coco.ignore_label, **thresholds, **limits
    )
    assert MaskSettings.from_options(options, coco) == expected
    rules = {**dict.fromkeys(ALL, 0.5), "reorder_mask_weight": 0.75}
    options = EvaluatorOptions(
        transformer_post_processing="maskwise",
        maskwise_postprocessing=MaskwisePostProcessingOptions(**rules),
    )
    settings = MaskSettings.from_options(options, coco)
    assert settings.maskwise == MaskwiseSettings(**rules)


def test_bands_are_the_resized_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resize_module, "_VALUES_PER_BAND", 6)
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    for size in ((13, 9), (4, 5), (3, 1)):
        bands = list(resize_bilinear_in_bands(x, size))
        assert len(bands) > 1
        np.testing.assert_array_equal(
            np.concatenate([band for _, band in bands]), resize_bilinear(x, size)
        )
        rows = [r for part, _ in bands for r in range(part.start, part.stop)]
        assert rows == list(range(size[0]))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    is_maskwise=st.booleans(),
    threshold=st.sampled_from([0.0, 0.2, 0.4]),
)
def test_every_segment_is_void_stuff_or_one_mask_of_a_thing(
    seed: int, is_maskwise: bool, threshold: float
) -> None:
    rng = np.random.default_rng(seed)
    maps = decode_masks(
        (rng.normal(size=(3, 4, 6)) * 3).astype(np.float32),
        (rng.normal(size=(6, 5)) * 3).astype(np.float32),
        canvas=(9, 13),
        settings=MaskSettings(
            (1, 3),
            100,
            255,
            transformer_class_confidence_threshold=0.0,
            pixel_confidence_threshold=threshold,
            maskwise=MaskwiseSettings(**ALL) if is_maskwise else None,
        ),
    )
    is_void = maps.panoptic == 25500
    is_thing = np.isin(maps.mask_semantic, (1, 3))
    expected = maps.mask_semantic * 100 + np.where(is_thing, maps.mask_id, 0)
    np.testing.assert_array_equal(maps.panoptic[~is_void], expected[~is_void])
    if threshold == 0 and not is_maskwise:
        assert not is_void.any()
        np.testing.assert_array_equal(maps.mask_semantic, maps.semantic)
    if is_maskwise:
        np.testing.assert_array_equal(maps.semantic_scores > 0, ~is_void)
    assert np.all((maps.instance_scores > 0) & (maps.instance_scores <= 1 + 1e-6))
