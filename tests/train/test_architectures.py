"""What can be trained: semantic models without instances; the rest is refused."""

from pathlib import Path

import pytest

from deeplab2_edge.config import ExperimentOptions, LowLevelOptions

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge.checkpoints import resolve_checkpoint
from deeplab2_edge.train import trainer
from tests.train.small_run import experiment, write_scenes, write_video

pytestmark = pytest.mark.tf

PANOPTIC = "model_options.panoptic_deeplab"
LOSSES = "trainer_options.loss_options"
NO_INSTANCE_LOSS = {f"{LOSSES}.center_loss": None, f"{LOSSES}.regression_loss": None}


@pytest.fixture(scope="module")
def record_pattern(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_scenes(tmp_path_factory.mktemp("records"), 2)


def trained_only(pattern: str, changes: dict[str, object]) -> ExperimentOptions:
    return experiment(pattern, {"eval_dataset_options": None, **changes})


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
    config = trained_only(record_pattern, {**changes, **NO_INSTANCE_LOSS})
    summary = trainer.train(config, tmp_path, quiet=True)
    assert summary.last_step == 2
    assert summary.skipped_steps == 0
    assert set(summary.losses) == {"semantic_loss", "total_loss", "gradient_norm"}
    assert resolve_checkpoint(tmp_path / "run") == summary.checkpoint


HEAD = {"output_channels": 2, "head_channels": 8}
LOW_LEVEL = (LowLevelOptions(feature_key="res2", channels_project=8),)


def message(path: str, fields: dict[str, object]) -> dict[str, object]:
    return {f"{path}.{name}": value for name, value in fields.items()}


def video_model(architecture: str) -> dict[str, object]:
    path = f"model_options.{architecture}"
    return {
        PANOPTIC: None,
        f"{path}.low_level": LOW_LEVEL,
        **message(f"{path}.semantic_head", {**HEAD, "output_channels": 11}),
        **message(f"{path}.instance.center_head", {**HEAD, "output_channels": 1}),
        **message(f"{path}.instance.regression_head", HEAD),
        "train_dataset_options.batch_size": 1,
        "train_dataset_options.dataset": "synthetic_street",
    }


VIDEO_MODELS = {
    "motion_deeplab": {
        **video_model("motion_deeplab"),
        **message("model_options.motion_deeplab.motion_head", HEAD),
        f"{LOSSES}.motion_loss.name": "l1",
        "train_dataset_options.use_two_frames": True,
    },
    "vip_deeplab": {
        **video_model("vip_deeplab"),
        **message("model_options.vip_deeplab.instance.next_regression_head", HEAD),
        **message(
            "model_options.vip_deeplab.depth_head",
            {**HEAD, "output_channels": 1, "max_value_after_activation": 88.0},
        ),
        f"{LOSSES}.next_regression_loss.name": "l1",
        f"{LOSSES}.depth_loss.name": "depth_loss",
        "train_dataset_options.use_next_frame": True,
        "train_dataset_options.min_resize_value": [],
        "train_dataset_options.max_resize_value": [],
    },
}


@pytest.mark.parametrize("architecture", VIDEO_MODELS)
def test_video_models_learn(tmp_path: Path, architecture: str) -> None:
    config = trained_only(write_video(tmp_path, 2), VIDEO_MODELS[architecture])
    summary = trainer.train(config, tmp_path, quiet=True)
    assert summary.last_step == 2
    assert summary.skipped_steps == 0
    own_loss = {"motion_deeplab": "motion_loss", "vip_deeplab": "depth_loss"}
    assert {"center_loss", own_loss[architecture]} <= set(summary.losses)


def mask_transformer() -> dict[str, object]:
    path = "model_options.max_deeplab"
    return {
        PANOPTIC: None,
        "model_options.backbone.name": "max_deeplab_s",
        "model_options.backbone.output_stride": 16,
        "model_options.backbone.use_squeeze_and_excite": False,
        "model_options.backbone.backbone_width_multiplier": 0.125,
        "model_options.decoder.feature_key": "feature_semantic",
        f"{path}.auxiliary_low_level": LOW_LEVEL,
        **message(f"{path}.auxiliary_semantic_head", {**HEAD, "output_channels": 11}),
        **message(f"{path}.pixel_space_head", {**HEAD, "output_channels": 128}),
        LOSSES: None,
        f"{LOSSES}.semantic_loss.name": "softmax_cross_entropy",
        f"{LOSSES}.pq_style_loss.weight": 3.0,
        f"{LOSSES}.mask_id_cross_entropy_loss.weight": 0.3,
        f"{LOSSES}.instance_discrimination_loss.weight": 1.0,
        "trainer_options.solver_options.backbone_learning_rate_multiplier": 0.1,
        "train_dataset_options.thing_id_mask_annotations": True,
    }


def test_mask_transformers_learn(record_pattern: str, tmp_path: Path) -> None:
    config = trained_only(record_pattern, mask_transformer())
    summary = trainer.train(config, tmp_path, quiet=True)
    assert summary.last_step == 2
    assert summary.skipped_steps == 0
    assert "mask_id_cross_entropy_loss" in " ".join(summary.losses)
