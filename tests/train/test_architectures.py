"""What can be trained: semantic models without instances; the rest is refused."""

from pathlib import Path

import pytest

from deeplab2_edge import synth
from deeplab2_edge.config import ExperimentOptions, load_config
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.images import encode_png

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge import records
from deeplab2_edge.checkpoints import resolve_checkpoint
from deeplab2_edge.train import trainer

pytestmark = pytest.mark.tf

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "train" / "recipes" / "synthetic_street_mobilenet_v3_small.textproto"
SIZE = (33, 65)
PANOPTIC = "model_options.panoptic_deeplab"
LOSSES = "trainer_options.loss_options"
NO_INSTANCE_LOSS = {f"{LOSSES}.center_loss": None, f"{LOSSES}.regression_loss": None}


@pytest.fixture(scope="module")
def record_pattern(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("records")
    scenes = [synth.render_scene(seed, size=SIZE) for seed in range(2)]
    records.write_records(
        folder / "train-00000-of-00001.tfrecord",
        (
            records.encode_example(
                records.Frame(encode_png(scene.image), scene.panoptic),
                filename=f"scene{number}",
            )
            for number, scene in enumerate(scenes)
        ),
    )
    return f"{folder}/train-*.tfrecord"


def experiment(pattern: str, changes: dict[str, object]) -> ExperimentOptions:
    return load_config(
        RECIPE,
        overrides={
            "experiment_name": "run",
            "train_dataset_options.file_pattern": [pattern],
            "train_dataset_options.crop_size": SIZE,
            "train_dataset_options.batch_size": 2,
            "eval_dataset_options": None,
            "model_options.initial_checkpoint": "",
            "model_options.backbone.output_stride": 32,
            "model_options.backbone.backbone_width_multiplier": 0.25,
            "model_options.decoder.aspp_channels": 8,
            "model_options.decoder.decoder_channels": 8,
            "trainer_options.steps_per_loop": 1,
            "trainer_options.solver_options.training_number_of_steps": 2,
            "trainer_options.solver_options.warmup_steps": 0,
            **changes,
        },
    )


@pytest.mark.parametrize(
    "changes",
    [
        {f"{PANOPTIC}.instance.enable": False},
        {PANOPTIC: None, "model_options.deeplab_v3.num_classes": 11},
        {
            PANOPTIC: None,
            "model_options.deeplab_v3_plus.num_classes": 11,
            "model_options.deeplab_v3_plus.low_level.feature_key": "res2",
            "model_options.deeplab_v3_plus.low_level.channels_project": 8,
            # A stage the decoder does not reach still belongs to the checkpoint.
            "model_options.decoder.feature_key": "res4",
        },
    ],
    ids=["semantic", "deeplab_v3", "deeplab_v3_plus"],
)
def test_semantic_models_learn_without_instances(
    record_pattern: str, tmp_path: Path, changes: dict[str, object]
) -> None:
    config = experiment(record_pattern, {**changes, **NO_INSTANCE_LOSS})
    summary = trainer.train(config, tmp_path, quiet=True)
    assert summary.last_step == 2
    assert summary.skipped_steps == 0
    assert set(summary.losses) == {"semantic_loss", "total_loss"}
    assert resolve_checkpoint(tmp_path / "run") == summary.checkpoint


@pytest.mark.parametrize(
    "architecture", ["motion_deeplab", "vip_deeplab", "max_deeplab"]
)
def test_other_architectures_are_refused_before_anything_is_written(
    record_pattern: str, tmp_path: Path, architecture: str
) -> None:
    head = (
        "auxiliary_semantic_head" if architecture == "max_deeplab" else "semantic_head"
    )
    config = experiment(
        record_pattern,
        {PANOPTIC: None, f"model_options.{architecture}.{head}.output_channels": 11},
    )
    message = f"architecture is {architecture}; this version trains deeplab_v3, "
    with pytest.raises(ConfigError, match=message):
        trainer.train(config, tmp_path, quiet=True)
    assert not list(tmp_path.iterdir())
