"""Losses: values and gradients of the published system, and what they promise."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab2_edge.config import LossOptions, SingleLossOptions
from deeplab2_edge.datasets.registry import get_dataset
from deeplab2_edge.errors import ConfigError

tf = pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
losses = pytest.importorskip("deeplab2_edge.train.losses")
pixel = pytest.importorskip("deeplab2_edge.train.losses.pixel")
reduction = pytest.importorskip("deeplab2_edge.train.losses.reduction")

pytestmark = pytest.mark.tf

GOLDEN = np.load(Path(__file__).parents[1] / "golden/train/losses.npz")
CASES = sorted({key.split("/")[0] for key in GOLDEN.files})
TOTAL = "total_panoptic_deeplab"
PUBLISHED = LossOptions(
    semantic_loss=SingleLossOptions(name="softmax_cross_entropy", top_k_percent=0.2),
    center_loss=SingleLossOptions(name="mse", weight=200.0),
    regression_loss=SingleLossOptions(name="l1", weight=0.01),
)


def entries(case: str, part: str) -> dict[str, NDArray[Any]]:
    prefix = f"{case}/{part}/"
    return {
        key.removeprefix(prefix): GOLDEN[key]
        for key in GOLDEN.files
        if key.startswith(prefix)
    }


@pytest.mark.parametrize("case", [case for case in CASES if case != TOTAL])
def test_pixel_losses_and_gradients_equal_the_published_ones(case: str) -> None:
    config = json.loads(str(GOLDEN[f"{case}/config"]))
    given, expected = entries(case, "in"), entries(case, "out")
    options = {"top_k_fraction": config["top_k_percent"]}
    head = "pred"
    if config["loss"] == "softmax_cross_entropy":
        head, options["ignore_label"] = "logits", config["ignore_label"]
    prediction = tf.constant(given[head])
    with tf.GradientTape() as tape:
        tape.watch(prediction)
        loss = getattr(pixel, config["loss"])(
            tf.constant(given["gt"]),
            prediction,
            tf.constant(given["weights"]),
            **options,
        )
    np.testing.assert_allclose(loss, expected["loss"], rtol=1e-6)
    gradient = tape.gradient(loss, prediction)
    np.testing.assert_allclose(gradient, expected[f"grad_{head}"], rtol=1e-5, atol=1e-7)


def test_the_total_and_its_gradients_equal_the_published_ones() -> None:
    given = {key: tf.constant(value) for key, value in entries(TOTAL, "in").items()}
    expected = entries(TOTAL, "out")
    loss = losses.PanopticLoss(PUBLISHED, get_dataset("cityscapes_panoptic"))
    with tf.GradientTape() as tape:
        tape.watch(given)
        values = loss(given, given)
    assert tuple(values) == loss.names
    for name in loss.names:
        np.testing.assert_allclose(values[name], expected[f"loss.{name}"], rtol=1e-6)
    gradients = tape.gradient(values["total_loss"], given)
    for head in ("semantic_logits", "center_heatmap", "offset_map"):
        wanted = expected[f"grad.total_loss.{head}"]
        np.testing.assert_allclose(gradients[head], wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("fraction", "mean"), [(0.2, 3.5), (1.0, 2.5), (0.5, 2.5)])
def test_zero_losses_do_not_count_into_the_mean(fraction: float, mean: float) -> None:
    values = tf.constant([[0.0, 0, 1, 2, 3, 4, 0, 0, 0, 0]])
    assert reduction.mean_of_hardest(values, fraction).numpy() == [mean]


def test_nothing_kept_gives_zero() -> None:
    assert reduction.mean_of_hardest(tf.ones([2, 4]), 0.0).numpy().tolist() == [0, 0]
    assert reduction.mean_of_hardest(tf.zeros([1, 4]), 0.5).numpy().tolist() == [0]


def test_the_first_of_equal_losses_are_kept() -> None:
    values = tf.constant([[1.0, 5.0, 2.0, 2.0, 2.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(values)
        mean = reduction.mean_of_hardest(values, 0.5)
    assert mean.numpy() == [3.0]
    kept = tape.gradient(mean, values).numpy() > 0
    assert kept.tolist() == [[False, True, True, True, False, False]]


def test_not_a_number_is_never_hidden() -> None:
    for nan in (np.float32("nan"), -np.float32("nan")):
        values = tf.constant([[nan, 5.0, 2.0, 1.0]])
        assert np.isnan(reduction.mean_of_hardest(values, 0.25).numpy()).all()


def test_the_hardest_pixels_equal_those_of_a_sort() -> None:
    values = np.random.default_rng(0).gamma(0.3, size=(3, 5001)).astype(np.float32)
    expected = np.sort(values)[:, -1000:].mean(axis=1)
    found = reduction.mean_of_hardest(tf.constant(values), 0.2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_labels_that_no_stride_brings_to_the_logits_are_refused() -> None:
    with pytest.raises(ValueError, match="32x33 pixels cannot be strided"):
        pixel.softmax_cross_entropy(
            tf.zeros([1, 32, 33], tf.int32),
            tf.zeros([1, 9, 9, 3]),
            tf.ones([1, 32, 33]),
        )


def test_a_semantic_model_has_one_term() -> None:
    options = LossOptions(semantic_loss=PUBLISHED.semantic_loss)
    loss = losses.PanopticLoss(options, get_dataset("cityscapes_panoptic"))
    assert loss.names == ("semantic_loss", "total_loss")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (LossOptions(), "sets no loss"),
        (LossOptions(center_loss=SingleLossOptions(name="mae")), "'mae'; it must be"),
        (
            LossOptions(center_loss=SingleLossOptions(name="mse", top_k_percent=20)),
            "a fraction in 0..1",
        ),
        (LossOptions(motion_loss=SingleLossOptions(name="l1")), "motion_loss is set"),
    ],
)
def test_options_that_make_no_sense_are_named(
    options: LossOptions, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        losses.PanopticLoss(options, get_dataset("cityscapes_panoptic"))
