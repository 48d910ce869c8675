"""Resizing, augmentation and their undoing against stored outputs."""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab2_edge.config import AugmentationOptions, DatasetOptions
from tests.functions import reference
from tests.functions.forced_draws import ForcedDraws

tf = pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
autoaugment = pytest.importorskip("deeplab2_edge.train.data.autoaugment")
preprocessing = pytest.importorskip("deeplab2_edge.train.data.preprocessing")
resize = pytest.importorskip("deeplab2_edge.layers.resize")
models = pytest.importorskip("deeplab2_edge.models")
mobilenet = pytest.importorskip("deeplab2_edge.backbones.mobilenet_v3")
undo = pytest.importorskip("deeplab2_edge.models.undo")

pytestmark = pytest.mark.tf

# Values are 0..255; interpolation is in float32.
IMAGE_TOLERANCE = 2e-4


@pytest.mark.parametrize("case", reference.params("preprocessing"))
def test_results_equal_the_published_ones(case: reference.Case) -> None:
    for pattern, run in KINDS.items():
        if re.fullmatch(pattern, case.name):
            run(case)
            return
    pytest.fail(f"{case.name} is of no known kind")


def check_sizes(case: reference.Case) -> None:
    found = []
    for height, width, *limits, factor in case.inputs["rows"].tolist():
        settings, maximum = resize_settings(limits[:2], limits[2:], factor)
        size = tf.constant([height, width])
        found.append(preprocessing.resized_size(size, settings, maximum))
    np.testing.assert_array_equal(found, case.outputs["new_hw"])


def resize_settings(minimum: Any, maximum: Any, factor: int | None) -> tuple[Any, Any]:
    limits = [
        tuple(pair) if pair and min(pair) > 0 else None for pair in (minimum, maximum)
    ]
    settings = preprocessing.PreprocessSettings(
        (10**6, 10**6), 0, min_size=limits[0], resize_factor=factor or 0
    )
    return settings, limits[1]


def check_resize_to_range(case: reference.Case) -> None:
    config, image = case.config, case.inputs["image"]
    assert config["align_corners"]
    settings, maximum = resize_settings(
        config["min_size"], config["max_size"], config["factor"]
    )
    size = preprocessing.resized_size(tf.constant(image.shape[:2]), settings, maximum)
    compare_images(
        preprocessing.resize_image(tf.constant(image), size), case.outputs["image"]
    )
    label = preprocessing.resize_label(label_map(case.inputs["label"]), size)
    compare_labels(label, case.outputs["label"])


def check_pad(case: reference.Case) -> None:
    config = case.config
    place = (*config["offset"], tuple(config["target"]))
    image = tf.constant(case.inputs["image"], tf.float32)
    found = preprocessing.pad(image, *place, config["image_fill"])
    compare_images(found, case.outputs["image"])
    label = label_map(case.inputs["label"])
    found = preprocessing.pad(label, *place, config["ignore_label"])
    compare_labels(found, case.outputs["label"])


def check_preprocess(case: reference.Case) -> None:
    config = case.config
    is_training = config.get("is_training", "forced_int_draw" in config)
    settings = preprocess_settings(config)
    view = stored_view(case.inputs)
    if is_training:
        draws = ForcedDraws(config["forced_int_draw"], config["forced_float_draw"])
        found = preprocessing.training_view(view, settings, draws)
        resized = view.image
        if settings.resizes_for_training:
            size = preprocessing.resized_size(
                tf.shape(view.image)[:2], settings, settings.max_size
            )
            resized = preprocessing.resize_image(view.image, size)
    else:
        resized, found = preprocessing.evaluation_view(view, settings)
    results = {
        "resized_image": resized[..., :3],
        "processed_image": found.image[..., :3],
        "prev_image": found.image[..., 3:],
        "depth": found.depth,
    }
    if found.label is not None:
        results["label"] = found.label[..., 0]
        results["prev_label"] = found.label[..., 1:]
    for name, expected in case.outputs.items():
        if name == "depth" and is_training and "prev_image" not in case.inputs:
            expected = crop_as_it_should_be(expected, config)
        compare = compare_images if name.endswith("image") else compare_labels
        compare(results[name], expected)


def crop_as_it_should_be(depth: NDArray[Any], config: dict[str, Any]) -> NDArray[Any]:
    """Cuts and flips depth; of single frames the published system does not."""
    crop = config["crop_height"], config["crop_width"]
    surplus = [max(side - c, 0) for side, c in zip(depth.shape, crop, strict=False)]
    top, left = surplus if config["forced_int_draw"] == "hi" else (0, 0)
    depth = depth[top : top + crop[0], left : left + crop[1]]
    return depth[:, ::-1] if config["forced_float_draw"] <= 0.5 else depth


def preprocess_settings(config: dict[str, Any]) -> Any:
    augmentations = AugmentationOptions(
        min_scale_factor=config.get("min_scale_factor", 1.0),
        max_scale_factor=config.get("max_scale_factor", 1.0),
        scale_factor_step_size=config.get("scale_factor_step_size", 0.25),
    )
    options = DatasetOptions(
        crop_size=(config["crop_height"], config["crop_width"]),
        min_resize_value=tuple(config.get("min_resize_value", ())),
        max_resize_value=tuple(config.get("max_resize_value", ())),
        resize_factor=config.get("resize_factor") or 0,
        augmentations=augmentations,
    )
    return preprocessing.PreprocessSettings.from_options(
        options, config["ignore_label"], depth_fill=config.get("ignore_depth") or 0
    )


