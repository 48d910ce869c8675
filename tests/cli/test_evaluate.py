"""`deeplab2-edge evaluate` on converted files and on wrong input."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from deeplab2_edge.cli import main
from deeplab2_edge.images import write_png

HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None
MODEL = Path(__file__).parents[1] / "golden" / "runtime" / "tiny_float.tflite"
CLASSES = [
    {"name": "sky", "thing": False},
    {"name": "road", "thing": False},
    {"name": "car", "thing": True},
]


@pytest.fixture
def street(tmp_path: Path) -> Path:
    """Makes a plain folder of two images, the labels all road."""
    for name in ("a", "b"):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "labels").mkdir(exist_ok=True)
        write_png(
            tmp_path / "images" / f"{name}.png", np.full((40, 80, 3), 90, np.uint8)
        )
        write_png(tmp_path / "labels" / f"{name}.png", np.ones((40, 80), np.uint8))
    description = {"name": "street", "classes": CLASSES}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    return tmp_path


def test_json_is_one_document_of_fractions(
    street: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(MODEL), "--data", str(street), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["num_images"] == 2
    assert 0.0 <= report["mean_iou"]["miou"] <= 1.0
    assert set(report["mean_iou"]["per_class"]) <= {"sky", "road", "car"}


def test_the_table_names_classes(
    street: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", str(MODEL), "--data", str(street), "--limit", "1"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "1 image\n" in out and "road" in out and "PQ" in out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--data": "nowhere"}, "nowhere"),
        ({"--limit": "0"}, "must be at least 1"),
        ({"--input-size": "33x65"}, "belong to checkpoints"),
        ({"--dataset": "camvid"}, "name the right data set"),
        ({"--data": "synthetic"}, "name the right data set"),
        ({"model": "nowhere.tflite"}, "nowhere.tflite"),
        pytest.param(
            {"model": "nowhere"},
            "nowhere: no checkpoint here",
            marks=pytest.mark.skipif(
                not HAS_TENSORFLOW, reason="install deeplab2-edge[train]"
            ),
        ),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    street: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, str],
    message: str,
) -> None:
    arguments = {"--data": str(street), **change}
    model = arguments.pop("model", str(MODEL))
    flat = [word for pair in arguments.items() for word in pair]
    assert main(["evaluate", model, *flat]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err and captured.err.count("\n") == 1


def test_images_without_labels_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_png(tmp_path / "a.png", np.zeros((40, 80, 3), np.uint8))
    arguments = ["evaluate", str(MODEL), "--data", str(tmp_path), "--quiet"]
    assert main(arguments) == 2
    assert "a has no label" in capsys.readouterr().err
