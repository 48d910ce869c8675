"""Streams of the network, from a real server: lost, found again, and never told on."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from deeplab2_edge.errors import DataError
from deeplab2_edge.runtime.sources import open_sources
from deeplab2_edge.runtime.sources.find import hide_credentials
from tests.runtime.tiny_model import draw_scene


@contextlib.contextmanager
def camera(count: int, connections: int) -> Iterator[str]:
    """Starts a server and gives its address, with user and password."""
    words = ["-m", "tests.runtime.mjpeg_server", str(count), str(connections)]
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            yield f"http://me:secret@127.0.0.1:{port}/live?token=hidden"
        finally:
            server.terminate()


def test_a_stream_is_lost_found_again_and_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # One connection looks, one reads, one is made when that is lost.
    with camera(count=40, connections=3) as url:
        (source,) = open_sources([url])
        assert (source.kind, source.num_frames, source.is_live) == (
            "stream",
            None,
            True,
        )
        frames = []
        with pytest.raises(DataError, match="no stream can be opened") as caught:
            for frame in source.frames():
                frames.append(frame)
    assert [frame.index for frame in frames] == list(range(80))
    assert all(frame.wait_ms is not None for frame in frames)
    difference = np.abs(frames[0].image.astype(int) - draw_scene()[:64, :128])
    assert difference.mean() < 5  # lossy
    notes = [record.getMessage() for record in caplog.records]
    assert [note.partition(": ")[2] for note in notes] == [
        f"lost after {count} frames; connecting again" for count in (40, 80)
    ]
    names = (source.name, source.stem, frames[0].source)
    for text in (str(caught.value), *notes, *names):
        assert "secret" not in text
        assert "hidden" not in text
    assert source.stem.startswith("127.0.0.1_")


def test_a_stream_that_is_not_there_is_named() -> None:
    with pytest.raises(DataError, match="no stream can be opened") as caught:
        open_sources(["rtsp://me:secret@127.0.0.1:9/live"])
    assert "rtsp://***@127.0.0.1:9/live" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://10.0.0.7/live", "rtsp://10.0.0.7/live"),
        ("rtsp://a:b@10.0.0.7:554/x?token=1#2", "rtsp://***@10.0.0.7:554/x"),
        ("http://a:p@ss@host", "http://***@host"),
        ("http://host?key=1", "http://host"),
        ("rtsp://user:a/b@host/x", "rtsp://***"),
        ("http://host/x@y", "http://host/x@y"),
    ],
)
def test_addresses_are_shown_without_what_is_secret(url: str, shown: str) -> None:
    assert hide_credentials(url) == shown
