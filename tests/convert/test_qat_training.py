"""Training with quantizers: what moves, what stays, and how a run goes on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")
pytest.importorskip(
    "tensorflow_model_optimization", reason="install deeplab2-edge[qat]"
)

import tensorflow as tf
import tf_keras

from deeplab2_edge import keys
from deeplab2_edge.checkpoints import (
    load_quantizers,
    load_weights,
    quantizer_paths,
    track,
    variable_paths,
)
from deeplab2_edge.config import apply_overrides, format_config, load_config
from deeplab2_edge.convert.options import ConversionOptions, check_options
from deeplab2_edge.convert.pipeline import convert_checkpoint
from deeplab2_edge.convert.qat import QatModel, check_fine_tuning, fine_tune
from deeplab2_edge.convert.qat.annotate import annotate, refresh_kernels, set_ranges
from deeplab2_edge.convert.qat.fine_tuning import RANGES_NAME, training_config
from deeplab2_edge.convert.qat.graph import expand
from deeplab2_edge.convert.qat.ranges import calibrate
from deeplab2_edge.errors import UsageError
from deeplab2_edge.layers.conv import biased_conv, conv, separable_conv
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.squeeze_excite import simplified_squeeze_excite
from deeplab2_edge.model_file import read_model_file
from deeplab2_edge.train import trainer
from tests.convert.quantized import images, run
from tests.convert.tiny import (
    fill,
    picture,
    tiny_backbone,
    tiny_config,
    write_tiny_checkpoint,
)
from tests.train.small_run import SIZE, experiment, write_scenes

pytestmark = pytest.mark.tf

STATISTICS = ("moving_mean", "moving_variance")
SMALL = (9, 9)


def network() -> Any:
    """Builds a network with one of everything that learns or has a range."""
    pixels = tf_keras.Input((*SMALL, 3), batch_size=1, name=keys.IMAGE)
    defaults = LayerDefaults()
    x = tf_keras.layers.Rescaling(1 / 127.5, offset=-1, name="normalize")(pixels)
    x = conv(x, "encoder/_a", 8, activation="hard_swish", defaults=defaults)
    x = simplified_squeeze_excite(x, "encoder/_se")
    x = separable_conv(x, "semantic_head", 4, defaults=defaults, kernel_size=3)
    x = biased_conv(x, "semantic_last_layer", 4)
    model = tf_keras.Model(pixels, {keys.SEMANTIC_LOGITS: x})
    fill(model)
    return model


def quantized() -> Any:
    """Puts quantizers into the network."""
    expanded = expand(network())
    calibrated = [(f"{n}", {keys.IMAGE: picture(n, SMALL)}) for n in range(4)]
    ranges, _ = calibrate(expanded, calibrated)
    model = annotate(expanded.model)
    set_ranges(model, ranges)
    return model


def learn(model: Any) -> None:
    """Takes one step that shrinks what the network gives."""
    optimizer = tf_keras.optimizers.Adam(0.01)
    with tf.GradientTape() as tape:
        outputs = model(picture(1, SMALL)[np.newaxis].astype(np.float32), training=True)
        loss = tf.reduce_mean(tf.square(outputs[keys.SEMANTIC_LOGITS]))
    optimizer.minimize(loss, model.trainable_weights, tape=tape)


def values(variables: dict[str, Any]) -> dict[str, Any]:
    return {path: variable.numpy() for path, variable in variables.items()}


def test_a_step_moves_weights_and_leaves_statistics_and_ranges() -> None:
    model = quantized()
    weights, ranges = (
        values(variable_paths(model)),
        values(quantizer_paths(model)),
    )
    learn(model)
    for path, now in values(variable_paths(model)).items():
        has_moved = not np.array_equal(now, weights[path])
        assert has_moved != path.endswith(STATISTICS), path
    for path, now in values(quantizer_paths(model)).items():
        # Those of kernels are of the kernels before the step.
        np.testing.assert_array_equal(now, ranges[path], err_msg=path)


def test_kernel_ranges_follow_with_the_next_step_or_when_asked() -> None:
    model = quantized()
    path = "semantic_last_layer/kernel"
    learn(model)
    moved = np.abs(values(variable_paths(model))[path]).max(axis=(0, 1, 2))
    learn(model)
    largest = quantizer_paths(model)[f"quantizers/{path}_max"]
    np.testing.assert_allclose(largest, moved, rtol=1e-6)
    refresh_kernels(model)
    moved = np.abs(values(variable_paths(model))[path]).max(axis=(0, 1, 2))
    np.testing.assert_allclose(largest, moved, rtol=1e-6)


def test_a_checkpoint_fills_a_network_built_anew(tmp_path: Path) -> None:
    model, other = quantized(), annotate(expand(network()).model)
    learn(model)
    paths = variable_paths(model) | quantizer_paths(model)
    prefix = tf.train.Checkpoint(**track(paths)).write(str(tmp_path / "ckpt"))
    assert load_weights(other, prefix).is_exact
    assert load_quantizers(other, prefix) == len(quantizer_paths(other))
    canvas = picture(3, SMALL)
    np.testing.assert_array_equal(
        run(other, canvas)[keys.SEMANTIC_LOGITS],
        run(model, canvas)[keys.SEMANTIC_LOGITS],
    )


def test_the_experiment_of_the_float_training_is_changed_where_it_must(
    tmp_path: Path,
) -> None:
    start = experiment("somewhere/train-*")
    config = training_config(
        start, "demo", tmp_path / "model.tflite.qat", steps=30, data=str(tmp_path)
    )
    solver = config.trainer_options.solver_options
    assert (solver.optimizer, solver.learning_policy) == ("adam", "cosine")
    assert solver.base_learning_rate == pytest.approx(1e-4)
    assert solver.warmup_steps == 0
    assert solver.training_number_of_steps == 30
    assert config.trainer_options.save_checkpoints_steps == 30
    assert config.experiment_name == "model.tflite.qat"
    assert config.model_options.initial_checkpoint == "demo"
    assert config.train_dataset_options.file_pattern == (f"{tmp_path}/*.tfrecord",)
    (tmp_path / "train-0.tfrecord").touch()
    config = training_config(start, "demo", tmp_path, steps=30, data=str(tmp_path))
    (pattern,) = config.train_dataset_options.file_pattern
    assert pattern == f"{tmp_path}/train-*.tfrecord"
    unchanged = ("batch_size", "crop_size", "augmentations")
    for field in unchanged:
        assert getattr(config.train_dataset_options, field) == getattr(
            start.train_dataset_options, field
        )


@pytest.mark.parametrize(
    ("changes", "steps", "message"),
    [
        ({}, -1, "--qat-steps is -1; must be at least 0"),
        ({"train_dataset_options.file_pattern": []}, 9, "missing; give --qat-data"),
        (
            {"train_dataset_options.file_pattern": ["${TRAIN_SET}"]},
            9,
            r"file_pattern is \$\{TRAIN_SET\}; give --qat-data",
        ),
        (
            {
                "model_options.panoptic_deeplab": None,
                "model_options.max_deeplab.pixel_space_head.output_channels": 8,
            },
            9,
            "meta-architecture of this model is max_deeplab; the nearest",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_at_once(
    changes: dict[str, Any], steps: int, message: str
) -> None:
    config = apply_overrides(experiment("train-*"), changes)
    with pytest.raises(UsageError, match=message):
        check_fine_tuning(config, steps=steps, data=None)


def test_a_folder_with_the_run_of_another_checkpoint_is_refused(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path)
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / RANGES_NAME).write_text('{"normalize": [-1, 1]}')

    def train(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("was trained")

    config = apply_overrides(
        tiny_config(), {"train_dataset_options.file_pattern": ["train-*"]}
    )
    with tiny_backbone(), pytest.raises(UsageError, match="remove the folder to begin"):
        fine_tune(
            config,
            str(tmp_path / "ckpt"),
            images(range(2)),
            canvas=(33, 65),
            steps=2,
            run_dir=run_dir,
            train=train,
        )


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on(tmp_path: Path) -> None:
    pattern = write_scenes(tmp_path, 2)
    config = experiment(pattern)
    start = trainer.train(config, tmp_path / "float", quiet=True).checkpoint

    def tune(steps: int, **options: Any) -> QatModel:
        run_options = trainer.RunOptions(**options)

        def train(config: Any, model_dir: Path, **settings: Any) -> Any:
            return trainer.train(config, model_dir, run_options, **settings)

        return fine_tune(
            config,
            start,
            images(range(3)),
            canvas=SIZE,
            steps=steps,
            run_dir=tmp_path / "model.tflite.qat",
            train=train,
            quiet=True,
        )

    untrained = tune(0)
    assert not (tmp_path / "model.tflite.qat").exists()
    killed = tune(4, stop_after=2)
    assert killed.checkpoint.endswith("ckpt-2")
    whole = tune(4)
    assert whole.checkpoint.endswith("ckpt-4")
    assert whole.ranges.keys() == untrained.ranges.keys()
    for name, wanted in untrained.ranges.items():
        assert whole.ranges[name] == pytest.approx(wanted, rel=1e-3), name
    first, last = (
        values(variable_paths(untrained.model)),
        values(variable_paths(whole.model)),
    )
    assert first.keys() == last.keys()
    for path, value in first.items():
        if path.endswith(STATISTICS):
            np.testing.assert_array_equal(value, last[path], err_msg=path)
    moved = [p for p in first if not np.array_equal(first[p], last[p])]
    assert "encoder/_blocks/0/_conv/kernel" in moved
    assert "encoder/_blocks/0/_batch_norm/gamma" in moved


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"qat": True}, "--qat makes TFLite files of --quantize int8; found .* none"),
        (
            {"qat": True, "quantization": "int8", "format": "onnx"},
            "found --quantize int8 and --format onnx",
        ),
        (
            {"qat": True, "quantization": "int8", "target": "edgetpu"},
            "for --target cpu, not edgetpu",
        ),
        (
            {"qat": True, "quantization": "int8", "sensitivity": True},
            "leave out --qat, or give --max-drop",
        ),
        ({"quantization": "int8", "qat_steps": 9}, "say how --qat trains; add it"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        check_options(ConversionOptions(**options))


@pytest.mark.slow
def test_a_checkpoint_is_trained_on_and_converted(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "tiny")
    pattern = write_scenes(tmp_path, 2)
    recipe = load_config(folder / "config.textproto")
    start = experiment(pattern)
    config = apply_overrides(
        recipe,
        {
            "trainer_options": start.trainer_options,
            "train_dataset_options": start.train_dataset_options,
        },
    )
    (folder / "config.textproto").write_text(format_config(config))
    options = ConversionOptions(
        checkpoint=str(folder / "ckpt"),
        quantization="int8",
        qat=True,
        qat_steps=2,
        calibration_data="synthetic:train",
        calibration_images=10,
        verification_images=2,
        output=tmp_path / "tiny.tflite",
    )
    with tiny_backbone():
        result = convert_checkpoint(options, train=trainer.train, quiet=True)
        again = convert_checkpoint(options, train=trainer.train, quiet=True)
    assert result.metadata.quantization == "int8"
    assert result.metadata.provenance["qat_steps"] == 2
    # Nothing was left to train.
    key = "qat_checkpoint_sha256"
    assert again.metadata.provenance[key] == result.metadata.provenance[key]
    assert any("tiny.tflite.qat" in note for note in result.notes)
    assert result.calibration is not None and not result.float_ops
    assert read_model_file(tmp_path / "tiny.tflite").metadata.merge is not None
