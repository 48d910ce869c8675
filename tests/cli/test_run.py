"""`deeplab2-edge run` as a user meets it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deeplab2_edge.cli import main
from deeplab2_edge.images import read_image, write_png
from deeplab2_edge.runtime.video import open_video
from tests.runtime.tiny_model import INT8_MODEL, draw_scene

MODEL = str(INT8_MODEL)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "scene.png"
    path.parent.mkdir()
    write_png(path, draw_scene())
    return path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "drive.avi"
    with open_video(path, 10.0) as writer:
        for _ in range(3):
            writer.write(draw_scene())
    return path


def test_image_gives_three_files_and_a_summary(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["run", MODEL, str(scene), "--output", str(out), "--threads", "1"]
    assert main(words) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "scene.json",
        "scene_overlay.png",
        "scene_panoptic.png",
    ]
    printed = capsys.readouterr().out
    assert "car" in printed
    assert "1 image in" in printed
    assert "network" in printed
    assert "engine: " in printed and ", 1 thread" in printed
    assert str(out) in printed
    assert read_image(out / "scene_overlay.png").shape == (65, 129, 3)


def test_json_is_one_document_and_writes_nothing(
    scene: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(["run", MODEL, str(scene.parent), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["model"] == "tiny"
    engine = document["engine"]
    assert engine["runtime"] and engine["version"] and engine["threads"] >= 1
    assert engine["fallback_reason"] is None
    assert f"{engine['delegate']}: no other delegate was asked for" in engine["why"]
    (result,) = document["results"]
    assert [s["id"] for s in result["segments"]] == [0, 1000, 2001, 2002]
    assert set(result["timings_ms"]) == {"decode", "preprocess", "network", "merge"}
    assert document["summary"]["images"] == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_video_gives_a_video_and_json_lines(video: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["run", MODEL, str(video), "--output", str(out), "--quiet"]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["drive.jsonl", "drive_overlay.mp4"]
    lines = [
        json.loads(line) for line in (out / "drive.jsonl").read_text().splitlines()
    ]
    assert [line["frame"] for line in lines] == [0, 1, 2]
    assert lines[0]["segments"]


def test_limit_and_no_overlay(video: Path, scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--output", str(out), "--limit", "2", "--no-overlay"]
    assert main(["run", MODEL, str(video), str(scene), *arguments]) == 0
    assert [path.name for path in out.iterdir()] == ["drive.jsonl"]
    assert len((out / "drive.jsonl").read_text().splitlines()) == 2


def test_save_chooses_pictures(scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["run", MODEL, str(scene), "--output", str(out), "--quiet"]
    assert main([*words, "--save", "instances,panel"]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "scene.json",
        "scene_instances.png",
        "scene_panel.png",
        "scene_panoptic.png",
    ]


def test_tracked_instances_keep_their_ids_through_videos_and_folders(
    video: Path, scene: Path, tmp_path: Path
) -> None:
    moved = np.roll(draw_scene(), 8, axis=1)
    write_png(scene.parent / "scene10.png", moved)
    write_png(scene.parent / "scene9.png", np.roll(draw_scene(), 4, axis=1))
    scene.unlink()
    out = tmp_path / "out"
    words = ["run", MODEL, str(scene.parent), str(video), "--output", str(out)]
    assert main([*words, "--track", "--save", "instances", "--quiet"]) == 0
    # The compressed video shows the tiny network no cars.
    for line in (out / "drive.jsonl").read_text().splitlines():
        assert json.loads(line)["label_divisor"] == 10_000
    entries = [json.loads((out / f"scene{n}.json").read_text()) for n in (9, 10)]
    for entry in entries:
        assert [s["id"] for s in entry["segments"]] == [0, 10_000, 20_001, 20_002]
    lefts = [[s["box_xyxy"][0] for s in e["segments"][2:]] for e in entries]
    assert all(left < right for left, right in lefts)
    assert sorted(p.name for p in out.glob("*_instances.*")) == [
        "drive_instances.mp4",
        "scene10_instances.png",
        "scene9_instances.png",
    ]


def test_frames_of_a_tracked_folder_have_one_size(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_png(scene.parent / "t.png", draw_scene()[:-4])
    out = tmp_path / "out"
    words = ["run", MODEL, str(scene.parent), "--output", str(out), "--quiet"]
    assert main([*words, "--track"]) == 2
    error = capsys.readouterr().err
    assert "t.png: has 61x129 pixels, the images before it 65x129" in error
    assert (out / "scene.json").exists()
    assert main(words) == 0  # each by itself


def test_bad_image_among_good_ones_is_reported_and_the_rest_done(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (scene.parent / "bad.png").write_bytes(scene.read_bytes()[:100])
    out = tmp_path / "out"
    assert main(["run", MODEL, str(scene.parent), "--output", str(out)]) == 2
    captured = capsys.readouterr()
    assert "bad.png" in captured.err
    assert "1 could not be read" in captured.out
    assert (out / "scene.json").exists()
    assert not list(out.glob("bad*"))


def _bomb(path: Path) -> None:
    """Writes a PNG header that declares a picture of 60000 x 60000 pixels."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b""))


