"""`deeplab2-edge data show`: what people look at before they train."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deeplab2_edge.cli import main
from deeplab2_edge.images import read_image, write_png
from deeplab2_edge.synth import render_video

SIZE = (65, 129)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A plain folder of frames of one video, with labels of two channels."""
    root = tmp_path / "street"
    for name in ("images", "labels"):
        (root / name / "a").mkdir(parents=True)
    for number, scene in enumerate(render_video(1, num_frames=3, size=SIZE)):
        label = np.zeros((*SIZE, 3), np.uint8)
        label[..., 0] = np.minimum(scene.panoptic // 1000, 255)
        label[..., 2] = scene.panoptic % 1000
        write_png(root / f"images/a/{number}.png", scene.image)
        write_png(root / f"labels/a/{number}.png", label)
    return root


def show(*words: object) -> int:
    return main(["data", "show", *map(str, words), "--quiet"])


def test_labels_of_a_folder_are_drawn(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "look"
    assert show(folder, "--dataset", "synthetic_street", "--output", out) == 0
    assert capsys.readouterr().out == f"3 images drawn: {out}\n"
    assert sorted(p.name for p in out.iterdir()) == [
        f"a_{n}_overlay.png" for n in range(3)
    ]
    assert read_image(out / "a_0_overlay.png").shape == (*SIZE, 3)


def test_json_names_the_files(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--dataset", "synthetic_street", "--output", tmp_path / "look"]
    words += ["--save", "instances,semantic", "--limit", "1", "--first", "--json"]
    assert show(folder, *words) == 0
    document = json.loads(capsys.readouterr().out)
    (image,) = document["images"]
    assert image["sample"] == "a/0"
    assert sorted(image["files"]) == ["instances", "semantic"]
    assert all(Path(path).is_file() for path in image["files"].values())


def test_the_synthetic_world_has_depth_and_a_camera(tmp_path: Path) -> None:
    out = tmp_path / "look"
    words = ["--output", out, "--limit", "1", "--save", "all"]
    assert show("synthetic", *words) == 0
    words = {p.name.partition("_0")[2].partition("_")[2] for p in out.iterdir()}
    assert words >= {"depth.png", "depth_color.png", "points.ply", "points.png"}


def test_a_damaged_label_is_named_and_the_rest_is_drawn(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label = folder / "labels/a/1.png"
    label.write_bytes(label.read_bytes()[:100])
    out = tmp_path / "look"
    assert show(folder, "--dataset", "synthetic_street", "--output", out) == 2
    captured = capsys.readouterr()
    assert str(label) in captured.err
    assert "1 could not be drawn" in captured.out
    assert len(list(out.iterdir())) == 2


@pytest.mark.parametrize(
    ("case", "mentions"),
    [
        ("no such folder", "expected a folder"),
        ("no labels", "no labels"),
        ("wrong class", "class 200"),
        ("size", "[66, 129]"),
        ("depth", "has no depth"),
        ("limit", "must be at least 1"),
        ("output", "folder for results"),
        ("view", "--view-from is '1,2'"),
        ("range", "0 < NEAR < FAR"),
        ("both cameras", "--fov goes without --camera"),
        ("other camera", "outside an image"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    case: str,
    mentions: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data: object = folder
    out, extra = tmp_path / "look", ["--dataset", "synthetic_street"]
    for name in ("1", "2"):
        (folder / f"labels/a/{name}.png").unlink()
        (folder / f"images/a/{name}.png").unlink()
    if case == "no such folder":
        data = tmp_path / "nowhere"
    elif case == "no labels":
        data = folder / "images"
    elif case == "wrong class":
        write_png(folder / "labels/a/0.png", np.full((*SIZE, 3), 200, np.uint8))
    elif case == "size":
        write_png(folder / "labels/a/0.png", np.zeros((66, 129, 3), np.uint8))
    elif case == "depth":
        extra += ["--save", "depth"]
    elif case == "limit":
        extra += ["--limit", "0"]
    elif case == "output":
        out = folder / "images/a/0.png"
    else:
        data = "synthetic"
        extra = {
            "view": ["--save", "point-cloud", "--view-from", "1,2"],
            "range": ["--depth-range", "9,2"],
            "both cameras": "--save point-cloud --fov 60 --camera 1,1,1,1".split(),
            "other camera": "--save point-cloud --camera 1,1,999,1 --limit 1".split(),
        }[case]
    assert show(data, "--output", out, *extra) == 2
    captured = capsys.readouterr()
    assert mentions in captured.err
    assert captured.err.startswith("deeplab2-edge data")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_records_are_drawn_with_their_depth(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
    from tests.train.small_run import write_video

    pattern = write_video(tmp_path, 2)
    out = tmp_path / "look"
    words = ["--dataset", "synthetic_street", "--output", out, "--first"]
    assert show(pattern, *words) == 0
    assert sorted(p.name for p in out.iterdir()) == [
        f"video-00000-of-00001_{number:05d}_{word}.png"
        for number in range(2)
        for word in ("depth", "depth_color", "overlay")
    ]


def test_help_answers_without_loading_anything_heavy() -> None:
    code = (
        "import sys\n"
        "from deeplab2_edge.cli import main\n"
        "try:\n"
        "    main(['data', 'show', '--help'])\n"
        "except SystemExit as end:\n"
        "    assert not end.code\n"
        "assert not [m for m in ('tensorflow', 'cv2', 'numpy') if m in sys.modules]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "examples:" in done.stdout
