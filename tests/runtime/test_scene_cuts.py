"""Cuts of a video, and the optical flow between its frames."""

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab2_edge.errors import DataError
from deeplab2_edge.runtime.optical_flow import FLOW_SIDE, FlowEstimator
from deeplab2_edge.runtime.scene_cuts import SceneCutDetector
from deeplab2_edge.synth import render_scene, render_video

Image = NDArray[np.uint8]
SIZE = (129, 257)


@pytest.fixture(scope="module")
def streets() -> list[Image]:
    return [render_scene(seed, size=SIZE).image for seed in range(1_000_300, 1_000_306)]


def cuts(*frames: Image) -> list[bool]:
    is_cut = SceneCutDetector()
    return [is_cut(frame) for frame in frames]


def noisy(image: Image, exposure: float = 1.0, sigma: float = 12.0) -> Image:
    noise = np.random.default_rng(int(exposure * 10)).normal(0, sigma, image.shape)
    return np.clip(image * exposure + noise, 0, 255).astype(np.uint8)


def enlarged(image: Image, factor: int) -> Image:
    return np.repeat(np.repeat(image, factor, axis=0), factor, axis=1)


def test_every_cut_between_streets_is_found(streets: list[Image]) -> None:
    assert cuts(*streets) == [False, *[True] * (len(streets) - 1)]
    dark = [noisy(street, 0.5) for street in streets]
    assert cuts(*dark) == [False, *[True] * (len(streets) - 1)]


@pytest.mark.parametrize("step", [1, 3])
def test_a_moving_camera_is_no_cut(step: int) -> None:
    # The fastest of the first hundred worlds.
    scenes = render_video(1_000_103, num_frames=7, size=SIZE)
    frames = [scene.image for scene in scenes][::step]
    assert not any(cuts(*frames))
    assert not any(cuts(*(noisy(frame, 0.5) for frame in frames)))


def test_light_and_noise_are_no_cut(streets: list[Image]) -> None:
    for street in streets:
        frames = [noisy(street, exposure) for exposure in (1.0, 0.5, 1.4, 1.0)]
        assert not any(cuts(street, *frames))


def test_size_and_color_do_not_matter(streets: list[Image]) -> None:
    assert cuts(*(enlarged(s, 5) for s in streets[:2])) == [False, True]
    grey = (np.repeat(s.mean(axis=2, keepdims=True), 3, axis=2) for s in streets[:2])
    assert cuts(*(s.astype(np.uint8) for s in grey)) == [False, True]
    # Another size begins a video.
    assert cuts(streets[0], enlarged(streets[1], 2)) == [False, False]


def test_pictures_of_one_color() -> None:
    frames = [np.full((40, 40, 3), level, np.uint8) for level in (0, 5, 12, 255, 250)]
    assert cuts(*frames) == [False, False, False, True, False]


def test_reset_begins_a_video(streets: list[Image]) -> None:
    is_cut = SceneCutDetector()
    is_cut(streets[0])
    is_cut.reset()
    assert not is_cut(streets[1])


def test_only_pictures_are_taken() -> None:
    with pytest.raises(DataError):
        SceneCutDetector()(np.zeros((40, 40), np.uint8))


@pytest.mark.parametrize("factor", [1, 4])
def test_flow_says_where_pixels_were(streets: list[Image], factor: int) -> None:
    image = enlarged(streets[0], factor)
    estimate = FlowEstimator()
    assert estimate(image) is None
    motion = estimate(np.roll(image, 4 * factor, axis=1))
    assert motion is not None
    height, width = motion.grey.shape
    assert max(height, width) == FLOW_SIDE
    assert motion.flow.shape == (height, width, 2)
    # In pixels of the flow: each pixel was to the left before.
    moved = 4 * factor * width / image.shape[1]
    inside = motion.flow[8:-8, 16:-16]
    np.testing.assert_allclose(np.median(inside[..., 0]), -moved, atol=0.2)
    np.testing.assert_allclose(np.median(inside[..., 1]), 0, atol=0.2)


def test_flow_begins_anew_after_a_reset_and_with_another_size() -> None:
    estimate = FlowEstimator()
    image = np.zeros((40, 60, 3), np.uint8)
    assert estimate(image) is None and estimate(image) is not None
    assert estimate(image[:30]) is None
    estimate.reset()
    assert estimate(image[:30]) is None


@pytest.mark.parametrize("size", [(1, 1), (3, 4), (1, 900), (700, 2), (16, 256)])
def test_flow_and_cuts_take_any_size(size: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    estimate = FlowEstimator()
    assert estimate(image) is None and not any(cuts(image, image))
    motion = estimate(image)
    assert motion is not None and np.isfinite(motion.flow).all()
