"""Checkpoints: published keys in and out, and what is wrong with the others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge import checkpoints
from deeplab2_edge.errors import CheckpointError
from deeplab2_edge.optional import require

tf = require("tensorflow", extra="train")
tf_keras = require("tf_keras", extra="train")

pytestmark = pytest.mark.tf

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
CONV = "encoder/_blocks/0/_conv"
NORM = "encoder/_blocks/0/_batch_norm"
HEAD = "semantic_last_layer"


def build(seed: int = 0, *, channels: int = 4) -> Any:
    """Builds a model of three layers with random weights."""
    image = tf_keras.Input((5, 5, 3))
    x = tf_keras.layers.Conv2D(channels, 3, use_bias=False, name=CONV)(image)
    x = tf_keras.layers.BatchNormalization(name=NORM)(x)
    x = tf_keras.layers.Conv2D(2, 1, name=HEAD)(x)
    model = tf_keras.Model(image, x)
    random = np.random.default_rng(seed)
    for variable in model.weights:
        variable.assign(random.normal(size=variable.shape))
    return model


def values(model: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {p: v.numpy() for p, v in checkpoints.variable_paths(model).items()}


def write_by_key(prefix: Path, variables: Mapping[str, Any], **more: Any) -> str:
    """Writes a checkpoint of any keys, the way a training run saves one."""
    items = checkpoints.track({p: tf.Variable(v) for p, v in variables.items()})
    return str(tf.train.Checkpoint(**items, **more).save(str(prefix)))


def test_keys_are_the_published_ones(tmp_path: Path) -> None:
    prefix = checkpoints.save_weights(build(), tmp_path / "ckpt")
    keys = set(tf.train.load_checkpoint(prefix).get_variable_to_shape_map())
    assert keys - {"_CHECKPOINTABLE_OBJECT_GRAPH"} == {
        f"{path}{SUFFIX}"
        for path in (
            f"{CONV}/kernel",
            *(
                f"{NORM}/{n}"
                for n in ("gamma", "beta", "moving_mean", "moving_variance")
            ),
            f"{HEAD}/kernel",
            f"{HEAD}/bias",
        )
    }


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    source, target = build(1), build(2)
    prefix = checkpoints.save_weights(source, tmp_path / "deep" / "ckpt")
    report = checkpoints.load_weights(target, prefix)
    assert report.is_exact
    assert len(report.loaded) == 7
    for path, value in values(source).items():
        np.testing.assert_array_equal(value, values(target)[path])


def test_half_precision_keeps_vectors_whole(tmp_path: Path) -> None:
    source, target = build(1), build(2)
    source.get_layer(NORM).moving_variance.assign([1e6, 1e-9, 1.0, 70000.0])
    prefix = checkpoints.save_weights(source, tmp_path / "ckpt", half=True)
    checkpoints.load_weights(target, prefix)
    for path, value in values(source).items():
        if value.ndim > 1:
            np.testing.assert_allclose(values(target)[path], value, rtol=1e-3)
        else:
            np.testing.assert_array_equal(values(target)[path], value)


def test_training_state_is_ignored(tmp_path: Path) -> None:
    source = build(1)
    optimizer = tf_keras.optimizers.Adam()
    prefix = write_by_key(
        tmp_path / "ckpt",
        values(source),
        global_step=tf.Variable(60000, dtype=tf.int64),
        optimizer=optimizer,
    )
    assert checkpoints.load_weights(build(2), prefix).is_exact


def test_encoder_of_another_trainer_is_understood(tmp_path: Path) -> None:
    source, target = build(1), build(2)
    moved = {
        path.replace("encoder/", "backbone/_encoder/"): value
        for path, value in values(source).items()
    }
    prefix = write_by_key(tmp_path / "ckpt", moved)
    assert checkpoints.load_weights(target, prefix).is_exact
    np.testing.assert_array_equal(
        values(source)[f"{CONV}/kernel"], values(target)[f"{CONV}/kernel"]
    )


def test_missing_variables_are_an_error_unless_allowed(tmp_path: Path) -> None:
    source, target = build(1), build(2)
    part = {p: v for p, v in values(source).items() if not p.startswith(HEAD)}
    prefix = write_by_key(tmp_path / "ckpt", part)
    with pytest.raises(CheckpointError, match=f"2 of the model's 7.*{HEAD}/bias"):
        checkpoints.load_weights(target, prefix)
    before = values(target)
    report = checkpoints.load_weights(target, prefix, allow_partial=True)
    assert report.missing == (f"{HEAD}/bias", f"{HEAD}/kernel")
    np.testing.assert_array_equal(
        values(target)[f"{HEAD}/bias"], before[f"{HEAD}/bias"]
    )
    np.testing.assert_array_equal(
        values(target)[f"{CONV}/kernel"], values(source)[f"{CONV}/kernel"]
    )


def test_skipped_items_keep_their_values(tmp_path: Path) -> None:
    source, target = build(1), build(2)
    prefix = checkpoints.save_weights(source, tmp_path / "ckpt")
    before = values(target)[f"{HEAD}/kernel"]
    report = checkpoints.load_weights(target, prefix, skip=[HEAD])
    np.testing.assert_array_equal(values(target)[f"{HEAD}/kernel"], before)
    assert f"{HEAD}/kernel" not in report.loaded


def test_another_shape_is_an_error_and_changes_nothing(tmp_path: Path) -> None:
    prefix = checkpoints.save_weights(build(1, channels=5), tmp_path / "ckpt")
    target = build(2)
    before = values(target)
    with pytest.raises(CheckpointError, match="another shape"):
        checkpoints.load_weights(target, prefix)
    for path, value in values(target).items():
        np.testing.assert_array_equal(value, before[path])


def test_inspection_lists_all_three_kinds(tmp_path: Path) -> None:
    stored = values(build(1))
    del stored[f"{HEAD}/bias"]
    stored[f"{HEAD}/kernel"] = stored[f"{HEAD}/kernel"][..., :1]
    stored["depth_head_last_layer/bias"] = np.zeros(1, np.float32)
    prefix = write_by_key(tmp_path / "ckpt", stored)
    report = checkpoints.inspect_checkpoint(build(2), prefix)
    assert report.missing == (f"{HEAD}/bias",)
    assert report.unexpected == ("depth_head_last_layer/bias",)
    assert report.mismatching == (
        f"{HEAD}/kernel: found (1, 1, 4, 1), expected (1, 1, 4, 2)",
    )
    assert not report.is_exact


def test_checkpoint_of_something_else_is_an_error(tmp_path: Path) -> None:
    prefix = write_by_key(tmp_path / "ckpt", {"model/weight": np.zeros(3)})
    with pytest.raises(CheckpointError, match="holds none of the model's 7.*model/w"):
        checkpoints.load_weights(build(), prefix, allow_partial=True)


def test_every_name_of_a_checkpoint_leads_to_its_prefix(tmp_path: Path) -> None:
    prefix = checkpoints.save_weights(build(), tmp_path / "ckpt")
    for name in (
        prefix,
        f"{prefix}.index",
        f"{prefix}.data-00000-of-00001",
        tmp_path,
    ):
        assert checkpoints.resolve_checkpoint(name) == prefix


def test_latest_of_a_folder_is_taken(tmp_path: Path) -> None:
    checkpoint = tf.train.Checkpoint(step=tf.Variable(1))
    checkpoint.save(str(tmp_path / "ckpt"))
    latest = checkpoint.save(str(tmp_path / "ckpt"))
    assert checkpoints.resolve_checkpoint(tmp_path) == latest


def test_folder_of_many_without_a_latest_is_an_error(tmp_path: Path) -> None:
    for name in ("a", "b"):
        checkpoints.save_weights(build(), tmp_path / name)
    with pytest.raises(CheckpointError, match="holds 2 checkpoints.*give the prefix"):
        checkpoints.resolve_checkpoint(tmp_path)


def test_nothing_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        checkpoints.resolve_checkpoint(tmp_path / "ckpt-7")
    with pytest.raises(CheckpointError, match="holds 0 checkpoints"):
        checkpoints.resolve_checkpoint(tmp_path)


@pytest.mark.parametrize("content", [b"", b"cut", bytes(5000)])
def test_damaged_index_is_an_error_that_names_it(
    content: bytes, tmp_path: Path
) -> None:
    prefix = checkpoints.save_weights(build(), tmp_path / "ckpt")
    Path(f"{prefix}.index").write_bytes(content)
    with pytest.raises(CheckpointError, match="ckpt: cannot be read"):
        checkpoints.load_weights(build(), prefix)


@pytest.mark.parametrize(
    "content",
    [b"", b"cut", bytes(5000)],
)
def test_damaged_values_are_an_error_that_names_them(
    content: bytes, tmp_path: Path
) -> None:
    prefix = checkpoints.save_weights(build(), tmp_path / "ckpt")
    Path(f"{prefix}.data-00000-of-00001").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"ckpt: {NORM}.* is damaged"):
        checkpoints.load_weights(build(), prefix)


def test_missing_data_file_is_an_error(tmp_path: Path) -> None:
    prefix = checkpoints.save_weights(build(), tmp_path / "ckpt")
    Path(f"{prefix}.data-00000-of-00001").unlink()
    with pytest.raises(CheckpointError, match="ckpt"):
        checkpoints.load_weights(build(), prefix)


def test_unwritable_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        checkpoints.save_weights(build(), tmp_path / "file" / "ckpt")
