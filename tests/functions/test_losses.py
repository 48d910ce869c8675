"""Losses and their gradients against stored outputs of the published system."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab2_edge.config import (
    LossOptions,
    MaXDeepLabOptions,
    ModelOptions,
)
from deeplab2_edge.config.textformat import parse_message
from deeplab2_edge.datasets.info import DatasetInfo, info_from_rows
from tests.functions import reference

tf = pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
depth = pytest.importorskip("deeplab2_edge.train.losses.depth")
focal = pytest.importorskip("deeplab2_edge.train.losses.focal")
losses = pytest.importorskip("deeplab2_edge.train.losses")
mask_targets = pytest.importorskip("deeplab2_edge.train.losses.mask_targets")
masks = pytest.importorskip("deeplab2_edge.train.losses.masks")
matching = pytest.importorskip("deeplab2_edge.train.losses.matching")
max_deeplab = pytest.importorskip("deeplab2_edge.train.losses.max_deeplab")
pixel = pytest.importorskip("deeplab2_edge.train.losses.pixel")

pytestmark = pytest.mark.tf

Case = reference.Case
# Inputs that are whole numbers; others may be stored so where nothing is lost.
LABELS = {"gt", "semantic_gt", "thing_id_mask_gt", "mask_semantic", "matched_slot"}
# Gradients sum in another order; the second is a share of the largest one.
VALUE, GRADIENT, SMALLEST_GRADIENT = 1e-5, 1e-4, 1e-6


@pytest.mark.parametrize("case", reference.params("losses"))
def test_losses_equal_the_published_ones(case: Case) -> None:
    kind = case.config.get("loss", case.config.get("op", case.name))
    assert kind in CHECKS, f"{case.name} is of no known kind: {case.config}"
    inputs = {name: widen(name, array) for name, array in case.inputs.items()}
    CHECKS[kind](dataclasses.replace(case, inputs=inputs))


def widen(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Undoes the smaller type in which an array may be stored."""
    is_label = array.dtype.kind != "f" and name in LABELS
    return array.astype(np.int32 if is_label else np.float32)


def check_cross_entropy(case: Case) -> None:
    ignore_label = case.config["ignore_label"]
    check_loss(
        case,
        lambda logits: pixel.softmax_cross_entropy(
            tf.constant(case.inputs["gt"]),
            logits,
            tf.constant(case.inputs["weights"]),
            ignore_label=ignore_label,
            top_k_fraction=case.config["top_k_percent"],
        ),
        "logits",
    )


def check_distance(case: Case) -> None:
    distance = {"l1": pixel.l1, "mse": pixel.mse}[case.config["loss"]]
    check_loss(
        case,
        lambda prediction: distance(
            tf.constant(case.inputs["gt"], tf.float32),
            prediction,
            tf.constant(case.inputs["weights"]),
            top_k_fraction=case.config["top_k_percent"],
        ),
        "pred",
    )


def check_depth(case: Case) -> None:
    functions = {
        "silog": depth.scale_invariant_error,
        "relsq": depth.relative_squared_error,
        "depth_loss": depth.depth_loss,
    }
    target = case.inputs["gt"].astype(np.float32)
    ignore_depth = case.config["ignore_depth"]
    is_empty = is_without_depth(target, ignore_depth)
    names = {name for name in case.outputs if not name.startswith("grad_")}
    assert names == set(functions)
    for name, function in functions.items():
        prediction = tf.constant(case.inputs["pred"])
        with tf.GradientTape() as tape:
            tape.watch(prediction)
            loss = function(tf.constant(target), prediction, ignore_depth=ignore_depth)
        # The published loss is not a number where there is no depth; ours is 0.
        expected = np.where(is_empty, 0.0, case.outputs[name])
        assert_values(loss, expected, name)
        gradient = case.outputs[f"grad_pred_{name}"]
        assert_gradients(tape.gradient(loss, prediction), gradient, name)


def check_focal(case: Case) -> None:
    assert case.config["background_channel_index"] == -1
    alpha = case.config["alpha"]
    check_loss(
        case,
        lambda logits: focal.focal_cross_entropy(
            tf.constant(case.inputs["gt_one_hot"]),
            logits,
            tf.constant(case.inputs["weights"]),
            alpha=None if alpha < 0 else alpha,
            gamma=case.config["gamma"],
        ),
        "logits",
    )


