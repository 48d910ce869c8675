"""`deeplab2-edge evaluate` on converted files and on wrong input."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from deeplab2_edge.cli import main
from deeplab2_edge.experiments import find_recipe
from deeplab2_edge.images import write_png
from tests.runtime.tiny_model import FLOAT_MODEL

HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None
NEEDS_TENSORFLOW = pytest.mark.skipif(
    not HAS_TENSORFLOW, reason="install deeplab2-edge[train]"
)
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


@pytest.mark.parametrize("word", ["evaluate", "eval"])
def test_json_is_one_document_of_fractions(
    street: Path, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word, str(MODEL), "--data", str(street), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["num_images"] == 2
    assert 0.0 <= report["mean_iou"]["miou"] <= 1.0
    assert set(report["mean_iou"]["per_class"]) <= {"sky", "road", "car"}


def test_the_table_names_classes(
    street: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", str(MODEL), "--data", str(street), "--limit", "1"]
    assert main([*arguments, "--metrics", "ap"]) == 0
    out = capsys.readouterr().out
    assert "AP50" in out
    assert "1 image\n" in out and "road" in out and "PQ" in out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--data": "nowhere"}, "nowhere"),
        ({"--limit": "0"}, "must be at least 1"),
        ({"--input-size": "33x65"}, "belong to checkpoints"),
        ({"--set": "evaluator_options.eval_scales=1.5"}, "belong to checkpoints"),
        ({"--dataset": "camvid"}, "name the right data set"),
        ({"--data": "synthetic"}, "name the right data set"),
        ({"model": "nowhere.tflite"}, "nowhere.tflite"),
        pytest.param(
            {"model": "nowhere"},
            "nowhere: no checkpoint here",
            marks=NEEDS_TENSORFLOW,
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


@pytest.mark.tf
@pytest.mark.skipif(not HAS_TENSORFLOW, reason="install deeplab2-edge[train]")
@pytest.mark.parametrize("data", ["folder", "synthetic"])
@pytest.mark.parametrize("dataset", [None, "camvid", "cityscapes_panoptic"])
def test_a_checkpoint_is_not_measured_on_other_classes(
    street: Path, data: str, dataset: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = find_recipe("cityscapes_panoptic_mobilenet_v3_small_os32")
    (street / "model").mkdir()
    shutil.copy(recipe, street / "model" / "config.textproto")
    words = ["--data", str(street) if data == "folder" else data]
    words += ["--dataset", dataset] if dataset else []
    assert main(["evaluate", str(street / "model"), *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert "knows the classes road, sidewalk, building, wall, ..." in captured.err
    assert "and the data sky, " in captured.err
    assert "name the right data set with --dataset" in captured.err


@pytest.fixture
def maps(tmp_path: Path) -> list[str]:
    """Makes a video of two frames, predicted but for one pixel; returns arguments."""
    label = np.zeros((8, 10, 3), np.uint8)
    label[:4] = 13, 0, 1  # a car
    for name in ("000000", "000001"):
        for folder in ("true", "found"):
            path = tmp_path / folder / "0002" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            label[0, 0] = (13, 0, 1) if folder == "true" else (0, 0, 0)
            write_png(path, label)
    folders = ["--predictions", str(tmp_path / "found")]
    folders += ["--ground-truth", str(tmp_path / "true")]
    return ["evaluate", *folders, "--dataset", "kitti_step", "--quiet"]


def test_folders_of_maps_are_compared(
    maps: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--metrics", "pq,stq,vpq", "--windows", "1,2"]
    assert main([*maps, *options]) == 0
    text = capsys.readouterr().out
    assert "PQ  97.53" in text and "AQ  95.06" in text and "window 2" in text
    assert main([*maps, *options, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["dataset"] == "kitti_step" and report["num_images"] == 2
    assert report["video_panoptic_quality"]["per_window"].keys() == {"1", "2"}
    video = report["tracking_quality"]["per_sequence"]["0002"]
    assert video["aq"] == pytest.approx(0.975**2)


def test_official_files_are_written(
    maps: list[str], street: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = street / "official"
    assert main([*maps, "--official", str(output)]) == 0
    assert (output / "0002" / "000001.png").is_file()
    alone = [word for word in maps if word != "--ground-truth" and "true" not in word]
    again = street / "again"
    assert main([*alone, "--official", str(again), "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out[out.index("{") :])["num_images"] == 2
    assert (again / "0002" / "000001.png").is_file()
    model = ["evaluate", str(MODEL), "--data", str(street), "--quiet"]
    assert main([*model, "--official", str(street / "own")]) == 0
    assert (street / "own" / "panoptic_predictions" / "a.png").is_file()


def test_images_without_labels_are_predicted_for_a_benchmark(
    tmp_path: Path, street: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (street / "labels" / "a.png").unlink()
    (street / "labels" / "b.png").unlink()
    (street / "labels").rmdir()
    arguments = ["evaluate", str(MODEL), "--data", str(street), "--quiet"]
    assert main([*arguments, "--official", str(tmp_path / "out")]) == 0
    assert "no labels, nothing to measure" in capsys.readouterr().out
    assert (tmp_path / "out" / "panoptic_predictions.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "MODEL is missing"),
        (["m.tflite"], "--data is missing"),
        (
            [str(FLOAT_MODEL), "--data", "x", "--metrics", "ap,stq"],
            "measured with pq, miou, ap",
        ),
        (["--predictions", "x"], "--ground-truth is missing"),
        (["--predictions", "x", "--data", "y"], "--data does not go with --pred"),
        (["--predictions", "x", "--set", "y=1"], "--set does not go with --pred"),
        pytest.param(
            ["demo", "--data", "synthetic", "--set", "evaluator_options.scales=1.5"],
            "EvaluatorOptions has no 'scales'; did you mean eval_scales",
            marks=NEEDS_TENSORFLOW,
        ),
        (["--predictions", "x", "--official", "y"], "--official needs --dataset"),
        (
            ["--predictions", "x", "--ground-truth", "y", "--windows", "two"],
            "--windows is 'two'",
        ),
        (
            ["--predictions", "x", "--ground-truth", "nowhere", "--dataset", "camvid"],
            "nowhere: expected a folder of panoptic maps, found nothing",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1


def test_images_without_labels_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_png(tmp_path / "a.png", np.zeros((40, 80, 3), np.uint8))
    arguments = ["evaluate", str(MODEL), "--data", str(tmp_path), "--quiet"]
    assert main(arguments) == 2
    assert "a has no label" in capsys.readouterr().err
