"""Tracking and stitching as traced TensorFlow equals the NumPy reference."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab2_edge import keys, panoptic
from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic import (
    Heads,
    MergeSettings,
    MotionSettings,
    MotionTracker,
)
from tests.functions import reference

tf = pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
postprocess = pytest.importorskip("deeplab2_edge.postprocess")

pytestmark = pytest.mark.tf

CASES = reference.load_cases(reference.COMMITTED / "merging.npz")
SETTINGS = MotionSettings((4, 5), label_divisor=1000, heatmap_sigma=2.5, keep_frames=3)


def tracker(settings: MotionSettings) -> Any:
    return tf.function(
        lambda frame, offsets, state: postprocess.track_instances(
            frame, offsets, state, settings=settings, max_instances=9
        )
    )


def compare_tracks(
    settings: MotionSettings, frames: NDArray[Any], offsets: NDArray[Any]
) -> None:
    numpy_tracker, track = MotionTracker(settings), tracker(settings)
    state = postprocess.initial_motion_state(frames.shape[1:], max_tracks=40)
    for frame, offset in zip(frames.astype(np.int32), offsets, strict=True):
        expected = numpy_tracker.update(frame, offset)
        found, state = track(frame, offset, state)
        assert found.shape == frame.shape and state.tracks.shape == (40, 5)
        np.testing.assert_array_equal(found, expected.panoptic)
        np.testing.assert_array_equal(state.heatmap, expected.heatmap)
        is_track = state.tracks[:, 2] >= 0
        np.testing.assert_array_equal(state.tracks[is_track], expected.tracks)
        assert state.next_id == numpy_tracker.next_id


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("motion_")])
def test_tracks_are_the_published_ones(name: str) -> None:
    config, inputs = CASES[name].config, CASES[name].inputs
    settings = MotionSettings(
        config["thing_class_ids"],
        config["label_divisor"],
        config["heatmap_sigma"],
        config["keep_frames_sigma"],
    )
    compare_tracks(settings, inputs["panoptic"], inputs["frame_offsets"])


def test_tracks_of_random_frames_are_the_same() -> None:
    rng = np.random.default_rng(1)
    ids = [0, 2000, 4000, 4001, 4002, 4003, 5001, 5007, 255000]
    coarse = rng.choice(ids, (12, 4, 5))
    frames = np.kron(coarse, np.ones((1, 4, 4), np.int64))
    frames[3] = 2000  # a frame without instances
    offsets = rng.normal(size=(12, 6, 9, 2)).astype(np.float32)
    offsets[5, ..., 0] = np.nan
    compare_tracks(SETTINGS, frames, offsets)


def test_track_ids_beyond_the_divisor_are_refused() -> None:
    settings = dataclasses.replace(SETTINGS, thing_ids=(2,), label_divisor=4)
    frame = np.array([[9, 10, 11]], np.int32)
    offsets = np.zeros((1, 3, 2), np.float32)
    state = postprocess.initial_motion_state((1, 3), max_tracks=9)
    _, state = tracker(settings)(frame, offsets, state)
    with pytest.raises(tf.errors.InvalidArgumentError, match="label_divisor"):
        tracker(settings)(frame, offsets, state)
    other = dataclasses.replace(settings, track_divisor=99)
    with pytest.raises(UsageError, match="track_divisor"):
        postprocess.track_instances(
            frame, offsets, state, settings=other, max_instances=9
        )


def stitch(concat: Any, alone: Any, things: list[int], divisor: int) -> Any:
    return tf.function(
        lambda a, b: postprocess.stitch(
            a, b, thing_ids=things, label_divisor=divisor, max_instances=12
        )
    )(concat.astype(np.int32), alone.astype(np.int32))


@pytest.mark.parametrize(
    "name", [name for name in CASES if name.startswith("vip_stitch")]
)
def test_stitched_ids_are_the_published_ones(name: str) -> None:
    case = CASES[name]
    concat, alone = case.inputs["concat_panoptic"], case.inputs["next_panoptic"]
    divisor = case.config["label_divisor"]
    things = [c for c in range(30) if c not in (0, 2, 8)]
    found = stitch(concat, alone, things, divisor)
    np.testing.assert_array_equal(found, case.outputs["tf_stitched"])


def test_stitched_ids_of_random_frames_are_the_same() -> None:
    rng = np.random.default_rng(2)
    ids = [0, 7000, 11000, *range(11001, 11005), *range(13001, 13005), 255000]
    function = tf.function(
        lambda a, b: postprocess.stitch(
            a, b, thing_ids=(13, 11), label_divisor=1000, max_instances=8
        )
    )
    for _ in range(20):
        concat, alone = rng.choice(ids, (2, 4, 5)).astype(np.int32)
        expected = panoptic.stitch(concat, alone, label_divisor=1000).panoptic
        np.testing.assert_array_equal(function(concat, alone), expected)


def test_stitching_refuses_ids_that_do_not_fit() -> None:
    for concat, alone in ((5, 7), (7, 5)):
        with pytest.raises(tf.errors.InvalidArgumentError):
            stitch(np.array([[concat]]), np.array([[alone]]), [1], 4)


@pytest.mark.parametrize("merge_semantics", ["tf", "op"])
def test_two_frames_become_the_same_maps(merge_semantics: str) -> None:
    rng = np.random.default_rng(3)
    settings = MergeSettings((1, 3), 100, 9, nms_kernel=3, stuff_area_limit=20)
    pair = [
        Heads(
            rng.normal(size=(5, 6, 4)).astype(np.float32),
            rng.uniform(size=(5, 6)).astype(np.float32),
            rng.normal(size=(5, 6, 2)).astype(np.float32),
        )
        for _ in range(2)
    ]
    next_offsets = rng.normal(size=(5, 6, 2)).astype(np.float32)
    options: dict[str, Any] = {
        "canvas": (13, 16),
        "settings": settings,
        "merge_semantics": merge_semantics,
    }
    expected = panoptic.merge_two_frames(pair[0], next_offsets, pair[1], **options)
    named = [
        {
            keys.SEMANTIC_LOGITS: heads.semantic_logits,
            keys.CENTER_HEATMAP: heads.center_heatmap,
            keys.OFFSET_MAP: heads.offset_map,
        }
        for heads in pair
    ]
    found = tf.function(
        lambda current, offsets, following: postprocess.merge_two_frames(
            current, offsets, following, **options
        )
    )(named[0], next_offsets, named[1])
    for name, wanted in (
        ("panoptic", expected.current.panoptic),
        ("concat_next", expected.concat_next),
        ("next_before_stitching", expected.next_frame.panoptic),
        ("next_panoptic", expected.next_panoptic),
    ):
        np.testing.assert_array_equal(found[name], wanted, name)