def check_dice(case: Case) -> None:
    assert case.config["smooth"] == 1.0
    activation = {"softmax": tf.nn.softmax, "sigmoid": tf.nn.sigmoid}
    target = tf.constant(case.inputs["gt_one_hot"])

    def dice_of_masks(logits: Any) -> Any:
        is_valid = tf.reduce_max(target, axis=2, keepdims=True)
        predicted = activation[case.config["activation"]](logits) * is_valid
        shared = masks.intersect(tf.transpose(target, [0, 2, 1]), predicted)
        return masks.dice_loss(
            tf.linalg.diag_part(shared),
            tf.reduce_sum(target, axis=1),
            tf.reduce_sum(predicted, axis=1),
        )

    found = dice_of_masks(tf.constant(case.inputs["logits"]))
    assert_values(found, case.outputs["dice_per_mask"], "dice_per_mask")
    weights = case.inputs["weights"]
    check_loss(
        case,
        lambda logits: tf.reduce_sum(dice_of_masks(logits) * weights, axis=1),
        "logits",
        also=("dice_per_mask",),
    )


def check_similarity(case: Case) -> None:
    target, predicted = case.inputs["gt_mask"], case.inputs["pred_mask"]
    shared = masks.intersect(target.transpose(0, 2, 1), predicted)
    for metric, expected in case.outputs.items():
        found = masks.mask_similarity(
            shared, target.sum(axis=1), predicted.sum(axis=1), metric=metric
        )
        assert_values(found, expected, metric)


def check_matching(case: Case) -> None:
    cost = case.inputs["cost"]
    column = matching.match(tf.constant(cost), tf.ones(cost.shape[:2], tf.bool))
    found = tf.one_hot(column, cost.shape[2]).numpy()
    np.testing.assert_array_equal(
        found.sum(axis=(1, 2)), np.full(len(cost), min(cost.shape[1:]))
    )
    total = (found * cost).sum(axis=(1, 2))
    assert_values(total, case.outputs["total_cost"], "total_cost")
    # Whole numbers have ties, and so has the square part beyond the costs.
    if case.config["kind"] == "float":
        parts = {"assignment", "nonsquare_permutation"} & set(case.outputs)
        assert len(parts) == 1
        np.testing.assert_array_equal(found, case.outputs[parts.pop()])


def check_slot_classes(case: Case) -> None:
    found = max_deeplab.slot_classes(
        tf.constant(case.inputs["matched_slot"]),
        tf.constant(case.inputs["mask_semantic"]),
        case.config["thing_stuff_class_ids"],
        num_slots=case.config["num_mask_slots"],
    )
    np.testing.assert_array_equal(found, case.outputs["one_hot"])


def check_max_deeplab(case: Case) -> None:
    config = case.config
    assert (config["focal_alpha"], config["instance_discrimination_temperature"]) == (
        0.75,
        0.3,
    )
    info = dataset_of(config, things=config["thing_class_ids"])
    order = mask_targets.MaskClasses.of(info)
    assert list(order.stuff_ids) == config["stuff_class_ids"]
    assert len(order.ids) == config["num_thing_stuff_classes"]
    check_labels(case, order)
    model_options = ModelOptions(
        max_deeplab=MaXDeepLabOptions(
            instance_discrimination_sample_k=config["instance_discrimination_sample_k"],
            instance_discrimination_sample_temperature=config[
                "instance_discrimination_sample_temperature"
            ],
        )
    )
    loss = losses.build_loss(
        options_of(config),
        info,
        model_options=model_options,
        num_auxiliary=config["num_auxiliary"],
    )
    check_total(case, loss)


def check_labels(case: Case, order: Any) -> None:
    stride = case.config["gt_stride"]
    labels = mask_targets.mask_targets(
        tf.constant(case.inputs["semantic_gt"][:, ::stride, ::stride]),
        tf.constant(case.inputs["thing_id_mask_gt"][:, ::stride, ::stride]),
        tf.constant(case.inputs["thing_id_class_gt"]),
        order,
    )
    found = {
        "pixel_gt_thing_mask": labels.is_thing,
        "pixel_gt_non_void_mask": labels.is_labelled,
        "pixel_gt_mask_id_one_hot": tf.transpose(labels.masks, [0, 2, 1]),
        "mask_gt_semantic_map": labels.mask_class,
        "mask_gt_non_void_mask": labels.is_present,
        "mask_gt_semantic_one_hot": labels.class_one_hot,
        "mask_gt_area": labels.area[..., None],
        "inverse_pixel_gt_mask_area": labels.inverse_area(),
    }
    stored = {n for n in case.outputs if n.startswith("pre.")}
    assert stored == {f"pre.{name}" for name in found}
    for name, value in found.items():
        expected = case.outputs[f"pre.{name}"].astype(np.float64)
        np.testing.assert_allclose(
            tf.cast(value, tf.float64), expected, rtol=1e-6, err_msg=name
        )


def check_family(case: Case) -> None:
    info = dataset_of(case.config, things=[])
    check_total(case, losses.build_loss(options_of(case.config), info))


