"""`deeplab2-edge run`: where results go, and what is kept when a source fails."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from deeplab2_edge.cli import main
from deeplab2_edge.images import encode_png, read_image, write_png
from deeplab2_edge.runtime.video import open_video
from tests.runtime.tiny_model import CANVAS, FLOAT_MODEL, INT8_MODEL, draw_scene

MODEL = str(INT8_MODEL)
RAW = ["-", "--raw-size", f"{CANVAS[0]}x{CANVAS[1]}", "--raw-format", "rgb24"]


def run_piped(data: bytes, *words: str) -> "subprocess.CompletedProcess[bytes]":
    code = (
        "import sys; from deeplab2_edge.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    return subprocess.run(
        [sys.executable, "-c", code, "run", MODEL, *words],
        input=data,
        capture_output=True,
        timeout=180,
        check=False,
    )


def frames_of(video: Path) -> list[Any]:
    capture = cv2.VideoCapture(str(video))
    frames = []
    while True:
        is_read, frame = capture.read()
        if not is_read:
            return frames
        frames.append(frame)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_frames_of_a_pipe_are_segmented_like_images(tmp_path: Path) -> None:
    image = tmp_path / "scene.png"
    write_png(image, draw_scene())
    out = tmp_path / "out"
    done = run_piped(draw_scene().tobytes() * 3, *RAW, "--output", str(out), "--quiet")
    assert done.returncode == 0, done.stderr
    assert main(["run", MODEL, str(image), "--output", str(out), "--quiet"]) == 0
    expected = json.loads((out / "scene.json").read_text())["segments"]
    lines = lines_of(out / "stdin.jsonl")
    assert [line["frame"] for line in lines] == [0, 1, 2]
    assert all(line["segments"] == expected for line in lines)
    assert len(frames_of(out / "stdin_overlay.mp4")) == 3


def test_sizes_that_change_go_on_and_the_video_keeps_the_first(tmp_path: Path) -> None:
    scene = draw_scene()
    data = b"".join(encode_png(image) for image in (scene, scene[:60], scene[:50]))
    done = run_piped(data, "-", "--output", str(tmp_path / "out"), "--track")
    assert done.returncode == 0, done.stderr
    lines = lines_of(tmp_path / "out" / "stdin.jsonl")
    assert [line["image_size"] for line in lines] == [[65, 129], [60, 129], [50, 129]]
    shapes = {f.shape for f in frames_of(tmp_path / "out" / "stdin_overlay.mp4")}
    assert len(shapes) == 1
    note = done.stderr.decode()
    assert note.count("the videos keep the first size") == 1
    assert "from frame 1 on the images have 60x129 pixels, before 65x129" in note


def test_a_pipe_closed_within_a_frame_keeps_what_came_before(tmp_path: Path) -> None:
    data = draw_scene().tobytes()
    out = tmp_path / "out"
    done = run_piped(data * 2 + data[:99], *RAW, "--output", str(out))
    assert done.returncode == 2
    error = done.stderr.decode()
    assert "stdin: ends within frame 2" in error
    assert error.count("\n") == 1
    assert len(lines_of(out / "stdin.jsonl")) == 2
    assert len(frames_of(out / "stdin_overlay.mp4")) == 2
    assert "2 images in" in done.stdout.decode()


def test_a_pipe_with_nothing_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run_piped(b"", *RAW, "--output", str(out))
    assert done.returncode == 2
    assert b"stdin: no frame can be read from this pipe" in done.stderr
    assert list(out.iterdir()) == []


def test_a_video_cut_short_keeps_what_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cut.avi"
    with open_video(path, 10.0) as writer:
        for shade in range(60):
            writer.write(np.full((64, 96, 3), shade, np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    out = tmp_path / "out"
    assert main(["run", MODEL, str(path), "--output", str(out), "--quiet"]) == 2
    lines = lines_of(out / "cut.jsonl")
    assert len(lines) > 10
    assert len(frames_of(out / "cut_overlay.mp4")) == len(lines)
    assert f"ends after {len(lines)} of 60 frames" in capsys.readouterr().err


def test_a_model_swapped_while_running_changes_nothing(tmp_path: Path) -> None:
    model = tmp_path / "model.tflite"
    model.write_bytes(INT8_MODEL.read_bytes())
    code = (
        "import sys; from deeplab2_edge.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    out = tmp_path / "out"
    words = ["run", str(model), *RAW, "--output", str(out), "--no-overlay"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *words], stdin=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        process.stdin.write(draw_scene().tobytes())
        process.stdin.flush()
        while not any(p.stat().st_size for p in out.glob(".stdin.*")):
            assert process.poll() is None
        model.write_bytes(FLOAT_MODEL.read_bytes()[:1000])  # in place, and damaged
        process.stdin.write(draw_scene().tobytes() * 5)
        process.stdin.close()
        assert process.wait(180) == 0
    segments = [line["segments"] for line in lines_of(out / "stdin.jsonl")]
    assert len(segments) == 6
    assert all(found == segments[0] for found in segments)


def _numpy_has_no_memory() -> None:
    np.empty(1 << 50, np.uint8).fill(1)


def _opencv_has_no_memory() -> None:
    cv2.resize(np.zeros((1, 1), np.uint8), (1 << 29, 1 << 29))


@pytest.mark.parametrize("fill", [_numpy_has_no_memory, _opencv_has_no_memory])
def test_a_full_memory_is_one_line(
    fill: Callable[[], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from deeplab2_edge.runtime.segmenter import PanopticSegmenter

    finish, calls = PanopticSegmenter.finish, []

    def full(self: PanopticSegmenter, seen: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            fill()
        return finish(self, seen)

    monkeypatch.setattr(PanopticSegmenter, "finish", full)
    path = tmp_path / "drive.avi"
    with open_video(path, 10.0) as writer:
        for _ in range(5):
            writer.write(draw_scene())
    out = tmp_path / "out"
    assert main(["run", MODEL, str(path), "--output", str(out), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert "the memory is full" in error
    assert error.count("\n") == 1
    assert len(lines_of(out / "drive.jsonl")) == 2
    assert len(frames_of(out / "drive_overlay.mp4")) == 2


def test_a_full_disk_keeps_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deeplab2_edge.errors import OutputError
    from deeplab2_edge.runtime import PanopticSegmenter
    from deeplab2_edge.runtime.sinks import Done, JsonLines, closing
    from deeplab2_edge.runtime.sources import Frame

    resource = pytest.importorskip("resource", reason="limits of files need Unix")
    result = PanopticSegmenter(INT8_MODEL)(draw_scene())
    done = Done(Frame(result.image, 0, 0.0, "x", "x"), result)
    sink = JsonLines(tmp_path / "x.jsonl")
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        # No file may grow beyond 5000 bytes: the disk is full after some lines.
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, former[1]))
        with pytest.raises(OutputError, match="lines before this one"), closing([sink]):
            for _ in range(100):
                sink.write(done)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
        signal.signal(signal.SIGXFSZ, handler)
    lines = lines_of(tmp_path / "x.jsonl")
    assert len(lines) > 1
    assert all(line["segments"] for line in lines)


def test_coco_is_one_data_set_of_images_and_videos(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_png(folder / "a.png", draw_scene())
    video = tmp_path / "drive.avi"
    with open_video(video, 10.0) as writer:
        for _ in range(2):
            writer.write(draw_scene())
    out = tmp_path / "out"
    words = ["run", MODEL, str(folder), str(video), "--output", str(out), "--quiet"]
    assert main([*words, "--save", "coco,instances"]) == 0
    assert sorted(p.name for p in out.iterdir()) == [
        "a_instances.png",
        "drive.jsonl",
        "drive_instances.mp4",
        "panoptic",
        "panoptic.json",
    ]
    document = json.loads((out / "panoptic.json").read_text())
    assert [c["name"] for c in document["categories"]] == ["sky", "road", "car"]
    assert [c["isthing"] for c in document["categories"]] == [0, 0, 1]
    assert [i["id"] for i in document["images"]] == [1, 2, 3]
    assert document["images"][0] == {
        "id": 1,
        "file_name": "a.png",
        "height": 65,
        "width": 129,
    }
    names = [a["file_name"] for a in document["annotations"]]
    assert names == ["a.png", "drive/000000.png", "drive/000001.png"]
    for annotation in document["annotations"]:
        png = read_image(out / "panoptic" / annotation["file_name"]).astype(int)
        ids = png[..., 0] + 256 * png[..., 1] + 65536 * png[..., 2]
        for segment in annotation["segments_info"]:
            assert (ids == segment["id"]).sum() == segment["area"]
        assert set(np.unique(ids)) <= {
            0,
            *(s["id"] for s in annotation["segments_info"]),
        }


def test_coco_alone_draws_nothing_and_an_error_leaves_no_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "a.png"
    write_png(image, draw_scene())
    out = tmp_path / "out"
    words = ["run", MODEL, "--output", str(out), "--quiet", "--save", "coco"]
    assert main([*words, str(image)]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["panoptic", "panoptic.json"]
    (out / "panoptic.json").unlink()
    image.write_bytes(image.read_bytes()[:99])
    assert main([*words, str(image)]) == 2
    assert [p.name for p in out.iterdir()] == ["panoptic"]


def test_serve_shows_the_newest_frame_and_writes_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from deeplab2_edge.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["run", MODEL, *RAW, "--serve", "0"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *words],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        match = re.search(r"live view: (\S+)", process.stderr.readline().decode())
        assert match is not None
        assert match[1].startswith("http://127.0.0.1:")
        process.stdin.write(draw_scene().tobytes() * 2)
        process.stdin.flush()
        with urllib.request.urlopen(match[1], timeout=20) as page:
            assert page.status == 200
            assert b"<html" in page.read().lower()
        process.stdin.close()
        assert process.wait(180) == 0
        assert b"2 images in" in process.stdout.read()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--token", "abcdefghijklmnop"], "--token goes with --serve"),
        (["--serve", "nowhere"], "no address to serve at"),
        (["--serve", "0.0.0.0:0"], "needs a token"),
        (["--latency-budget", "-1"], "--latency-budget is -1"),
        (["--latency-budget", "50"], "of files no frame is skipped"),
        (["--output", "/proc"], "/proc"),
    ],
)
def test_outputs_that_cannot_be_are_refused_before_the_first_image(
    words: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image = tmp_path / "a.png"
    write_png(image, draw_scene())
    assert main(["run", MODEL, str(image), *words]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_live_pipe_skips_what_is_older_than_the_budget(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [*RAW, "--json", "--latency-budget", "0", "--output", str(out)]
    done = run_piped(draw_scene().tobytes() * 300, *words, "--limit", "299")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    frames = [result["frame"] for result in document["results"]]
    assert all({"wait", "decode"} <= set(r["timings_ms"]) for r in document["results"])
    assert next(iter(document["summary"]["mean_ms"])) == "wait"
    skipped = document["summary"]["skipped"]
    assert skipped > 0
    assert frames == sorted(set(frames))
    assert frames[-1] == 299  # the newest is always seen
    assert len(frames) + skipped == 300
    assert [line["frame"] for line in lines_of(out / "stdin.jsonl")] == frames


def test_show_without_a_screen_says_what_to_do(tmp_path: Path) -> None:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("DISPLAY", "WAYLAND_DISPLAY")
    }
    code = (
        "import sys; from deeplab2_edge.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    image = tmp_path / "a.png"
    write_png(image, draw_scene())
    done = subprocess.run(
        [sys.executable, "-c", code, "run", MODEL, str(image), "--show"],
        capture_output=True,
        timeout=180,
        env=environment,
        check=False,
    )
    assert done.returncode == 2
    assert b"--show: " in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.fixture
def screen() -> Iterator[dict[str, str]]:
    """Gives an environment with a screen that nobody sees."""
    if not (shutil.which("Xvfb") and shutil.which("xdotool")):
        pytest.skip("install Xvfb and xdotool to press keys in a window")
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", "1", "-screen", "0", "640x480x24"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert server.stdout is not None
        number = server.stdout.readline().decode().strip()
        yield {**os.environ, "DISPLAY": f":{number}"}
    finally:
        server.terminate()
        server.wait()


@pytest.mark.slow
def test_a_key_goes_on_to_the_next_image_and_q_ends(
    tmp_path: Path, screen: dict[str, str]
) -> None:
    for name in "abc":
        write_png(tmp_path / f"{name}.png", draw_scene())
    code = (
        "import sys; from deeplab2_edge.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["run", MODEL, str(tmp_path), "--show", "--json"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, env=screen
    ) as process:
        find = ["xdotool", "search", "--sync", "--name", "^deeplab2-edge$"]
        found = subprocess.run(find, env=screen, capture_output=True, timeout=180)
        window = found.stdout.split()[0].decode()
        for key in ("n", "q"):
            time.sleep(1)
            press = ["xdotool", "windowfocus", window, "key", key]
            subprocess.run(press, env=screen, check=True, timeout=180)
        printed, _ = process.communicate(timeout=180)
    assert process.returncode == 0
    sources = [Path(r["source"]).name for r in json.loads(printed)["results"]]
    assert sources == ["a.png", "b.png"]


def test_no_thread_outlives_the_command(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    write_png(image, draw_scene())
    assert main(["run", MODEL, str(image), "--json"]) == 0
    assert not [t for t in threading.enumerate() if "deeplab2-edge" in t.name]
