"""A dry run says what a run will need, and leaves no trace."""

import json
from pathlib import Path

import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge.cli import main
from deeplab2_edge.config import format_config
from deeplab2_edge.train import trainer
from tests.train.small_run import experiment, write_scenes

pytestmark = pytest.mark.tf


def everything_in(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(p), p.stat().st_mtime_ns) for p in folder.rglob("*"))


def test_a_dry_run_writes_nothing_and_says_what_comes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "experiment.textproto"
    config.write_text(format_config(experiment(write_scenes(tmp_path, 2))))
    command = ["train", str(config), "--output", str(tmp_path / "runs")]
    before = everything_in(tmp_path)
    assert main([*command, "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert everything_in(tmp_path) == before
    assert found["restored"] is None
    assert found["parameters"] > 10_000
    assert found["memory_bytes_per_image"] > 100_000
    assert 0 < found["step_seconds"] < found["first_step_seconds"]
    assert found["run_seconds"] >= 2 * found["step_seconds"]
    # The first step of the real run is the one that was tried.
    assert main([*command, "--steps", "1", "--json", "--quiet"]) == 0
    real = json.loads(capsys.readouterr().out)
    assert real["losses"] == pytest.approx(found["losses"], rel=1e-3)
    # What is left of a run is predicted from where it stands.
    before = everything_in(tmp_path)
    assert main([*command, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "whole run: 1 step, about" in told
    assert f"resumed from {real['checkpoint']}: " in told
    assert everything_in(tmp_path) == before


def test_a_dry_run_of_an_evaluation_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["train", "x", "--output", "y", "--dry-run", "--mode", "eval"]
    assert main(command) != 0
    assert "--mode eval has none" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_says_what_it_began_with_and_which_records_lack(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pattern = write_scenes(tmp_path, 2)
    first = tmp_path / "train-00000-of-00001.tfrecord"
    first.rename(tmp_path / "train-00000-of-00003.tfrecord")
    summary = trainer.train(
        experiment(pattern), tmp_path / "a", trainer.RunOptions(stop_after=1)
    )
    assert summary.restored is None
    assert "warning: " in (told := capsys.readouterr().err)
    assert "1 of the 3 record files of 'train' are there" in told
    other = experiment(
        pattern,
        {
            "model_options.initial_checkpoint": summary.checkpoint,
            "model_options.restore_semantic_last_layer_from_initial_checkpoint": False,
        },
    )
    restored = trainer.dry_run(other, tmp_path / "b").restored
    assert restored is not None
    assert restored.checkpoint == summary.checkpoint
    # The semantic last layer has a kernel and a bias.
    assert restored.num_restored == restored.num_variables - 2
