"""Preprocessing: what a seed decides, and what goes through the same geometry."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplab2_edge.config import AugmentationOptions, DatasetOptions
from deeplab2_edge.errors import ConfigError
from tests.functions.forced_draws import ForcedDraws

tf = pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
preprocessing = pytest.importorskip("deeplab2_edge.train.data.preprocessing")

from deeplab2_edge.train.data.draws import Event, SeededDraws  # noqa: E402

pytestmark = pytest.mark.tf

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
LABEL = np.random.default_rng(1).integers(0, 9, (20, 30, 1), np.int32)


def view_of(frames: int = 1) -> Any:
    """Puts an image beside itself, as if it were a video that stands still."""
    return preprocessing.View(
        tf.constant(np.concatenate([IMAGE] * frames, axis=-1)),
        tf.constant(np.concatenate([LABEL] * frames, axis=-1)),
        tf.constant(LABEL * 256),
    )


def settings_of(**augmentations: Any) -> Any:
    options = DatasetOptions(
        crop_size=(17, 33), augmentations=AugmentationOptions(**augmentations)
    )
    return preprocessing.PreprocessSettings.from_options(options, 255)


def training_view(settings: Any, *seed: int, frames: int = 1) -> Any:
    draws = SeededDraws(tf.constant(seed, tf.int64))
    return preprocessing.training_view(view_of(frames), settings, draws)


@pytest.mark.parametrize(
    ("size", "indices"),
    [(4, [0, 2, 3]), (6, [0, 3, 5]), (6, [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5])],
)
def test_nearest_labels_round_half_up(size: int, indices: list[int]) -> None:
    label = tf.range(size)[:, tf.newaxis, tf.newaxis]
    resized = preprocessing.resize_label(label, [len(indices), 1])
    assert resized[:, 0, 0].numpy().tolist() == indices


@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(st.integers(1, 200), st.integers(1, 200)),
)
@settings(max_examples=60, deadline=None)
def test_nearest_labels_equal_those_of_the_op(
    old: tuple[int, int], new: tuple[int, int]
) -> None:
    label = tf.reshape(tf.range(old[0] * old[1]), [*old, 1])
    expected = tf.raw_ops.ResizeNearestNeighbor(
        images=label[tf.newaxis], size=new, align_corners=True
    )[0]
    np.testing.assert_array_equal(preprocessing.resize_label(label, new), expected)


def test_a_seed_decides_the_sample() -> None:
    chosen = settings_of(min_scale_factor=0.5, max_scale_factor=2.0)
    first, again, other = (
        training_view(chosen, *seed).image.numpy() for seed in ((1, 5), (1, 5), (1, 6))
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_events_have_their_own_streams() -> None:
    draws = SeededDraws(tf.constant([3, 4], tf.int64))
    values = [float(draws.uniform(event)) for event in Event]
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("number", range(8))
def test_frames_labels_and_depth_get_the_same_geometry(number: int) -> None:
    chosen = settings_of(
        min_scale_factor=0.5,
        max_scale_factor=2.0,
        autoaugment_policy_name="simple_classification_policy",
    )
    view = training_view(chosen, 7, number, frames=2)
    assert view.image.shape == (17, 33, 6) and view.label.shape == (17, 33, 2)
    np.testing.assert_array_equal(view.image[..., :3], view.image[..., 3:])
    np.testing.assert_array_equal(view.label[..., 0], view.label[..., 1])
    is_padding = view.label[..., :1].numpy() == 255
    label = np.where(is_padding, 0, view.label[..., :1])
    scales = view.depth.numpy()[label > 0] / 256 / label[label > 0]
    assert not view.depth.numpy()[is_padding].any()
    # Every depth was divided by the one scale, up to a 256th of a metre.
    assert np.ptp(scales) < 1 / 256


def test_an_enlarged_scene_is_nearer() -> None:
    chosen = settings_of(min_scale_factor=2.0, max_scale_factor=2.0)
    view = training_view(chosen, 0, 0)
    np.testing.assert_array_equal(view.depth, view.label * 128)


def test_a_step_of_zero_means_any_scale_in_the_range() -> None:
    chosen = settings_of(
        min_scale_factor=0.5, max_scale_factor=2.0, scale_factor_step_size=0.0
    )
    assert chosen.scale_range == (0.5, 2.0)
    view = preprocessing.View(tf.zeros([9, 17, 3]), tf.zeros([9, 17, 1], tf.int32))
    found = preprocessing.training_view(view, chosen, ForcedDraws("lo", 1.0))
    assert not found.image.numpy().any()  # scaled by 2, so nothing is padded


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "crop_size is not set"),
        ({"crop_size": (1, 2, 3)}, "one number or height and width"),
        ({"crop_size": 65, "max_resize_value": 66}, "must not exceed crop_size"),
        (
            {"crop_size": 65, "augmentations": {"min_scale_factor": 2.0}},
            "positive and in this order",
        ),
        (
            {
                "crop_size": 65,
                "augmentations": {
                    "max_scale_factor": 2.0,
                    "scale_factor_step_size": -1.0,
                },
            },
            "must not be negative",
        ),
        (
            {"crop_size": 65, "augmentations": {"autoaugment_policy_name": "strong"}},
            "expected one of simple_classification_policy",
        ),
    ],
)
def test_options_that_make_no_sense_are_named(
    options: dict[str, Any], message: str
) -> None:
    values = {
        key: AugmentationOptions(**value)
        if isinstance(value, dict)
        else (value if isinstance(value, tuple) else (value,))
        for key, value in options.items()
    }
    with pytest.raises(ConfigError, match=message):
        preprocessing.PreprocessSettings.from_options(DatasetOptions(**values), 0)
