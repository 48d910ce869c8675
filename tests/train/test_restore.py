"""What of an initial checkpoint a training takes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge.checkpoints import save_weights, track, variable_paths
from deeplab2_edge.config import ModelOptions
from deeplab2_edge.errors import CheckpointError, ConfigError
from deeplab2_edge.optional import require
from deeplab2_edge.train.restore import excluded_items, restore_initial_checkpoint

tf = require("tensorflow", extra="train")
tf_keras = require("tf_keras", extra="train")

pytestmark = pytest.mark.tf

ENCODER = "encoder/_stem/_conv"
SEMANTIC = "semantic_last_layer"
CENTER = "instance_center_head_last_layer"
OFFSET = "instance_regression_head_last_layer"
MOTION = "motion_regression_head_last_layer"
NEXT = "next_instance_regression_head_last_layer"
DEPTH = "depth_head_last_layer"
CLASSES = "transformer_class_head/_conv"
HEADS = (SEMANTIC, CENTER, OFFSET, MOTION, NEXT, DEPTH, CLASSES)
FLAGS = {
    SEMANTIC: "restore_semantic_last_layer_from_initial_checkpoint",
    CENTER: "restore_instance_last_layer_from_initial_checkpoint",
}


def build(value: float, *, classes: int = 2, heads: tuple[str, ...] = HEADS) -> Any:
    """Builds a model with all kinds of heads, every variable of one value."""
    image = tf_keras.Input((3, 3, 3))
    x = tf_keras.layers.Conv2D(2, 3, name=ENCODER)(image)
    outputs = [
        tf_keras.layers.Conv2D(classes if h == SEMANTIC else 1, 1, name=h)(x)
        for h in heads
    ]
    model = tf_keras.Model(image, outputs or x)
    for variable in model.weights:
        variable.assign(tf.fill(variable.shape, float(value)))
    return model


def restored(model: Any) -> set[str]:
    """Returns the layers whose variables have the checkpoint's value, 1."""
    paths = variable_paths(model).items()
    return {p.rpartition("/")[0] for p, v in paths if np.all(v.numpy() == 1)}


def write(folder: Path, model: Any) -> str:
    return save_weights(model, folder / "ckpt")


def test_no_name_restores_nothing() -> None:
    model = build(0)
    assert restore_initial_checkpoint(model, ModelOptions()) is None
    assert restored(model) == set()


def test_everything_is_taken_by_default(tmp_path: Path) -> None:
    model = build(0)
    write(tmp_path, build(1))
    restore_initial_checkpoint(model, ModelOptions(initial_checkpoint=str(tmp_path)))
    assert restored(model) == {ENCODER, *HEADS}


def test_the_semantic_last_layer_is_left_out_if_asked(tmp_path: Path) -> None:
    model = build(0, classes=5)
    options = ModelOptions(
        initial_checkpoint=write(tmp_path, build(1)), **{FLAGS[SEMANTIC]: False}
    )
    restore_initial_checkpoint(model, options)
    assert restored(model) == {ENCODER, *HEADS} - {SEMANTIC}


def test_the_instance_last_layers_are_left_out_if_asked(tmp_path: Path) -> None:
    model = build(0)
    options = ModelOptions(
        initial_checkpoint=write(tmp_path, build(1)), **{FLAGS[CENTER]: False}
    )
    restore_initial_checkpoint(model, options)
    assert restored(model) == {ENCODER, SEMANTIC, NEXT, DEPTH, CLASSES}


def test_both_flags_add_up() -> None:
    options = ModelOptions(**dict.fromkeys(FLAGS.values(), False))
    assert set(excluded_items(options)) == {SEMANTIC, CENTER, OFFSET, MOTION}


def test_an_imagenet_checkpoint_fills_the_encoder(tmp_path: Path) -> None:
    model = build(0)
    prefix = write(tmp_path, build(1, heads=()))
    report = restore_initial_checkpoint(model, ModelOptions(initial_checkpoint=prefix))
    assert restored(model) == {ENCODER}
    assert report is not None
    assert len(report.missing) == 2 * len(HEADS)


def test_another_trainer_gives_the_encoder_alone(tmp_path: Path) -> None:
    model = build(0)
    values = {p: v for p, v in variable_paths(build(1)).items()}
    foreign = {
        p.replace("encoder/", "backbone/_encoder/"): v for p, v in values.items()
    }
    decoy = {f"{ENCODER}/kernel": tf.fill(values[f"{ENCODER}/kernel"].shape, 7.0)}
    variables = {p: tf.Variable(v) for p, v in {**foreign, **decoy}.items()}
    prefix = tf.train.Checkpoint(**track(variables)).write(str(tmp_path / "ckpt"))
    restore_initial_checkpoint(model, ModelOptions(initial_checkpoint=prefix))
    assert restored(model) == {ENCODER}


def test_other_classes_name_the_flag(tmp_path: Path) -> None:
    heads = (SEMANTIC, CENTER)
    model = build(0, classes=5, heads=heads)
    prefix = write(tmp_path, build(1, heads=heads))
    options = ModelOptions(initial_checkpoint=prefix)
    with pytest.raises(CheckpointError, match=f"2 classes.*5.*{FLAGS[SEMANTIC]}=false"):
        restore_initial_checkpoint(model, options)
    assert restored(model) == set()


def test_one_variable_must_match(tmp_path: Path) -> None:
    model = build(0, heads=(SEMANTIC,))
    prefix = str(tmp_path / "ckpt")
    save_weights(build(1), prefix, only=[f"{SEMANTIC}/bias", f"{SEMANTIC}/kernel"])
    options = ModelOptions(initial_checkpoint=prefix)
    with pytest.raises(CheckpointError, match="none of the model's 2 variables"):
        restore_initial_checkpoint(model, options.replace(**{FLAGS[SEMANTIC]: False}))
    restore_initial_checkpoint(model, options)
    assert restored(model) == {SEMANTIC}


def test_a_placeholder_is_named() -> None:
    options = ModelOptions(initial_checkpoint="${INIT_CHECKPOINT}")
    with pytest.raises(ConfigError, match="INIT_CHECKPOINT"):
        restore_initial_checkpoint(build(0), options)