@pytest.mark.parametrize(
    ("case", "mentions"),
    [
        ("missing", "no such file"),
        ("empty folder", "no images"),
        ("truncated", "damaged"),
        ("text", "not a PNG"),
        ("bomb", "60000x60000"),
        ("bad video", "video"),
        ("output is a file", "folder for results"),
        ("foreign model", "convert"),
        ("truncated model", "cut off"),
        ("no model", "no checkpoint here"),
        ("config of a file", "--config"),
        ("unknown picture", "'pictures'"),
        ("depth of a model without", "no depth"),
        ("camera without points", "--save point-cloud"),
        ("both", "contradict"),
        ("limit", "--limit"),
        ("threads", "num_threads"),
        ("delegate", "delegate"),
    ],
)
def test_wrong_input_is_one_line_exit_code_2_and_nothing_written(
    case: str,
    mentions: str,
    scene: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, image, out = MODEL, str(scene), str(tmp_path / "out")
    extra: list[str] = []
    bad = tmp_path / "bad.png"
    if case == "missing":
        image = str(bad)
    elif case == "empty folder":
        image = str(tmp_path / "empty")
        Path(image).mkdir()
    elif case == "truncated":
        bad.write_bytes(scene.read_bytes()[:200])
        image = str(bad)
    elif case == "text":
        bad.write_text("hello")
        image = str(bad)
    elif case == "bomb":
        _bomb(bad)
        image = str(bad)
    elif case == "bad video":
        image = str(tmp_path / "bad.mp4")
        Path(image).write_bytes(bytes(1000))
    elif case == "output is a file":
        out = str(scene)
    elif case == "foreign model":
        model = str(scene)
    elif case == "truncated model":
        model = str(tmp_path / "cut.tflite")
        Path(model).write_bytes(INT8_MODEL.read_bytes()[:-200])
    elif case == "no model":
        model = str(tmp_path / "nothing")
    elif case == "config of a file":
        extra = ["--config", "synthetic_street_mobilenet_v3_small"]
    elif case == "unknown picture":
        extra = ["--save", "overlay,pictures"]
    elif case == "depth of a model without":
        extra = ["--save", "depth"]
    elif case == "camera without points":
        extra = ["--fov", "70"]
    elif case == "both":
        extra = ["--save", "overlay", "--no-overlay"]
    elif case == "limit":
        extra = ["--limit", "0"]
    elif case == "threads":
        extra = ["--threads", "0"]
    elif case == "delegate":
        extra = ["--delegate", "libnothing.so"]
    before = sorted(tmp_path.rglob("*"))

    assert main(["run", model, image, "--output", out, "--quiet", *extra]) == 2

    captured = capsys.readouterr()
    assert captured.out == ""
    assert mentions in captured.err
    assert captured.err.startswith("deeplab2-edge run: ")
    assert captured.err.count("\n") == 1
    after = [path for path in sorted(tmp_path.rglob("*")) if path.name != "out"]
    assert after == before


@pytest.mark.parametrize("command", ["run", "benchmark", "inspect", "doctor"])
def test_help_answers_without_loading_anything_heavy(command: str) -> None:
    code = (
        "import sys\n"
        "from deeplab2_edge.cli import main\n"
        "try:\n"
        f"    main(['{command}', '--help'])\n"
        "except SystemExit as end:\n"
        "    assert not end.code\n"
        "heavy = ('tensorflow', 'tf_keras', 'cv2', 'numpy', 'ai_edge_litert')\n"
        "assert not [m for m in heavy if m in sys.modules]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "examples:" in done.stdout
