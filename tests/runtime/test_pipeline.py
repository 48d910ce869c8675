"""Frames worked on at once: in order, bounded, none lost, and always ended."""

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab2_edge import PanopticSegmenter
from deeplab2_edge.runtime.clips import ClipSegmenter, TrackingSegmenter
from deeplab2_edge.runtime.pipeline import FramePipeline
from deeplab2_edge.runtime.sources import Frame
from tests.runtime.tiny_model import INT8_MODEL, draw_scene

SECONDS = 10.0  # for what must happen at once; long enough for a busy machine


class Steps:
    """Is a segmenter whose stages say what they do and do what a test says.

    A result is the number that its frame is painted with.
    """

    name = "steps"
    keeps_ids = False

    def __init__(
        self,
        *,
        look: Callable[[int], object] = id,
        finish: Callable[[int], object] = id,
        has_stages: bool = True,
    ) -> None:
        self.has_stages = has_stages
        self.threads: dict[str, str] = {}
        self._look = look
        self._finish = finish

    def look(self, image: NDArray[np.uint8]) -> int:
        self.threads["look"] = threading.current_thread().name
        number = int(image[0, 0, 0])
        self._look(number)
        return number

    def finish_video(self, seen: Iterable[int]) -> Iterator[int]:
        for number in seen:
            self.threads["finish"] = threading.current_thread().name
            self._finish(number)
            yield number

    def segment_video(self, frames: Iterable[NDArray[np.uint8]]) -> Iterator[int]:
        """Reads one frame ahead, as models of two frames do."""
        coming = iter(frames)
        image = next(coming, None)
        while image is not None:
            following = next(coming, None)
            self.threads["segment"] = threading.current_thread().name
            yield int(image[0, 0, 0])
            image = following


def frames(count: int, *, height: int = 2) -> Iterator[Frame]:
    for number in range(count):
        yield Frame(np.full((height, 2, 3), number, np.uint8), number, 0.0)


def pipeline(read: Iterable[Frame], steps: Steps, **options: Any) -> FramePipeline:
    return FramePipeline(read, cast(ClipSegmenter, steps), **options)


def numbers(results: FramePipeline) -> list[int]:
    taken = []
    for frame, result in results:
        assert frame.index == cast(int, result)
        taken.append(frame.index)
    return taken


def own_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("deeplab2-edge")]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    deadline = time.monotonic() + SECONDS
    while own_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not own_threads()


@pytest.mark.parametrize("has_stages", [True, False])
@pytest.mark.parametrize("overlap", [True, False])
def test_results_come_in_order_and_none_is_lost(
    overlap: bool, has_stages: bool
) -> None:
    steps = Steps(has_stages=has_stages)
    with pipeline(frames(50), steps, overlap=overlap) as results:
        assert numbers(results) == list(range(50))
    assert results.num_skipped == 0
    assert not results.is_stuck
    here = threading.current_thread().name
    assert all((name != here) == overlap for name in steps.threads.values())
    assert len(set(steps.threads.values())) == (2 if overlap and has_stages else 1)


def test_overlapped_results_equal_those_of_one_frame_after_the_other() -> None:
    scenes = [np.roll(draw_scene(), 3 * n, axis=1) for n in range(6)]
    segmenter = PanopticSegmenter(INT8_MODEL, num_threads=1)
    expected = [segmenter(scene) for scene in scenes]
    read = (Frame(scene, n, 0.0) for n, scene in enumerate(scenes))
    with FramePipeline(read, segmenter) as results:
        for (frame, found), wanted in zip(results, expected, strict=True):
            assert frame.image is found.image
            assert found.to_dict()["segments"] == wanted.to_dict()["segments"]
            np.testing.assert_array_equal(found.panoptic, wanted.panoptic)
            assert set(found.timings_ms) == {"preprocess", "network", "merge"}


def test_the_network_sees_the_next_frame_while_the_last_is_finished() -> None:
    has_seen_the_next = threading.Event()

    def look(number: int) -> None:
        if number == 1:
            has_seen_the_next.set()

    def finish(number: int) -> None:
        if number == 0:
            assert has_seen_the_next.wait(SECONDS)

    with pipeline(frames(2), Steps(look=look, finish=finish)) as results:
        assert numbers(results) == [0, 1]


def test_a_file_waits_for_a_slow_taker() -> None:
    read: list[int] = []

    def counted() -> Iterator[Frame]:
        for frame in frames(100):
            read.append(frame.index)
            yield frame

    with pipeline(counted(), Steps()) as results:
        next(iter(results))
        last = -1
        while last != len(read):  # until nothing moves any more
            last = len(read)
            time.sleep(0.1)
        # Three stages, each with one frame in hand and one waiting behind it, and the
        # frame that was taken.
        assert len(read) <= 7


def _while_the_network_is_busy(budget_ms: float, wait: float) -> FramePipeline:
    """Lets five live frames arrive while the network is at work on one before."""
    has_first = threading.Event()
    have_all = threading.Event()

    def live() -> Iterator[Frame]:
        for frame in frames(6):
            yield frame
            if frame.index == 0:
                assert has_first.wait(SECONDS)
        time.sleep(wait)
        have_all.set()

    def look(number: int) -> None:
        if number == 0:
            has_first.set()
            assert have_all.wait(SECONDS)

    return pipeline(live(), Steps(look=look), budget_ms=budget_ms)


