"""The main job, as `make demo` runs it, on fewer scenes."""

import json
from pathlib import Path

import pytest

from deeplab2_edge import assets
from deeplab2_edge.cli import main

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")

pytestmark = pytest.mark.tf

NUM_SCENES = 8


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


def test_the_demo_converts_measures_and_shows(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--output", str(output), "--scenes", str(NUM_SCENES), "--quiet"]
    assert main(["demo", *arguments, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    # Over all held-out scenes: benchmarks/results/accuracy_synthetic.json.
    assert figures["pq_float"] > 0.5
    assert figures["miou_float"] > 0.6
    assert abs(figures["pq_float"] - figures["pq_int8"]) < 0.03
    assert abs(figures["miou_float"] - figures["miou_int8"]) < 0.02
    assert figures["num_scenes"] == NUM_SCENES
    written = [figures["model"], figures["report"], *figures["overlays"]]
    assert all(Path(path).is_file() for path in written)
    stages = figures["latency"]["stages"]
    assert set(stages) == {"decode", "preprocess", "network", "merge", "draw"}
    assert "data:image/png;base64," in Path(figures["report"]).read_text()


def test_the_shipped_checkpoint_is_small() -> None:
    folder = Path(assets.demo_checkpoint_prefix()).parent
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8_000_000


def test_steps_without_training_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["demo", "--steps", "3"]) == 2
    assert "--steps belongs to --train" in capsys.readouterr().err
