"""The newest frame: how fast frames come, and what becomes of them."""

import time

import pytest

from deeplab2_edge.runtime.serve.newest import Newest, without_secrets
from tests.runtime.serve.scenes import make_result


@pytest.mark.parametrize(
    ("times", "fps", "state"),
    [
        ([], None, "waiting"),
        ([9.9], None, "running"),
        ([9.0, 9.5, 10.0], 2.0, "running"),
        # What was long ago does not count, unless there is nothing else.
        ([0.0, 0.1, 0.2, 9.0, 9.5, 10.0], 2.0, "running"),
        ([0.0, 8.0], 1 / 8, "running"),
        ([10.0, 10.0], None, "running"),
        ([4.0, 4.5], 2.0, "stalled"),
        # Slow sources are given time: five of their gaps.
        ([0.0, 2.5], 1 / 2.5, "running"),
    ],
)
def test_speed_and_state(
    monkeypatch: pytest.MonkeyPatch,
    times: list[float],
    fps: float | None,
    state: str,
) -> None:
    newest = Newest(max_fps=10, jpeg_quality=80, max_side_px=100)
    result = make_result(1)
    for now in times:
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        newest.put(result, result.image, "test", 0)
    monkeypatch.setattr(time, "monotonic", lambda: 10.0)
    assert newest.fps == pytest.approx(fps)
    assert newest.state == state
    newest.close()


def test_new_frames_are_handed_out_at_intervals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    newest = Newest(max_fps=10, jpeg_quality=80, max_side_px=100)
    result = make_result(1)
    handed_out = []
    for tick in range(40):
        monkeypatch.setattr(time, "monotonic", lambda tick=tick: tick * 0.02)
        newest.put(result, result.image, "test", tick)
        frame = newest.current()
        assert frame is not None
        handed_out.append(frame.index)
    assert handed_out[:11] == [0] * 5 + [5] * 5 + [10]
    newest.close()


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("0", "0"),
        ("videos/a?b@c.mp4", "videos/a?b@c.mp4"),
        ("rtsp://camera/1", "rtsp://camera/1"),
        ("rtsp://me:secret@camera:554/1", "rtsp://camera:554/1"),
        ("rtsp://me:se/cr@et@camera/1?key=hidden@x", "rtsp://x"),
        ("http://camera/1?key=hidden", "http://camera/1"),
    ],
)
def test_addresses_are_shown_without_secrets(source: str, shown: str) -> None:
    assert without_secrets(source) == shown
