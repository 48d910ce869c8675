"""The reduction of pixel losses, and the loss that a configuration asks for."""

import dataclasses

import numpy as np
import pytest

from deeplab2_edge.config import LossOptions, SingleLossOptions
from deeplab2_edge.datasets.registry import get_dataset
from deeplab2_edge.errors import ConfigError

tf = pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
losses = pytest.importorskip("deeplab2_edge.train.losses")
pixel = pytest.importorskip("deeplab2_edge.train.losses.pixel")
reduction = pytest.importorskip("deeplab2_edge.train.losses.reduction")

pytestmark = pytest.mark.tf

SEMANTIC = SingleLossOptions(name="softmax_cross_entropy", top_k_percent=0.2)
L1 = SingleLossOptions(name="l1", weight=0.01)


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


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (LossOptions(semantic_loss=SEMANTIC), {"semantic_loss"}),
        (
            LossOptions(semantic_loss=SEMANTIC, motion_loss=L1),
            {"semantic_loss", "motion_loss"},
        ),
        (
            LossOptions(
                next_regression_loss=L1, depth_loss=SingleLossOptions(name="depth_loss")
            ),
            {"next_regression_loss", "depth_loss"},
        ),
        (
            LossOptions(
                semantic_loss=SEMANTIC,
                pq_style_loss=SingleLossOptions(weight=3.0),
                mask_id_cross_entropy_loss=SingleLossOptions(weight=0.3),
                instance_discrimination_loss=SingleLossOptions(),
            ),
            {
                "semantic_loss",
                "pq_style_loss_class_term",
                "pq_style_loss_mask_dice_term",
                "mask_id_cross_entropy_loss",
                "instance_discrimination_loss",
            },
        ),
        (
            LossOptions(
                semantic_loss=SingleLossOptions(
                    name="softmax_cross_entropy", weight=0.0
                ),
                pq_style_loss=SingleLossOptions(),
                mask_id_cross_entropy_loss=SingleLossOptions(weight=0.0),
            ),
            {"pq_style_loss_class_term", "pq_style_loss_mask_dice_term"},
        ),
    ],
)
def test_the_terms_are_those_that_are_set(
    options: LossOptions, names: set[str]
) -> None:
    found = losses.build_loss(options, get_dataset("cityscapes_panoptic")).names
    assert set(found[:-1]) == names
    assert found[-1] == losses.TOTAL_LOSS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (LossOptions(), "sets no loss"),
        (LossOptions(pq_style_loss=SingleLossOptions(weight=0.0)), "sets no loss"),
        (LossOptions(center_loss=SingleLossOptions(name="mae")), "'mae'; it must be"),
        (
            LossOptions(center_loss=SingleLossOptions(name="mse", top_k_percent=20)),
            "a fraction in 0..1",
        ),
        (
            LossOptions(mask_id_cross_entropy_loss=SingleLossOptions(top_k_percent=20)),
            "mask_id_cross_entropy_loss.top_k_percent is 20",
        ),
    ],
)
def test_options_that_make_no_sense_are_named(
    options: LossOptions, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        losses.build_loss(options, get_dataset("cityscapes_panoptic"))


def test_heads_of_half_precision_are_compared_in_float32() -> None:
    loss = losses.build_loss(
        LossOptions(center_loss=SingleLossOptions(name="mse")),
        get_dataset("cityscapes_panoptic"),
    )
    values = loss(
        {"center_heatmap": tf.fill([1, 3, 3, 1], tf.constant(300.0, tf.float16))},
        {
            "instance_center_gt": tf.zeros([1, 3, 3]),
            "center_loss_weight": tf.ones([1, 3, 3]),
        },
    )
    assert values["total_loss"].dtype == tf.float32
    assert values["center_loss"].numpy() == [90000.0]


def test_unknown_depth_is_ignored_also_if_the_data_set_does_not_say_so() -> None:
    info = dataclasses.replace(get_dataset("semkitti_dvps"), ignore_depth=None)
    loss = losses.build_loss(
        LossOptions(depth_loss=SingleLossOptions(name="depth_loss")), info
    )
    targets = {"depth_gt": tf.constant([[[[2.0], [0.0]]]])}
    found = loss({"depth_pred": tf.constant([[[[2.0], [3.0]]]])}, targets)
    assert found["depth_loss"].numpy().tolist() == [0.0]
