"""The recipes of the synthetic street train on the records their headers make."""

import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge.config import load_config
from deeplab2_edge.experiments import find_recipe, recipe_names
from deeplab2_edge.records import write_records
from deeplab2_edge.train import trainer
from deeplab2_edge.train.data.builders import SceneSource, VideoSource

# Almost all of the time goes into tracing the graphs.
pytestmark = [pytest.mark.tf, pytest.mark.slow]

SIZE = (33, 65)
NEIGHBORS: dict[str, Any] = {"motion": "previous", "vip": "next"}
OWN_LOSS = {
    "axial": "regression_loss",
    "max": "instance_discrimination_loss",
    "motion": "motion_loss",
    "vip": "depth_loss",
}
RECIPES = [name for name in recipe_names() if name.startswith("synthetic_street_")]


def family_of(name: str) -> str:
    return name.removeprefix("synthetic_street_").split("_")[0]


def write(folder: Path, family: str) -> str:
    """Writes what `data synth` writes for a family, and returns its pattern."""
    source: SceneSource | VideoSource = SceneSource(range(2), SIZE)
    if family in NEIGHBORS:
        source = VideoSource(range(1), 3, SIZE, NEIGHBORS[family])
    encoded = (
        record for index in range(len(source)) for record in source.encode(index)
    )
    write_records(folder / "train-00000-of-00001.tfrecord", encoded)
    return f"{folder}/train-*.tfrecord"


@pytest.mark.parametrize("name", RECIPES)
def test_two_steps(name: str, tmp_path: Path) -> None:
    family = family_of(name)
    pattern = write(tmp_path, family)
    config = load_config(
        find_recipe(name),
        overrides={
            "${TRAIN_SET}": pattern,
            "${VAL_SET}": pattern,
            "experiment_name": "run",
            "train_dataset_options.crop_size": SIZE,
            "train_dataset_options.batch_size": 2,
            "eval_dataset_options.crop_size": SIZE,
            "trainer_options.save_checkpoints_steps": 2,
            "trainer_options.save_summaries_steps": 1,
            "trainer_options.steps_per_loop": 1,
            "trainer_options.solver_options.training_number_of_steps": 2,
            "trainer_options.solver_options.warmup_steps": 0,
        },
    )
    summary = trainer.train(config, tmp_path, quiet=True)
    assert (summary.last_step, summary.skipped_steps) == (2, 0)
    assert all(math.isfinite(value) for value in summary.losses.values())
    assert OWN_LOSS.get(family, "semantic_loss") in " ".join(summary.losses)
