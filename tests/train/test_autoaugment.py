"""Color jitter: how often a policy acts, and that frames stay alike."""

from typing import Any

import numpy as np
import pytest

from deeplab2_edge.errors import ConfigError
from tests.functions.forced_draws import ForcedDraws

tf = pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
autoaugment = pytest.importorskip("deeplab2_edge.train.data.autoaugment")
draws = pytest.importorskip("deeplab2_edge.train.data.draws")

pytestmark = pytest.mark.tf

NAMES = (
    "simple_classification_policy",
    "simple_classification_policy_magnitude_scale_0.2",
)
IMAGE = np.random.default_rng(3).integers(0, 256, (6, 7, 3), np.uint8)


def jitter(image: Any, name: str, chosen: Any) -> Any:
    policy = autoaugment.get_policy(name)
    return autoaugment.jitter_colors(tf.constant(image), policy, chosen).numpy()


@pytest.mark.parametrize("name", NAMES)
def test_an_operation_fires_with_its_probability(name: str) -> None:
    # The first row: sharpness with 0.4, brightness with 0.2.
    first, second = autoaugment.get_policy(name)[0]
    sharp, both = IMAGE, IMAGE
    sharp = autoaugment.apply_operation(tf.constant(IMAGE), "Sharpness", first.level)
    both = autoaugment.apply_operation(sharp, "Brightness", second.level)
    for uniform, expected in ((0.59, IMAGE), (0.61, sharp), (0.81, both)):
        found = jitter(IMAGE, name, ForcedDraws("lo", uniform))
        np.testing.assert_array_equal(found, expected)


def test_fractions_are_cut_off() -> None:
    image = np.full((4, 4, 3), 99.9, np.float32)
    found = jitter(image, NAMES[0], ForcedDraws("lo", 0.0))
    assert found.dtype == np.float32 and (found == 99).all()


@pytest.mark.parametrize("number", range(12))
def test_two_frames_get_the_same_colors(number: int) -> None:
    seeded = draws.SeededDraws(tf.constant([2, number], tf.int64))
    found = jitter(np.concatenate([IMAGE, IMAGE], axis=-1), NAMES[1], seeded)
    np.testing.assert_array_equal(found[..., :3], found[..., 3:])


def test_contrast_of_a_large_image_is_taken_from_white() -> None:
    image = np.full((300, 300, 3), 100, np.uint8)
    for side, expected in ((300, 183), (100, 67)):
        found = autoaugment.apply_operation(
            tf.constant(image[:side, :side]), "Contrast", 2.0
        )
        assert (found.numpy() == expected).all()


def test_unknown_policies_are_named() -> None:
    with pytest.raises(ConfigError, match="'strong'; expected one of simple_class"):
        autoaugment.get_policy("strong")
