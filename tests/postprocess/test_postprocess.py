"""Post-processing as traced TensorFlow equals the NumPy reference."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab2_edge import panoptic
from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic import (
    MaskMaps,
    MaskSettings,
    MaskwiseSettings,
    MergeSettings,
    PanopticMaps,
)

tf = pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
postprocess = pytest.importorskip("deeplab2_edge.postprocess")

pytestmark = pytest.mark.tf

MERGE = MergeSettings(
    thing_ids=(1, 3),
    label_divisor=100,
    ignore_label=9,
    nms_kernel=4,
    keep_k_centers=5,
    stuff_area_limit=40,
)
MASKS = MaskSettings(
    thing_ids=(4, 2),
    label_divisor=100,
    ignore_label=255,
    transformer_class_confidence_threshold=0.5,
    stuff_area_limit=30,
    thing_area_limit=10,
)
MASKWISE = MaskwiseSettings(0.4, 0.3, 0.7, 1.5, 0.5)


def traced(
    function: Any, *arrays: NDArray[Any], jit_compile: bool = False, **options: Any
) -> Any:
    """Runs a function of static shapes inside a `tf.function`."""
    compiled = tf.function(
        lambda *tensors: function(*tensors, **options), jit_compile=jit_compile
    )
    concrete = compiled.get_concrete_function(
        *(tf.TensorSpec(x.shape, x.dtype) for x in arrays)
    )
    for output in tf.nest.flatten(concrete.structured_outputs):
        assert output.shape.is_fully_defined(), output
    outputs = concrete(*(tf.constant(x) for x in arrays))
    return tf.nest.map_structure(lambda x: x.numpy(), outputs)


def heads(seed: int) -> tuple[NDArray[np.float32], ...]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(6, 9, 5))
    # Levels of the heatmap give equal scores, more of them than are kept.
    heat = rng.integers(0, 5, (6, 9)) / 8
    offsets = rng.normal(size=(6, 9, 2))
    return tuple(x.astype(np.float32) for x in (logits, heat, offsets))


def masks(seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    mask_logits = 3 * rng.normal(size=(5, 7, 8))
    class_logits = 3 * rng.normal(size=(8, 6))
    return mask_logits.astype(np.float32), class_logits.astype(np.float32)


def check_panoptic(found: dict[str, NDArray[Any]], expected: PanopticMaps) -> None:
    count = len(expected.centers_yx)
    assert np.all(found["centers_yx"][count:] == -1)
    assert not found["center_scores"][count:].any()
    for field in dataclasses.fields(expected):
        value = found[field.name]
        if field.name.startswith("center"):
            value = value[:count]
        wanted = getattr(expected, field.name)
        assert value.dtype == wanted.dtype
        np.testing.assert_array_equal(value, wanted, field.name)


def check_masks(found: dict[str, NDArray[Any]], expected: MaskMaps) -> None:
    for field in dataclasses.fields(expected):
        wanted = getattr(expected, field.name)
        assert found[field.name].dtype == wanted.dtype
        # Exponentials are rounded in another way.
        tolerance = 1e-6 if wanted.dtype == np.float32 else 0
        np.testing.assert_allclose(
            found[field.name], wanted, rtol=0, atol=tolerance, err_msg=field.name
        )


@pytest.mark.parametrize("merge_semantics", ["tf", "op"])
@pytest.mark.parametrize("canvas", [(21, 33), (6, 9)])
def test_heads_become_the_same_maps(
    merge_semantics: str, canvas: tuple[int, int]
) -> None:
    options = {
        "canvas": canvas,
        "settings": MERGE,
        "merge_semantics": merge_semantics,
    }
    found = traced(postprocess.merge_heads, *heads(1), **options)
    check_panoptic(found, panoptic.merge_heads(*heads(1), **options))


@pytest.mark.parametrize("canvas", [(21, 33), (6, 9), (26, 30)])
def test_plateaus_give_one_center_each(canvas: tuple[int, int]) -> None:
    settings = dataclasses.replace(
        MERGE, merge_plateaus=True, keep_k_centers=50, nms_kernel=3
    )
    logits, heat, offsets = heads(5)
    # Two columns that meet in the last row: a plateau with two upper ends.
    heat[1:6, 2] = heat[2:6, 5] = heat[5, 2:6] = 0.75
    options = {"canvas": canvas, "settings": settings}
    expected = panoptic.merge_heads(logits, heat, offsets, **options)
    found = traced(postprocess.merge_heads, logits, heat, offsets, **options)
    check_panoptic(found, expected)
    kept = dataclasses.replace(settings, merge_plateaus=False)
    many = panoptic.merge_heads(logits, heat, offsets, canvas=canvas, settings=kept)
    assert len(many.centers_yx) > len(expected.centers_yx) > 2


def test_heads_without_a_center_have_no_instances() -> None:
    logits, heat, offsets = heads(2)
    arrays = logits, np.zeros_like(heat), offsets
    for rules in ("tf", "op"):
        options = {"canvas": (9, 9), "settings": MERGE, "merge_semantics": rules}
        found = traced(postprocess.merge_heads, *arrays, **options)
        check_panoptic(found, panoptic.merge_heads(*arrays, **options))


@pytest.mark.parametrize("maskwise", [None, MASKWISE], ids=["pixelwise", "maskwise"])
def test_masks_become_the_same_maps(maskwise: MaskwiseSettings | None) -> None:
    options = {
        "canvas": (17, 25),
        "settings": dataclasses.replace(MASKS, maskwise=maskwise),
    }
    found = traced(postprocess.decode_masks, *masks(3), **options)
    expected = panoptic.decode_masks(*masks(3), **options)
    check_masks(found, expected)
    assert len(np.unique(expected.panoptic)) > 2


@pytest.mark.parametrize("maskwise", [None, MASKWISE], ids=["pixelwise", "maskwise"])
def test_masks_without_a_detection_are_void(maskwise: MaskwiseSettings | None) -> None:
    mask_logits, class_logits = masks(4)
    arrays = mask_logits, class_logits * np.float32(1e-3)
    options = {
        "canvas": (9, 13),
        "settings": dataclasses.replace(MASKS, maskwise=maskwise),
    }
    found = traced(postprocess.decode_masks, *arrays, **options)
    check_masks(found, panoptic.decode_masks(*arrays, **options))
    assert np.all(found["panoptic"] == 25500)


def test_maskwise_takes_any_number_of_masks_per_pixel() -> None:
    settings = dataclasses.replace(
        MASKS, pixel_confidence_threshold=0.0, maskwise=MASKWISE
    )
    options = {"canvas": (9, 13), "settings": settings}
    found = traced(postprocess.decode_masks, *masks(5), **options)
    check_masks(found, panoptic.decode_masks(*masks(5), **options))


@pytest.mark.parametrize("merge_semantics", ["tf", "op"])
def test_merging_gives_the_same_map_at_its_edges(merge_semantics: str) -> None:
    rng = np.random.default_rng(6)
    options = {
        "thing_ids": (2, 3),
        "label_divisor": 4,  # more instances than numbers
        "stuff_area_limit": 5,
        "void_label": 9,
        "merge_semantics": merge_semantics,
    }
    function = tf.function(
        lambda semantic, instance: postprocess.merge_semantic_and_instance(
            semantic, instance, num_classes=5, max_instances=11, **options
        )
    )
    for _ in range(20):
        semantic = rng.integers(0, 5, (6, 7)).astype(np.int32)
        instance = rng.integers(0, 12, (6, 7)).astype(np.int32)
        np.testing.assert_array_equal(
            function(semantic, instance),
            panoptic.merge_semantic_and_instance(semantic, instance, **options),
        )


@pytest.mark.slow
def test_accelerator_compilers_take_the_graphs() -> None:
    """XLA rounds in its own way, so only integers far from a tie are compared."""
    options = {"canvas": (11, 17), "settings": MERGE}
    found = traced(postprocess.merge_heads, *heads(7), jit_compile=True, **options)
    expected = panoptic.merge_heads(*heads(7), **options)
    assert np.mean(found["semantic"] == expected.semantic) > 0.99
    assert found["panoptic"].shape == (11, 17)
    for maskwise in (None, MASKWISE):
        settings = dataclasses.replace(MASKS, maskwise=maskwise)
        options = {"canvas": (9, 13), "settings": settings}
        maps = traced(postprocess.decode_masks, *masks(8), jit_compile=True, **options)
        reference = panoptic.decode_masks(*masks(8), **options)
        assert np.mean(maps["panoptic"] == reference.panoptic) > 0.99


def test_what_needs_other_shapes_is_refused() -> None:
    arrays = heads(9)
    for change, message in (
        ({"keep_k_centers": 0}, "keep_k is 0"),
        ({"merge_plateaus": True, "nms_kernel": 2}, "at least 3 in a graph that"),
    ):
        settings = dataclasses.replace(MERGE, **change)
        with pytest.raises(UsageError, match=message):
            postprocess.merge_heads(*arrays, canvas=(9, 9), settings=settings)
    with pytest.raises(UsageError, match="label_divisor is 8"):
        postprocess.decode_masks(
            *masks(0),
            canvas=(9, 9),
            settings=dataclasses.replace(MASKS, label_divisor=8),
        )
    with pytest.raises(UsageError, match="merge_semantics"):
        postprocess.merge_semantic_and_instance(
            np.zeros((2, 2), np.int32),
            np.zeros((2, 2), np.int32),
            thing_ids=(),
            label_divisor=10,
            stuff_area_limit=0,
            void_label=9,
            merge_semantics="gpu",
            num_classes=2,
            max_instances=2,
        )