def test_live_frames_within_the_budget_are_all_seen() -> None:
    with _while_the_network_is_busy(60_000, wait=0.0) as results:
        assert numbers(results) == [0, 1, 2, 3, 4, 5]
    assert results.num_skipped == 0


def test_of_live_frames_beyond_the_budget_the_newest_is_seen() -> None:
    with _while_the_network_is_busy(20, wait=0.05) as results:
        assert numbers(results) == [0, 5]
    assert results.num_skipped == 4


def test_a_generous_budget_does_not_fill_the_memory() -> None:
    has_first, have_all = threading.Event(), threading.Event()

    def live() -> Iterator[Frame]:
        for frame in frames(100):
            yield frame
            if frame.index == 0:
                assert has_first.wait(SECONDS)
        have_all.set()

    def look(number: int) -> None:
        has_first.set()
        assert have_all.wait(SECONDS)

    with pipeline(live(), Steps(look=look), budget_ms=60_000) as results:
        assert numbers(results) == [0, *range(92, 100)]
    assert results.num_skipped == 91


class Broken(Exception):
    pass


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("stage", ["read", "look", "finish"])
def test_an_error_of_any_stage_comes_after_the_results_before_it(
    stage: str, overlap: bool
) -> None:
    error = Broken(stage)
    is_released = []

    def fail(number: int) -> None:
        if number == 3:
            raise error

    def read() -> Iterator[Frame]:
        try:
            for frame in frames(100):
                if stage == "read":
                    fail(frame.index)
                yield frame
        finally:
            is_released.append(True)

    hooks = {stage: fail} if stage != "read" else {}
    taken = []
    with (
        pytest.raises(Broken) as caught,
        pipeline(read(), Steps(**hooks), overlap=overlap) as results,
    ):
        for frame, _ in results:
            taken.append(frame.index)
    assert caught.value is error
    assert taken == [0, 1, 2]
    assert is_released == [True]


def test_a_model_that_reads_ahead_gives_what_it_has_before_the_error() -> None:
    def read() -> Iterator[Frame]:
        yield from frames(3)
        raise Broken

    taken = []
    steps = Steps(has_stages=False)
    with pytest.raises(Broken), pipeline(read(), steps) as results:
        for frame, _ in results:
            taken.append(frame.index)
    assert taken == [0, 1, 2]


@pytest.mark.parametrize("overlap", [True, False])
def test_leaving_early_ends_every_stage_and_releases_the_source(overlap: bool) -> None:
    is_released = threading.Event()

    def endless() -> Iterator[Frame]:
        try:
            for number in itertools.count():
                yield Frame(np.zeros((2, 2, 3), np.uint8), number, 0.0)
        finally:
            is_released.set()

    with pipeline(endless(), Steps(), overlap=overlap) as results:
        for frame, _ in results:
            if frame.index == 5:
                break
    assert is_released.wait(SECONDS)
    assert not results.is_stuck


@pytest.mark.parametrize("stage", ["read", "look", "finish"])
def test_a_stop_is_heard_while_any_stage_is_busy(stage: str) -> None:
    is_busy, may_go_on, should_stop = (threading.Event() for _ in range(3))

    def block(number: int) -> None:
        if number == 2:
            is_busy.set()
            may_go_on.wait(SECONDS)

    def read() -> Iterator[Frame]:
        for frame in frames(5):
            if stage == "read":
                block(frame.index)
            yield frame

    hooks = {stage: block} if stage != "read" else {}
    taken = []
    with pipeline(read(), Steps(**hooks), should_stop=should_stop.is_set) as results:
        for frame, _ in results:
            taken.append(frame.index)
            if frame.index == 1:
                assert is_busy.wait(SECONDS)
                threading.Timer(0.1, should_stop.set).start()
                start = time.monotonic()
    assert time.monotonic() - start < 2.5  # a second, on a busy machine
    assert taken == [0, 1]
    assert results.is_stuck  # what blocks is left behind
    may_go_on.set()


def test_frames_of_another_size_begin_a_new_video_for_a_tracker() -> None:
    segmenter = TrackingSegmenter(PanopticSegmenter(INT8_MODEL, num_threads=1))
    scenes = [draw_scene(), draw_scene()[:60], draw_scene()[:60]]
    read = (Frame(scene, n, 0.0) for n, scene in enumerate(scenes))
    with FramePipeline(read, segmenter) as results:
        ids = [[s.id for s in result.segments] for _, result in results]
    assert ids == [[0, 10_000, 20_001, 20_002]] * 3


def _resident_bytes() -> int:
    (line,) = (
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmRSS")
    )
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_memory_does_not_grow(count: int) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells how much memory a process has")
    segmenter = TrackingSegmenter(PanopticSegmenter(INT8_MODEL, num_threads=1))
    scene = draw_scene()
    read = (Frame(scene.copy(), number, 0.0) for number in range(count))
    sizes = []
    with FramePipeline(read, segmenter) as results:
        for frame, result in results:
            result.overlay()
            if frame.index % (count // 10) == 0:
                sizes.append(_resident_bytes())
    # The first tenth warms up. A frame with its maps and overlay has 110 kB: if each
    # were kept, even the short test would gain 30 MB.
    assert max(sizes[2:]) - sizes[1] < 4 * 2**20, sizes
