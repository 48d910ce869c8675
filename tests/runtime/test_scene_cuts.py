"""Cuts of a video, and the optical flow between its frames."""

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab2_edge.errors import DataError
from deeplab2_edge.runtime.optical_flow import FLOW_SIDE, FlowEstimator, shrink
from deeplab2_edge.runtime.scene_cuts import SceneCutDetector
from deeplab2_edge.synth import render_scene, render_video

Image = NDArray[np.uint8]


@pytest.fixture(scope="module")
def streets() -> list[Image]:
    return [
        render_scene(seed, size=(65, 129)).image for seed in range(1_000_300, 1_000_308)
    ]


def test_every_cut_between_streets_is_found(streets: list[Image]) -> None:
    is_cut = SceneCutDetector()
    found = [is_cut(street) for street in streets]
    assert found == [False, *[True] * (len(streets) - 1)]


def test_a_moving_camera_is_no_cut() -> None:
    is_cut = SceneCutDetector()
    scenes = render_video(1_000_103, num_frames=6, size=(65, 129))
    assert not any(is_cut(scene.image) for scene in scenes)


def test_light_and_noise_are_no_cut(streets: list[Image]) -> None:
    rng = np.random.default_rng(3)
    for street in streets:
        is_cut = SceneCutDetector()
        is_cut(street)
        for exposure in (0.5, 1.0, 1.6):
            noise = rng.normal(0, 12, street.shape)
            frame = np.clip(street * exposure + noise, 0, 255).astype(np.uint8)
            assert not is_cut(frame)


def test_size_and_color_do_not_matter(streets: list[Image]) -> None:
    is_cut = SceneCutDetector()
    one, other = (np.repeat(np.repeat(s, 5, 0), 5, 1) for s in streets[:2])
    assert [is_cut(image) for image in (one, streets[0], other)] == [False, False, True]
    grey = [np.repeat(s.mean(axis=2, keepdims=True), 3, 2) for s in streets[:2]]
    is_cut.reset()
    assert [is_cut(image.astype(np.uint8)) for image in grey] == [False, True]


def test_pictures_of_one_color() -> None:
    is_cut = SceneCutDetector()
    levels = 0, 5, 63, 64, 70, 255, 0
    frames = [np.full((40, 40, 3), level, np.uint8) for level in levels]
    # Changes among the dark, and drifts over a step of the histogram, are none.
    cuts = [False, False, False, False, False, True, True]
    assert [is_cut(frame) for frame in frames] == cuts


def test_reset_begins_a_video(streets: list[Image]) -> None:
    is_cut = SceneCutDetector()
    is_cut(streets[0])
    is_cut.reset()
    assert not is_cut(streets[1])


def test_only_pictures_are_taken() -> None:
    with pytest.raises(DataError):
        SceneCutDetector()(np.zeros((40, 40), np.uint8))


def test_flow_says_where_pixels_were(streets: list[Image]) -> None:
    for size, factor in ((1, 1), (4, 2)):
        image = np.repeat(np.repeat(streets[0], size, 0), size, 1)
        estimate = FlowEstimator()
        assert estimate(image) is None
        flow = estimate(np.roll(image, 4 * factor, axis=1))
        assert flow is not None
        height, width = flow.shape[:2]
        assert max(height, width) <= FLOW_SIDE
        # In pixels of the flow: each pixel was to the left before.
        moved = 4 * factor * width / image.shape[1]
        inside = flow[8:-8, 16:-16]
        np.testing.assert_allclose(np.median(inside[..., 0]), -moved, atol=0.2)
        np.testing.assert_allclose(np.median(inside[..., 1]), 0, atol=0.2)


def test_flow_begins_anew_after_a_reset_and_with_another_size() -> None:
    estimate = FlowEstimator()
    image = np.zeros((40, 60, 3), np.uint8)
    assert estimate(image) is None and estimate(image) is not None
    assert estimate(image[:30]) is None
    estimate.reset()
    assert estimate(image[:30]) is None


@pytest.mark.parametrize("size", [(1, 1), (3, 4), (1, 900), (700, 2), (16, 16)])
def test_flow_and_cuts_take_any_size(size: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    estimate, is_cut = FlowEstimator(), SceneCutDetector()
    assert estimate(image) is None and not is_cut(image)
    flow = estimate(image)
    assert flow is not None and np.isfinite(flow).all() and not is_cut(image)


def test_shrinking_keeps_the_shape_of_the_picture() -> None:
    image = np.zeros((1025, 2049, 3), np.uint8)
    image[:, 1024:] = 200
    small = shrink(image, 256)
    assert small.shape == (128, 256, 3)
    assert small[:, :126].max() == 0 and small[:, 130:].min() == 200
    assert shrink(small, 256) is small
