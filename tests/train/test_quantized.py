"""Quantization-aware training goes through the trainer, and its checkpoints around."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
pytest.importorskip(
    "tensorflow_model_optimization", reason="install deeplab2-edge[train]"
)

import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras
from tensorflow_model_optimization.python.core.quantization.keras import (
    quantize_layout_transform,
    quantize_scheme,
)
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
    default_8bit_quantize_registry,
)

from deeplab2_edge import keys
from deeplab2_edge.checkpoint_files import read_contents
from deeplab2_edge.checkpoints import (
    load_quantizers,
    load_weights,
    quantizer_paths,
    save_weights,
    variable_paths,
)
from deeplab2_edge.config import SolverOptions
from deeplab2_edge.errors import CheckpointError
from deeplab2_edge.layers.conv import biased_conv, conv
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.models import build_model
from deeplab2_edge.train import trainer
from deeplab2_edge.train.optimizers import build_optimizer_groups
from tests.train.small_run import SIZE, experiment, write_scenes

pytestmark = pytest.mark.tf

quantization = tfmot.quantization.keras
CONVOLUTIONS = (tf_keras.layers.Conv2D, tf_keras.layers.DepthwiseConv2D)


class KernelAndOutput(quantization.QuantizeConfig):  # type: ignore[name-defined, misc]
    """Quantizes the kernel of a convolution and what it gives."""

    def _name(self, layer: Any) -> str:
        is_depthwise = isinstance(layer, tf_keras.layers.DepthwiseConv2D)
        return "depthwise_kernel" if is_depthwise else "kernel"

    def get_weights_and_quantizers(self, layer: Any) -> list[Any]:
        quantizer = quantization.quantizers.LastValueQuantizer(
            num_bits=8, per_axis=False, symmetric=True, narrow_range=True
        )
        return [(getattr(layer, self._name(layer)), quantizer)]

    def get_activations_and_quantizers(self, layer: Any) -> list[Any]:
        return []

    def set_quantize_weights(self, layer: Any, quantize_weights: Any) -> None:
        setattr(layer, self._name(layer), quantize_weights[0])

    def set_quantize_activations(self, layer: Any, quantize_activations: Any) -> None:
        pass

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        return [
            quantization.quantizers.MovingAverageQuantizer(
                num_bits=8, per_axis=False, symmetric=False, narrow_range=False
            )
        ]

    def get_config(self) -> dict[str, Any]:
        return {}


class KeepGraph(quantize_layout_transform.QuantizeLayoutTransform):  # type: ignore[misc]
    def apply(self, model: Any, layer_quantize_map: Any) -> Any:
        return model, layer_quantize_map


class KeepScheme(quantize_scheme.QuantizeScheme):  # type: ignore[misc]
    def get_layout_transformer(self) -> Any:
        return KeepGraph()

    def get_quantize_registry(self) -> Any:
        return default_8bit_quantize_registry.Default8BitQuantizeRegistry()


def quantize(model: Any) -> Any:
    """Wraps every convolution; the graph stays as it is."""

    def annotate(layer: Any) -> Any:
        copy = layer.__class__.from_config(layer.get_config())
        if not isinstance(layer, CONVOLUTIONS):
            return copy
        return quantization.quantize_annotate_layer(copy, KernelAndOutput())

    with quantization.quantize_scope({"KernelAndOutput": KernelAndOutput}):
        annotated = tf_keras.models.clone_model(model, clone_function=annotate)
        annotated.set_weights(model.get_weights())
        return quantization.quantize_apply(annotated, scheme=KeepScheme())


def network() -> Any:
    image = tf_keras.Input((5, 5, 3), name=keys.IMAGE)
    x = conv(image, "encoder/_a", 2, kernel_size=3, defaults=LayerDefaults())
    x = biased_conv(x, "semantic_last_layer", 2)
    return tf_keras.Model(image, {keys.SEMANTIC_LOGITS: x})


def assert_same_weights(first: Any, second: Any) -> None:
    one, other = variable_paths(first), variable_paths(second)
    assert one.keys() == other.keys()
    for path, variable in one.items():
        np.testing.assert_array_equal(variable, other[path], err_msg=path)


def test_wrapped_weights_keep_their_paths_and_values() -> None:
    plain = network()
    model = quantize(plain)
    assert_same_weights(model, plain)
    ranges = quantizer_paths(model)
    assert not quantizer_paths(plain)
    assert "quantizers/semantic_last_layer/kernel_max" in ranges
    assert "quantizers/semantic_last_layer/output_min" in ranges
    known = {id(v) for v in (variable_paths(model) | ranges).values()}
    assert known == {id(v) for v in model.weights}


def test_ranges_are_not_trained_and_not_decayed() -> None:
    model = quantize(network())
    options = SolverOptions(optimizer="adamw", adamw_weight_decay=0.1)
    (group,) = build_optimizer_groups(options, variable_paths(model))
    moved = {id(v) for v in group.variables}
    assert not moved & {id(v) for v in quantizer_paths(model).values()}
    assert {id(v) for v in model.trainable_weights} == moved
    before = {p: v.numpy() for p, v in variable_paths(model).items()}
    gradients = [(tf.zeros_like(v), v) for v in group.variables]
    group.optimizer.apply_gradients(gradients, skip_gradients_aggregation=True)
    changed = {
        path
        for path, variable in variable_paths(model).items()
        if not np.array_equal(variable.numpy(), before[path])
    }
    assert {path.rpartition("/")[2] for path in changed} == {"kernel"}


def test_a_float_checkpoint_fills_a_quantized_network(tmp_path: Path) -> None:
    plain, model = network(), quantize(network())
    prefix = save_weights(plain, tmp_path / "ckpt")
    assert load_weights(model, prefix).is_exact
    assert_same_weights(model, plain)
    with pytest.raises(CheckpointError, match="holds 0 of the .* ranges"):
        load_quantizers(model, prefix)


@pytest.mark.slow
def test_a_quantized_network_is_trained_resumed_and_read_back(tmp_path: Path) -> None:
    pattern = write_scenes(tmp_path, 2)
    start = trainer.train(experiment(pattern), tmp_path / "float", quiet=True)
    config = experiment(
        pattern,
        {
            "model_options.initial_checkpoint": start.checkpoint,
            "trainer_options.solver_options.training_number_of_steps": 4,
        },
    )

    def train(folder: str, stop_after: int | None = None) -> trainer.TrainingSummary:
        return trainer.train(
            config,
            tmp_path / folder,
            trainer.RunOptions(stop_after=stop_after),
            quiet=True,
            transform_model=quantize,
        )

    whole = train("whole")
    assert whole.restored is not None
    assert whole.restored.num_restored == whole.restored.num_variables
    assert train("broken", stop_after=2).last_step == 2
    resumed = train("broken")
    assert (resumed.first_step, resumed.last_step) == (2, 4)

    plain = build_model(config, input_size=SIZE)
    assert load_weights(plain, resumed.checkpoint).is_exact
    model = quantize(build_model(config, input_size=SIZE))
    assert load_weights(model, whole.checkpoint).is_exact
    assert load_quantizers(model, whole.checkpoint) == len(quantizer_paths(model))
    assert not read_contents(whole.checkpoint).passed_over
    ranges = {p: v.numpy() for p, v in quantizer_paths(model).items()}
    moved = [p for p, v in ranges.items() if p.endswith("kernel_max") and v != 6]
    assert len(moved) == len([p for p in ranges if p.endswith("kernel_max")])
    # An interrupted training arrives where an uninterrupted one does.
    weights = {p: v.numpy() for p, v in variable_paths(model).items()}
    load_quantizers(model, resumed.checkpoint)
    load_weights(model, resumed.checkpoint)
    for path, variable in (variable_paths(model) | quantizer_paths(model)).items():
        np.testing.assert_allclose(
            variable, (weights | ranges)[path], rtol=1e-2, atol=1e-3, err_msg=path
        )
    # A float training does not go on where a quantized one stopped, nor vice versa.
    with pytest.raises(CheckpointError, match="no training of a quantized network"):
        trainer.train(experiment(pattern), tmp_path / "float", transform_model=quantize)