def stored_view(inputs: dict[str, NDArray[Any]]) -> Any:
    prefixes = [p for p in ("", "prev_", "next_") if f"{p}image" in inputs]
    depth = inputs.get("depth")
    return preprocessing.View(
        tf.concat([tf.constant(inputs[f"{p}image"]) for p in prefixes], axis=-1),
        tf.concat([label_map(inputs[f"{p}label"]) for p in prefixes], axis=-1)
        if "label" in inputs
        else None,
        None if depth is None else label_map(depth),
    )


def check_scale_grid(case: reference.Case) -> None:
    low, high, step = (
        float(np.float32(case.config[key])) for key in ("min", "max", "step")
    )
    np.testing.assert_allclose(
        preprocessing.scale_grid(low, high, step),
        case.outputs["grid_from_config_float32"],
        rtol=1e-6,
    )


def check_autoaugment(case: reference.Case) -> None:
    for key, expected in case.outputs.items():
        operation, image, *strength = key.split("__")
        level = math.prod(float(part[1:]) for part in strength)
        found = autoaugment.apply_operation(
            tf.constant(case.inputs[f"image_{image}"]), operation, level
        )
        difference = np.abs(found.numpy().astype(int) - expected.astype(int))
        if operation == "Sharpness":  # rounding of a convolution
            assert difference.max() <= 1 and (difference > 0).mean() <= 0.01, key
        else:
            assert not difference.any(), key


def check_autoaugment_arguments(case: reference.Case) -> None:
    for operation, rows in case.outputs.items():
        for level, *expected in rows.tolist():
            found = autoaugment.operation_argument(operation, level)
            if expected:
                assert found == pytest.approx(expected[0], rel=1e-12), operation
            else:
                assert found is None


def check_autoaugment_policy(case: reference.Case) -> None:
    for name, rows in case.outputs.items():
        policy = autoaugment.get_policy(name.replace("0p2", "0.2"))
        for steps, expected in zip(policy, rows.tolist(), strict=True):
            for step, text in zip(steps, expected, strict=True):
                operation, probability, level = text.split("|")
                assert step.operation == operation
                assert step.probability == float(probability)
                assert step.level == pytest.approx(float(level), rel=1e-12)


def check_blend(case: reference.Case) -> None:
    images = [tf.constant(case.inputs[name]) for name in ("image1", "image2")]
    for key, expected in case.outputs.items():
        factor = float(key.removeprefix("factor_"))
        found = autoaugment.blend(*images, factor)
        np.testing.assert_array_equal(found, expected, err_msg=key)


def check_resize_bilinear(case: reference.Case) -> None:
    for name, target in (("y", "target"), ("down", "target_down")):
        found = resize.resize_bilinear(
            tf.constant(case.inputs["x"]), case.config[target]
        )
        np.testing.assert_allclose(found, case.outputs[name], rtol=1e-5, atol=1e-6)


def check_rescaled_offsets(case: reference.Case) -> None:
    found = models.resize_outputs(
        {"offset_map": tf.constant(case.inputs["x"])}, case.config["target"]
    )["offset_map"]
    np.testing.assert_allclose(found, case.outputs["y"], rtol=1e-5, atol=1e-5)


def check_undo(case: reference.Case) -> None:
    found = undo.undo_preprocessing(
        {name: tf.constant(as_network_gives(v)) for name, v in case.inputs.items()},
        region=tuple(case.config["regions_to_crop"]),
        size=tuple(case.config["output_shape"]),
    )
    assert set(found) == set(case.outputs)
    for name, expected in case.outputs.items():
        if expected.dtype.kind in "iu":
            compare_labels(found[name], expected)
        else:
            np.testing.assert_allclose(
                found[name], expected, rtol=1e-5, atol=1e-5, err_msg=name
            )


def as_network_gives(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(np.int32) if values.dtype.kind in "iu" else values


def check_scale_helper(case: reference.Case) -> None:
    for value, scale, expected in case.outputs["value_scale_result"].tolist():
        assert resize.scaled_side(int(value), scale) == expected


def check_make_divisible(case: reference.Case) -> None:
    for value, divisor, expected in case.outputs["value_divisor_result"].tolist():
        assert mobilenet.make_divisible(value, int(divisor)) == expected


def label_map(label: NDArray[Any]) -> Any:
    return tf.constant(label.reshape(*label.shape[:2], 1), tf.int32)


def compare_images(found: Any, expected: NDArray[Any]) -> None:
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=IMAGE_TOLERANCE)


def compare_labels(found: Any, expected: NDArray[Any]) -> None:
    np.testing.assert_array_equal(np.asarray(found).reshape(expected.shape), expected)


KINDS: dict[str, Callable[[reference.Case], None]] = {
    "resize_sizes.*": check_sizes,
    "resize_to_range.*": check_resize_to_range,
    "pad.*": check_pad,
    "preprocess_.*": check_preprocess,
    "scale_grid.*": check_scale_grid,
    "autoaugment_args.*": check_autoaugment_arguments,
    "autoaugment_policy.*": check_autoaugment_policy,
    "autoaugment.*": check_autoaugment,
    "blend.*": check_blend,
    "resize_bilinear.*": check_resize_bilinear,
    "resize_and_rescale_offsets.*": check_rescaled_offsets,
    "undo.*": check_undo,
    "scale_helper.*": check_scale_helper,
    "make_divisible.*": check_make_divisible,
}
