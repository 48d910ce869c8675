"""Checkpoints: published keys in and out, and what is wrong with the others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge import checkpoint_files, checkpoints
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


def test_another_trainer_gives_the_encoder_and_nothing_else(tmp_path: Path) -> None:
    source, target = build(1), build(2)
    before = values(target)
    moved = {
        path.replace("encoder/", "backbone/_encoder/"): value
        for path, value in values(source).items()
    }
    prefix = write_by_key(tmp_path / "ckpt", moved)
    with pytest.raises(CheckpointError, match="another trainer"):
        checkpoints.load_weights(target, prefix)
    report = checkpoints.load_weights(target, prefix, allow_partial=True)
    assert len(report.loaded) == 5
    assert report.unexpected == ()
    np.testing.assert_array_equal(
        values(target)[f"{CONV}/kernel"], values(source)[f"{CONV}/kernel"]
    )
    np.testing.assert_array_equal(
        values(target)[f"{HEAD}/kernel"], before[f"{HEAD}/kernel"]
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


@pytest.mark.parametrize("content", [b"", b"cut", bytes(5000)])
def test_damaged_index_is_an_error_that_names_it(
    content: bytes, tmp_path: Path
) -> None:
    prefix = checkpoints.save_weights(build(), tmp_path / "ckpt")
    Path(f"{prefix}.index").write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"ckpt\.index: cannot be read as the index"
    ):
        checkpoints.load_weights(build(), prefix)


@pytest.mark.parametrize("content", [b"", b"cut"])
def test_data_file_cut_short_is_named(content: bytes, tmp_path: Path) -> None:
    prefix = checkpoints.save_weights(build(), tmp_path / "ckpt")
    Path(f"{prefix}.data-00000-of-00001").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"ckpt\.data-0+-of-00001: cut short"):
        checkpoints.load_weights(build(), prefix)


def test_damaged_values_are_an_error_that_names_them(tmp_path: Path) -> None:
    prefix = checkpoints.save_weights(build(), tmp_path / "ckpt")
    Path(f"{prefix}.data-00000-of-00001").write_bytes(bytes(5000))
    with pytest.raises(CheckpointError, match=f"ckpt: {NORM}.* is damaged"):
        checkpoints.load_weights(build(), prefix)


def test_missing_data_file_is_named(tmp_path: Path) -> None:
    prefix = checkpoints.save_weights(build(), tmp_path / "ckpt")
    Path(f"{prefix}.data-00000-of-00001").unlink()
    with pytest.raises(CheckpointError, match="1 of its 1 data files.*00000-of-00001"):
        checkpoints.load_weights(build(), prefix)


def test_damaged_index_with_right_sizes_is_an_error(tmp_path: Path) -> None:
    prefix = checkpoints.save_weights(build(), tmp_path / "ckpt")
    index = Path(f"{prefix}.index")
    content = bytearray(index.read_bytes())
    content[content.index(b"\x35")] ^= 1  # the tag of a checksum becomes another
    index.write_bytes(content)
    with pytest.raises(CheckpointError, match="ckpt"):
        checkpoints.load_weights(build(), prefix)


def test_only_some_variables_are_saved_if_asked(tmp_path: Path) -> None:
    source, target = build(1), build(2)
    prefix = checkpoints.save_weights(
        source, tmp_path / "ckpt", only=[f"{CONV}/kernel"]
    )
    report = checkpoints.load_weights(target, prefix, allow_partial=True)
    assert report.loaded == (f"{CONV}/kernel",)


def test_kept_classes_are_loaded_in_the_given_order(tmp_path: Path) -> None:
    source, target = build(1), build(2)
    prefix = checkpoints.save_weights(source, tmp_path / "ckpt")
    contents = checkpoint_files.keep_classes(
        checkpoint_files.read_contents(prefix), [1, 0]
    )
    assert checkpoints.load_weights(target, contents).is_exact
    for name in ("kernel", "bias"):
        np.testing.assert_array_equal(
            values(target)[f"{HEAD}/{name}"],
            values(source)[f"{HEAD}/{name}"][..., ::-1],
        )


def test_unwritable_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        checkpoints.save_weights(build(), tmp_path / "file" / "ckpt")
