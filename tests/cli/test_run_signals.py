"""`deeplab2-edge run` ended by signals, in a process of its own, whatever it does."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

from tests.runtime.tiny_model import CANVAS, INT8_MODEL, draw_scene

# Runs the command; at the third frame one stage says so and hangs, as a camera or a
# large network may.
_CHILD = """
import sys, time
from deeplab2_edge.cli import main
from deeplab2_edge.runtime.segmenter import PanopticSegmenter
from deeplab2_edge.runtime.views import Artist

count = 0

def hang(method, seconds):
    def hanging(*arguments, **options):
        global count
        count += 1
        if count == 3:
            print("busy", flush=True)
            time.sleep(seconds)
        return method(*arguments, **options)
    return hanging

stage = sys.argv[1]
if stage == "network":
    PanopticSegmenter.look = hang(PanopticSegmenter.look, 30)
elif stage == "merge":
    PanopticSegmenter.finish = hang(PanopticSegmenter.finish, 30)
elif stage == "draw":
    Artist.draw = hang(Artist.draw, 0.5)
elif stage == "open":
    count = 2
    PanopticSegmenter.__init__ = hang(PanopticSegmenter.__init__, 30)
sys.exit(main(sys.argv[2:]))
"""


def _start(stage: str, *words: str) -> "subprocess.Popen[bytes]":
    height, width = CANVAS
    return subprocess.Popen(
        [
            *(sys.executable, "-c", _CHILD, stage, "run", str(INT8_MODEL), "-"),
            *("--raw-size", f"{height}x{width}", "--raw-format", "rgb24"),
            *(*words, "--threads", "1"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize(
    ("stage", "number", "kept"),
    [
        ("open", signal.SIGINT, 0),
        ("open", signal.SIGTERM, 0),
        ("read", signal.SIGTERM, 3),
        ("network", signal.SIGINT, 2),
        ("merge", signal.SIGTERM, 2),
        ("draw", signal.SIGINT, 3),
    ],
)
def test_a_signal_ends_every_stage_soon_and_keeps_whole_files(
    stage: str, number: signal.Signals, kept: int, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with _start(stage, "--output", str(out)) as process:
        assert process.stdin is not None and process.stdout is not None
        # Of what is left open, a fourth frame never comes.
        for _ in range(3 if kept else 0):
            process.stdin.write(draw_scene().tobytes())
        process.stdin.flush()
        if stage == "read":
            _wait_for_lines(out, 3)
        else:
            assert process.stdout.readline() == b"busy\n"
            if kept == 2:
                _wait_for_lines(out, 2)
        start = time.monotonic()
        process.send_signal(number)
        printed = process.stdout.read().decode()
        process.wait(20)
        seconds = time.monotonic() - start
        assert process.stderr is not None
        error = process.stderr.read().decode()

    assert process.returncode == 128 + number
    assert seconds < 3.0  # one, on a busy machine
    assert error.startswith("interrupted")
    assert error.count("\n") == 1
    if not kept:
        assert not out.exists()
        return
    assert f"results of {kept} images are kept" in error
    assert f"results: {out}" in printed
    assert sorted(p.name for p in out.iterdir()) == [
        "stdin.jsonl",
        "stdin_overlay.mp4",
    ]
    lines = (out / "stdin.jsonl").read_text().splitlines()
    assert [json.loads(line)["frame"] for line in lines] == list(range(kept))
    capture = cv2.VideoCapture(str(out / "stdin_overlay.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == kept
    assert capture.read()[0]


def test_a_view_keeps_nothing_and_says_so() -> None:
    with _start("draw", "--serve", "0") as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(draw_scene().tobytes() * 3)
        process.stdin.flush()
        assert process.stdout.readline() == b"busy\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr is not None
        view, end = process.stderr.read().decode().splitlines()
    assert view.startswith("live view: ")
    assert end == "interrupted after 3 images"


def test_a_signal_is_heard_while_a_stream_does_not_answer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        words = ["run", str(INT8_MODEL), f"rtsp://127.0.0.1:{port}/live"]
        with subprocess.Popen(
            [sys.executable, "-c", _CHILD, "", *words],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        ) as process:
            connection, _ = silent.accept()
            with connection:
                start = time.monotonic()
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == 143
            assert time.monotonic() - start < 3.0
            assert process.stderr is not None
            assert process.stderr.read() == b"interrupted\n"
    assert list(tmp_path.iterdir()) == []


def _wait_for_lines(out: Path, count: int) -> None:
    """Waits until the file of lines, under its temporary name, has so many.

    The first may have to wait until the native core is compiled.
    """
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        for path in out.glob(".stdin.*.partial.jsonl"):
            if path.read_bytes().count(b"\n") == count:
                return
        time.sleep(0.02)
    raise AssertionError(f"no {count} lines after 180 s")