def check_total(case: Case, loss: Any) -> None:
    """Compares every value and every stored gradient of a model's loss."""
    config = case.config
    assert set(loss.names) == set(config["loss_names"])
    given = {name: tf.constant(value) for name, value in case.inputs.items()}
    expected = without_missing_depth(case)
    auxiliary = [
        {
            name.removeprefix(f"aux{i}."): name
            for name in given
            if name.startswith(f"aux{i}.")
        }
        for i in range(config.get("num_auxiliary", 0))
    ]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch({n: v for n, v in given.items() if v.dtype == tf.float32})
        predictions = dict(given)
        predictions["auxiliary_outputs"] = [
            {key: given[name] for key, name in names.items()} for names in auxiliary
        ]
        values = loss(predictions, given)
    assert tuple(values) == loss.names
    for name, value in values.items():
        assert_values(value, expected[f"loss.{name}"], name)
    if "train_step_scalar" in expected:
        scalar = tf.reduce_mean(values["total_loss"])
        assert_values(scalar, expected["train_step_scalar"], "train_step_scalar")
    gradients = [name for name in expected if name.startswith("grad.")]
    assert gradients
    for entry in gradients:
        _, name, prediction = entry.split(".", 2)
        found = tape.gradient(values[name], given[prediction])
        assert_gradients(found, expected[entry], entry)


def without_missing_depth(case: Case) -> Mapping[str, NDArray[Any]]:
    """Gives the stored outputs, with 0 for the depth loss of samples without depth."""
    expected = dict(case.outputs)
    if "depth_gt" not in case.inputs:
        return expected
    is_empty = is_without_depth(case.inputs["depth_gt"], case.config["ignore_depth"])
    if is_empty.any():
        names = [f"loss.{n}" for n in case.config["loss_names"] if n != "total_loss"]
        depth = np.where(is_empty, 0.0, expected["loss.depth_loss"])
        expected["loss.depth_loss"] = depth
        expected["loss.total_loss"] = np.sum([expected[n] for n in names], axis=0)
        # The published step loses the whole batch.
        expected.pop("train_step_scalar", None)
    return expected


def is_without_depth(depth_gt: NDArray[Any], ignore_depth: float) -> NDArray[np.bool_]:
    return np.asarray((depth_gt == ignore_depth).reshape(len(depth_gt), -1).all(axis=1))


def dataset_of(config: Mapping[str, Any], things: list[int]) -> DatasetInfo:
    return info_from_rows(
        "case",
        [
            (f"class {i}", "thing" if i in things else "stuff", "000000")
            for i in range(config["num_classes"])
        ],
        # Without an ignore label, no pixel has the usual one.
        ignore_label=255 if config["ignore_label"] is None else config["ignore_label"],
        ignore_depth=config.get("ignore_depth"),
    )


def options_of(config: Mapping[str, Any]) -> LossOptions:
    return parse_message(LossOptions, config["loss_options"])


def check_loss(
    case: Case,
    loss: Callable[[Any], Any],
    prediction: str,
    also: tuple[str, ...] = (),
) -> None:
    """Compares one loss and its gradient, and knows all stored outputs of the case."""
    assert set(case.outputs) == {"loss", f"grad_{prediction}", *also}
    given = tf.constant(case.inputs[prediction])
    with tf.GradientTape() as tape:
        tape.watch(given)
        value = loss(given)
    assert_values(value, case.outputs["loss"], "loss")
    gradient = tape.gradient(value, given)
    assert_gradients(gradient, case.outputs[f"grad_{prediction}"], "gradient")


def assert_values(found: Any, expected: NDArray[Any], name: str) -> None:
    np.testing.assert_allclose(
        found, expected, rtol=VALUE, atol=1e-7, err_msg=name, strict=False
    )


def assert_gradients(found: Any, expected: NDArray[Any], name: str) -> None:
    if found is None:
        found = np.zeros_like(expected)
    np.testing.assert_allclose(
        found,
        expected,
        rtol=GRADIENT,
        atol=SMALLEST_GRADIENT * np.abs(expected).max(initial=0.0),
        err_msg=name,
    )


CHECKS: dict[str, Callable[[Case], None]] = {
    "softmax_cross_entropy": check_cross_entropy,
    "l1": check_distance,
    "mse": check_distance,
    "depth_loss": check_depth,
    "focal_cross_entropy": check_focal,
    "mask_dice": check_dice,
    "mask_similarity": check_similarity,
    "hungarian": check_matching,
    "mask_slot_one_hot": check_slot_classes,
    "max_deeplab": check_max_deeplab,
    "family_total": check_family,
}
