"""What is refused at once: before TensorFlow is loaded, before anything is written."""

import subprocess
import sys
from pathlib import Path

import pytest

from deeplab2_edge.config import ExperimentOptions, load_config
from deeplab2_edge.datasets.registry import get_dataset, save_description
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.train.run_checks import check_evaluation, check_training

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "train" / "recipes" / "synthetic_street_mobilenet_v3_small.textproto"
SOLVER = "trainer_options.solver_options"


def experiment(folder: Path, **changes: object) -> ExperimentOptions:
    files = {
        "train_dataset_options.file_pattern": [f"{folder}/train/*.tfrecord"],
        "eval_dataset_options.file_pattern": [f"{folder}/val/*.tfrecord"],
    }
    return load_config(RECIPE, overrides=files | changes)


def test_unknown_names_are_told_before_tensorflow_is_loaded(tmp_path: Path) -> None:
    wrong = (
        f"{SOLVER}.optimizer=lamb",
        f"{SOLVER}.learning_policy=step",
        "train_dataset_options.dataset=cityscape",
        "trainer_options.loss_options.center_loss.name=huber",
        "model_options.backbone.name=resnet51",
    )
    files = "train_dataset_options.file_pattern=x"
    program = (
        "import sys\n"
        "from deeplab2_edge.cli import main\n"
        f"for wrong in {wrong!r}:\n"
        f"    command = ['train', {str(RECIPE)!r}, '--output', {str(tmp_path)!r}]\n"
        f"    assert main([*command, '--set', {files!r}, '--set', wrong]) == 2\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in ("lamb", "step", "cityscape", "huber", "resnet51"):
        assert f"'{name}'" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_placeholder_that_is_left_is_named() -> None:
    config = load_config(RECIPE)
    with pytest.raises(ConfigError, match="TRAIN_SET"):
        check_training(config)
    with pytest.raises(ConfigError, match="VAL_SET"):
        check_evaluation(config)


def test_records_of_other_classes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    config = experiment(tmp_path)
    assert check_evaluation(config).name == config.eval_dataset_options.dataset
    description = tmp_path / "val" / "dataset.json"
    save_description(get_dataset("cityscapes_panoptic"), description)
    check_training(config)
    with pytest.raises(ConfigError, match="with other class_names: set eval_dataset_"):
        check_evaluation(config)


def test_evaluation_has_the_classes_of_the_training_by_default(tmp_path: Path) -> None:
    config = experiment(tmp_path, **{"eval_dataset_options.dataset": ""})
    assert check_evaluation(config) == check_training(config)
