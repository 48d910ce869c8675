"""Preprocessing: crops of the published system under forced draws; stateless draws."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deeplab2_edge.config import AugmentationOptions, DatasetOptions
from deeplab2_edge.errors import ConfigError

tf = pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
preprocessing = pytest.importorskip("deeplab2_edge.train.data.preprocessing")

pytestmark = pytest.mark.tf

# Of the images, every fourth row is stored.
GOLDEN = np.load(Path(__file__).parents[1] / "golden/train/preprocessing.npz")
CONFIGS = {
    key.split("/")[0]: json.loads(str(GOLDEN[key]))
    for key in GOLDEN.files
    if key.endswith("/config")
}
TRAINING = sorted(case for case in CONFIGS if case.startswith("preprocess_train"))
EVALUATION = sorted(case for case in CONFIGS if case.startswith("preprocess_eval"))
GRIDS = sorted(case for case in CONFIGS if case.startswith("scale_grid"))


class ForcedDraws:
    """Gives the smallest or the largest integers, and one float."""

    def __init__(self, integers: str, uniform: float) -> None:
        self._integers, self._uniform = integers, uniform

    def uniform(self, event: Any) -> Any:
        return tf.constant(self._uniform, tf.float32)

    def integer(self, event: Any, limit: Any) -> Any:
        return limit - 1 if self._integers == "hi" else tf.constant(0)


def settings_of(config: dict[str, Any]) -> Any:
    scale = config.get("min_scale_factor", 1.0)
    options = DatasetOptions(
        crop_size=(config["crop_height"], config["crop_width"]),
        min_resize_value=config.get("min_resize_value", ()),
        max_resize_value=config.get("max_resize_value", ()),
        resize_factor=config.get("resize_factor", 0),
        augmentations=AugmentationOptions(
            min_scale_factor=scale, max_scale_factor=scale
        ),
    )
    return preprocessing.PreprocessSettings.from_options(
        options, config["ignore_label"]
    )


def frames(case: str) -> tuple[Any, Any]:
    names = ["", "prev_"] if "two_frames" in case else [""]
    images = [GOLDEN[f"{name}image"] for name in names]
    labels = [GOLDEN[f"{name}label"].astype(np.int32) for name in names]
    return tf.constant(np.concatenate(images, axis=-1)), tf.stack(labels, axis=-1)


@pytest.mark.parametrize("case", TRAINING)
def test_training_crops_equal_the_published_ones(case: str) -> None:
    config = CONFIGS[case]
    draws = ForcedDraws(config["forced_int_draw"], config["forced_float_draw"])
    image, label = preprocessing.training_view(
        *frames(case), settings_of(config), draws
    )
    np.testing.assert_array_equal(label, GOLDEN[f"{case}/out/label"])
    np.testing.assert_allclose(
        image[::4], GOLDEN[f"{case}/out/processed_image"], atol=1e-5
    )


@pytest.mark.parametrize("case", EVALUATION)
def test_evaluation_views_equal_the_published_ones(case: str) -> None:
    resized, image, label = preprocessing.evaluation_view(
        *frames(case), settings_of(CONFIGS[case])
    )
    expected = GOLDEN[f"{case}/out/processed_image"]
    np.testing.assert_allclose(image[::4, :, :3], expected, atol=1e-5)
    np.testing.assert_array_equal(label[..., :1], GOLDEN[f"{case}/out/label"])
    expected = GOLDEN[f"{case}/out/resized_image"]
    np.testing.assert_allclose(resized[::4, :, :3], expected, atol=1e-5)
    if "two_frames" in case:
        expected = GOLDEN[f"{case}/out/prev_image"]
        np.testing.assert_allclose(image[::4, :, 3:], expected, atol=1e-5)
        np.testing.assert_array_equal(label[..., 1:], GOLDEN[f"{case}/out/prev_label"])


def test_resized_sizes_equal_the_published_ones() -> None:
    found = []
    for height, width, *limits, factor in GOLDEN["resize_sizes/in/rows"].tolist():
        minimum, maximum = (
            tuple(pair) if min(pair) > 0 else None for pair in (limits[:2], limits[2:])
        )
        settings = preprocessing.PreprocessSettings(
            (10**6, 10**6), 0, min_size=minimum, resize_factor=factor
        )
        size = tf.constant([height, width])
        found.append(preprocessing.resized_size(size, settings, maximum))
    np.testing.assert_array_equal(found, GOLDEN["resize_sizes/out/new_hw"])


@pytest.mark.parametrize("case", GRIDS)
def test_scale_grids_equal_the_published_ones(case: str) -> None:
    low, high, step = (
        float(np.float32(CONFIGS[case][key])) for key in ("min", "max", "step")
    )
    np.testing.assert_allclose(
        preprocessing.scale_grid(low, high, step),
        GOLDEN[f"{case}/out/grid_from_config_float32"],
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("size", "indices"),
    [(4, [0, 2, 3]), (6, [0, 3, 5]), (6, [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5])],
)
def test_nearest_labels_round_half_up(size: int, indices: list[int]) -> None:
    label = tf.range(size)[:, tf.newaxis, tf.newaxis]
    resized = preprocessing.resize_label(label, [len(indices), 1])
    assert resized[:, 0, 0].numpy().tolist() == indices


def test_a_seed_decides_the_sample() -> None:
    image, label = frames("")
    options = DatasetOptions(
        crop_size=(33, 33),
        augmentations=AugmentationOptions(min_scale_factor=0.5, max_scale_factor=2.0),
    )
    settings = preprocessing.PreprocessSettings.from_options(options, 0)

    def view(*seed: int) -> Any:
        draws = preprocessing.SeededDraws(tf.constant(seed, tf.int64))
        return preprocessing.training_view(image, label, settings, draws)[0].numpy()

    np.testing.assert_array_equal(view(1, 5), view(1, 5))
    assert not np.array_equal(view(1, 5), view(1, 6))
    assert not np.array_equal(view(1, 5), view(2, 5))


def test_events_have_their_own_streams() -> None:
    draws = preprocessing.SeededDraws(tf.constant([3, 4], tf.int64))
    values = [float(draws.uniform(event)) for event in preprocessing.Event]
    assert len(set(values)) == len(values)


def test_a_step_of_zero_means_any_scale_in_the_range() -> None:
    augmentations = AugmentationOptions(
        min_scale_factor=0.5, max_scale_factor=2.0, scale_factor_step_size=0.0
    )
    options = DatasetOptions(crop_size=(9, 9), augmentations=augmentations)
    settings = preprocessing.PreprocessSettings.from_options(options, 0)
    assert settings.scale_range == (0.5, 2.0)
    view, _ = preprocessing.training_view(
        tf.zeros([6, 6, 3]),
        tf.zeros([6, 6, 1], tf.int32),
        settings,
        ForcedDraws("lo", 1),
    )
    assert float(view[8, 8, 0]) == 0.0  # scaled by 2, so nothing is padded


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
