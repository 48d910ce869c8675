"""The training loop: learns, resumes after a kill, refuses what cannot work."""

import glob
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from deeplab2_edge.config import ExperimentOptions, format_config, load_config
from deeplab2_edge.datasets.registry import get_dataset, save_description
from deeplab2_edge.errors import (
    CheckpointError,
    ConfigError,
    DeepLabEdgeError,
    UsageError,
)
from deeplab2_edge.experiments import find_config

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

import tensorflow as tf

from deeplab2_edge import checkpoints
from deeplab2_edge.models import build_model
from deeplab2_edge.models.engine import dataset_of
from deeplab2_edge.train import trainer
from deeplab2_edge.train.run_config import remember_config
from tests.train import small_run
from tests.train.small_run import RECIPE, SIZE, write_scenes

pytestmark = pytest.mark.tf

STEPS = 6


@pytest.fixture(scope="module")
def record_pattern(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_scenes(tmp_path_factory.mktemp("records"), 6)


def experiment(pattern: str, **changes: object) -> ExperimentOptions:
    steps = {"trainer_options.solver_options.training_number_of_steps": STEPS}
    return small_run.experiment(pattern, steps | changes)


def stored_weights(prefix: str) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(prefix)
    return {
        key: reader.get_tensor(key)
        for key in reader.get_variable_to_shape_map()
        if "save_counter" not in key
    }


def command(config: ExperimentOptions, folder: Path) -> list[str]:
    path = folder / "experiment.textproto"
    path.write_text(format_config(config))
    arguments = ["train", str(path), "--output", str(folder), "--deterministic"]
    code = (
        "import sys; from deeplab2_edge.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    return [sys.executable, "-c", code, *arguments]


def test_a_run_killed_and_resumed_equals_an_uninterrupted_one(
    record_pattern: str, tmp_path: Path
) -> None:
    config = experiment(record_pattern)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    subprocess.run(command(config, whole), check=True, capture_output=True)
    process = subprocess.Popen(
        command(config, broken), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    index = broken / "run" / "ckpt-2.index"
    deadline = time.monotonic() + 600  # a busy machine compiles slowly
    while not index.exists() and process.poll() is None:
        assert time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.01)
    assert index.exists(), "the first process ended by itself"
    process.kill()
    process.wait()
    result = subprocess.run(
        command(config, broken), check=True, capture_output=True, text=True
    )
    assert "trained steps" in result.stdout or "nothing left" in result.stdout
    expected = stored_weights(str(whole / "run" / f"ckpt-{STEPS}"))
    found = stored_weights(str(broken / "run" / f"ckpt-{STEPS}"))
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)


def test_training_resumes_and_lowers_the_loss(
    record_pattern: str, tmp_path: Path
) -> None:
    config = experiment(
        record_pattern,
        **{
            "trainer_options.solver_options.training_number_of_steps": 30,
            "trainer_options.save_summaries_steps": 5,
        },
    )
    first = trainer.train(
        config, tmp_path, trainer.RunOptions(stop_after=5), quiet=True
    )
    last = trainer.train(config, tmp_path, quiet=True)
    assert (first.last_step, last.first_step, last.last_step) == (5, 5, 30)
    assert last.losses["total_loss"] < 0.8 * first.losses["total_loss"]
    assert (tmp_path / "run" / "config.textproto").is_file()
    assert list((tmp_path / "run" / "train").glob("events.*"))
    again = trainer.train(config, tmp_path, quiet=True)
    assert again.first_step == again.last_step == 30
    other = experiment(record_pattern, **{"model_options.decoder.decoder_channels": 16})
    stored = (tmp_path / "run" / "config.textproto").read_text()
    with pytest.raises(CheckpointError, match="does not fit this experiment"):
        trainer.train(other, tmp_path, quiet=True)
    assert (tmp_path / "run" / "config.textproto").read_text() == stored


def test_a_loss_that_is_not_finite_stops_the_run_and_is_named(
    record_pattern: str, tmp_path: Path
) -> None:
    config = experiment(
        record_pattern,
        **{"trainer_options.loss_options.center_loss.weight": float("3e38")},
    )
    with pytest.raises(DeepLabEdgeError, match="step 1: .* is not finite"):
        trainer.train(config, tmp_path, quiet=True)


def test_the_configuration_of_a_run_holds_in_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, run = tmp_path / "work", tmp_path / "work" / "runs" / "run"
    run.mkdir(parents=True)
    save_description(get_dataset("camvid"), work / "classes.json")
    (work / "train-00000-of-00001.tfrecord").touch()
    (work / "ckpt-1.index").touch()
    config = experiment(
        "train-*.tfrecord",
        **{
            "train_dataset_options.dataset": "classes.json",
            "eval_dataset_options.dataset": "./classes.json",
            "eval_dataset_options.file_pattern": ["${VAL_SET}"],
            "model_options.initial_checkpoint": "ckpt-1",
        },
    )
    monkeypatch.chdir(work)
    remember_config(config, Path("runs/run"))
    monkeypatch.chdir(tmp_path)
    found = load_config(find_config(run))
    assert dataset_of(found) == get_dataset("camvid")
    assert get_dataset(found.train_dataset_options.dataset) == get_dataset("camvid")
    (pattern,) = found.train_dataset_options.file_pattern
    assert glob.glob(pattern) == [str(work / "train-00000-of-00001.tfrecord")]
    assert found.eval_dataset_options.file_pattern == ("${VAL_SET}",)
    initial = found.model_options.initial_checkpoint
    assert checkpoints.resolve_checkpoint(initial) == str(work / "ckpt-1")
    # Names are not paths, even where a file is called like that.
    (tmp_path / "synthetic_street").touch()
    (tmp_path / "demo.index").touch()
    config = experiment("x", **{"model_options.initial_checkpoint": "demo"})
    remember_config(config, run)
    found = load_config(find_config(run))
    assert found.train_dataset_options.dataset == "synthetic_street"
    assert found.model_options.initial_checkpoint == "demo"


def test_records_of_other_classes_are_refused(
    record_pattern: str, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    for shard in Path(record_pattern).parent.glob("*.tfrecord"):
        shutil.copy(shard, folder)
    save_description(get_dataset("cityscapes_panoptic"), folder / "dataset.json")
    config = experiment(f"{folder}/train-*.tfrecord")
    with pytest.raises(ConfigError, match="other class_names: set train_dataset"):
        trainer.train(config, tmp_path, quiet=True)


def test_a_checkpoint_of_other_classes_names_the_cure(
    record_pattern: str, tmp_path: Path
) -> None:
    config = experiment(record_pattern)
    head = "model_options.panoptic_deeplab.semantic_head.output_channels"
    other = build_model(experiment(record_pattern, **{head: 5}), input_size=SIZE)
    prefix = checkpoints.save_weights(other, tmp_path / "other" / "ckpt")
    config = experiment(record_pattern, **{"model_options.initial_checkpoint": prefix})
    with pytest.raises(CheckpointError, match="restore_semantic_last_layer"):
        trainer.train(config, tmp_path, quiet=True)


def test_a_step_to_stop_at_below_one_is_refused() -> None:
    with pytest.raises(UsageError, match="must be at least 1"):
        trainer.RunOptions(stop_after=0)


def test_an_unfilled_placeholder_is_named(tmp_path: Path) -> None:
    config = load_config(RECIPE)
    with pytest.raises(ConfigError, match="TRAIN_SET"):
        trainer.train(config, tmp_path, quiet=True)
