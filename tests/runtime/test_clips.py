"""Videos frame by frame: sessions, tracking, and cuts to another scene."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.families import MOTION, TWO_FRAMES
from deeplab2_edge.model_file import InputSpec, ModelMetadata, OutputSpec
from deeplab2_edge.panoptic import MaskTrackingSettings
from deeplab2_edge.runtime import PanopticResult, PanopticSegmenter
from deeplab2_edge.runtime.clips import (
    ClipSegmenter,
    TrackingSegmenter,
    VideoSession,
    track_results,
)
from deeplab2_edge.runtime.engine import open_engine
from deeplab2_edge.runtime.results import result_from_maps
from deeplab2_edge.runtime.tracking import TrackingOptions
from tests.runtime.tiny_model import CANVAS, INT8_MODEL, draw_scene, tiny_metadata

Image = NDArray[np.uint8]
HEAD = (17, 33, 2)


class VideoEngine:
    """Runs the tiny network as one that follows what does not move."""

    is_integer = True

    def __init__(self, family: str) -> None:
        self._engine = open_engine(INT8_MODEL, num_threads=1)
        self._key = {
            MOTION: keys.FRAME_OFFSET_MAP,
            TWO_FRAMES: keys.NEXT_OFFSET_MAP,
        }[family]
        outputs = dict(self._engine.metadata.outputs)
        outputs[self._key] = OutputSpec(self._key, HEAD)
        self.metadata: ModelMetadata = tiny_metadata(
            family=family,
            meta_architecture="video",
            inputs={keys.IMAGE: InputSpec("image", (*CANVAS, 3), dtype="uint8")},
            outputs=outputs,
        )
        self.previous: list[bool] = []

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        image = inputs[keys.IMAGE]
        if keys.PREVIOUS_HEATMAP in inputs:
            same = np.array_equal(inputs[keys.PREVIOUS_IMAGE], image)
            self.previous.append(bool(inputs[keys.PREVIOUS_HEATMAP].any()) or not same)
        found = self._engine.run({keys.IMAGE: image})
        # Nothing moves: the last frame's centers are where those of this one are.
        still = {MOTION: np.zeros(HEAD, np.float32)}
        found[self._key] = still.get(self.metadata.family, found[keys.OFFSET_MAP])
        return found


def elsewhere(scene: Image) -> Image:
    """Gives another scene with the same cars: stripes above and below."""
    stripes = np.where(np.arange(scene.shape[1]) // 7 % 2, 255, 0)[:, np.newaxis]
    other = scene.copy()
    other[:30, :, 1:], other[54:, :, 1:] = stripes, 255 - stripes
    return other


def cars(result: PanopticResult) -> list[int]:
    """Gives the numbers of the cars, the left one first."""
    things = [s for s in result.segments if s.is_thing]
    return [s.id % 10_000 for s in sorted(things, key=lambda s: s.box_xyxy)]


def open_segmenter(kind: str) -> ClipSegmenter:
    if kind == "motion":
        return PanopticSegmenter(VideoEngine(MOTION))
    if kind == "two frames":
        return PanopticSegmenter(VideoEngine(TWO_FRAMES))
    plain = PanopticSegmenter(INT8_MODEL, num_threads=1)
    return TrackingSegmenter(plain) if kind == "tracked" else plain


@pytest.mark.parametrize("kind", ["plain", "tracked", "motion", "two frames"])
def test_a_session_gives_what_a_whole_video_gives(kind: str) -> None:
    segmenter = open_segmenter(kind)
    frames = [np.roll(draw_scene(), 3 * n, axis=1) for n in range(4)]
    session = VideoSession(segmenter)
    for _ in range(2):  # the second video begins anew
        results = [session(frame) for frame in frames]
        ahead = kind == "two frames"
        assert (results[0] is None) == ahead
        results = [*results[ahead:], *([session.flush()] if ahead else [])]
        assert session.flush() is None
        whole = list(segmenter.segment_video(frames))
        for frame, one, other in zip(frames, results, whole, strict=True):
            assert one is not None and one.image is frame
            np.testing.assert_array_equal(one.panoptic, other.panoptic)


def test_one_frame_alone_is_a_video() -> None:
    session = VideoSession(open_segmenter("two frames"))
    assert session(draw_scene()) is None
    last = session.flush()
    assert last is not None and cars(last) == [1, 2]


@pytest.mark.parametrize("kind", ["tracked", "motion", "two frames"])
def test_instances_keep_their_ids_until_a_reset(kind: str) -> None:
    session = VideoSession(open_segmenter(kind))
    results = [session(draw_scene()) for _ in range(3)]
    assert [cars(r) for r in results if r is not None][-1] == [1, 2]
    session.reset()
    again = [session(draw_scene()[:, ::-1].copy()) for _ in range(2)]
    found = again[-1]
    assert found is not None and sorted(cars(found)) == [1, 2]


@pytest.mark.parametrize("kind", ["tracked", "motion", "two frames"])
def test_no_instance_is_followed_over_a_cut(kind: str) -> None:
    scene = draw_scene()
    other = elsewhere(scene)
    segmenter = open_segmenter(kind)
    frames = [scene, scene, other, other, scene]
    found = [cars(result) for result in segmenter.segment_video(frames)]
    # Where the cars are is the same in all frames; their ids are never used again.
    assert found == [[1, 2], [1, 2], [3, 4], [3, 4], [5, 6]]


def test_motion_forgets_the_frame_before_a_cut() -> None:
    engine = VideoEngine(MOTION)
    frames = [draw_scene(), draw_scene(), elsewhere(draw_scene())]
    list(PanopticSegmenter(engine).segment_video(frames))
    assert engine.previous == [False, True, False]


def test_a_camera_that_stands_still_resets_nothing() -> None:
    for kind in ("tracked", "motion", "two frames"):
        found = [
            cars(r) for r in open_segmenter(kind).segment_video([draw_scene()] * 3)
        ]
        assert found == [[1, 2]] * 3


def test_cuts_can_be_ignored() -> None:
    plain = PanopticSegmenter(INT8_MODEL, num_threads=1)
    segmenter = TrackingSegmenter(plain, TrackingOptions(finds_cuts=False))
    frames = [draw_scene(), elsewhere(draw_scene())]
    assert [cars(r) for r in segmenter.segment_video(frames)] == [[1, 2], [1, 2]]


def test_a_session_begins_anew_after_an_error() -> None:
    session = VideoSession(open_segmenter("motion"))
    session(draw_scene())
    with pytest.raises(DataError):
        session(np.zeros((4, 4), np.uint8))
    result = session(draw_scene())
    assert result is not None and cars(result) == [1, 2]


def test_frames_of_another_size_are_refused() -> None:
    session = VideoSession(open_segmenter("tracked"))
    session(draw_scene())
    with pytest.raises(UsageError, match="another size"):
        session(draw_scene()[:60])
    assert session(draw_scene()[:60]) is not None


def results_of(maps: Iterable[NDArray[np.int32]]) -> Iterator[PanopticResult]:
    metadata = tiny_metadata()
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*CANVAS, 3), np.uint8)
    for panoptic in maps:
        yield result_from_maps(image, panoptic, metadata)


def test_tracking_changes_ids_and_nothing_else() -> None:
    first = np.zeros(CANVAS, np.int32)
    first[:20], first[50:], first[30:40, 10:40] = 1000, 255_000, 2007
    first[30:40, 60:90], first[0, 0] = 2003, 2000  # a thing without instance
    second = np.roll(first, 2, axis=1)
    second[second == 2007] = 2001
    before, after = track_results(results_of([first, second]))
    assert [s.id for s in before.segments] == [0, 10_000, 20_000, 20_001, 20_002]
    np.testing.assert_array_equal(np.roll(before.panoptic, 2, axis=1), after.panoptic)
    assert np.unique(after.panoptic).tolist()[-1] == 2_550_000
    assert after.metadata.label_divisor == 10_000
    (plain, _) = results_of([first, second])
    for one, other in zip(
        sorted(plain.segments, key=lambda s: s.box_xyxy),
        sorted(before.segments, key=lambda s: s.box_xyxy),
        strict=True,
    ):
        np.testing.assert_array_equal(one.mask, other.mask)
        assert (one.area_px, one.score) == (other.area_px, other.score)
    assert "track" in before.timings_ms


def test_large_divisors_are_followed_as_well() -> None:
    first = np.zeros(CANVAS, np.int32)
    first[30:40, 10:40] = 2007
    options = TrackingOptions(MaskTrackingSettings(max_number=7_999_999))
    (result,) = track_results(results_of([first]), options)
    assert [s.id for s in result.segments] == [0, 16_000_001]
    (again,) = track_results([result], options)
    assert np.unique(again.panoptic).tolist() == [0, 16_000_001]


def test_numbers_that_make_too_large_ids_are_refused() -> None:
    options = TrackingOptions(MaskTrackingSettings(max_number=8_388_607))
    with pytest.raises(UsageError, match="at most 8388606"):
        list(track_results(results_of([np.zeros(CANVAS, np.int32)]), options))


def test_sessions_take_any_segmenter() -> None:
    class Numbers:
        num_frames_ahead = 1

        def segment_video(self, frames: Iterable[Image]) -> Iterator[int]:
            last = None
            for frame in frames:
                if last is not None:
                    yield last
                last = int(frame[0])
            if last is not None:
                yield last

    session = VideoSession(cast(ClipSegmenter, Numbers()))
    found = [session(np.array([n], np.uint8)) for n in range(4)]
    assert found == [None, 0, 1, 2] and session.flush() == 3
    assert session.flush() is None
