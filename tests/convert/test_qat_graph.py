"""Where quantizers stand, and that nothing else of a network changes."""

from collections.abc import Sequence
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
from deeplab2_edge.checkpoints import quantizer_paths, variable_paths
from deeplab2_edge.cli.experiments import load_experiment
from deeplab2_edge.convert.qat.annotate import annotate, quantized_parts, set_ranges
from deeplab2_edge.convert.qat.graph import expand
from deeplab2_edge.convert.qat.quantizers import UNSET, PerChannel, bypassed
from deeplab2_edge.errors import UsageError
from deeplab2_edge.layers.activations import activate
from deeplab2_edge.layers.aspp import aspp
from deeplab2_edge.layers.conv import biased_conv, conv, separable_conv
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.resize import resize_to
from deeplab2_edge.layers.squeeze_excite import simplified_squeeze_excite
from deeplab2_edge.models import build_model
from tests.convert.quantized import layer_inputs, run, snr, tiny
from tests.convert.tiny import fill, picture

pytestmark = pytest.mark.tf

DEFAULTS = LayerDefaults()


def test_every_layer_has_its_inputs_in_the_order_of_the_float_network() -> None:
    quantized = tiny()
    wanted = {n: i for n, i in layer_inputs(quantized.plain).items() if len(i) > 1}
    found = layer_inputs(quantized.model)
    assert any("_aspp/_concat" in name for name in wanted)
    for name, inputs in wanted.items():
        # An activation inside a convolution is a layer of its own now.
        assert [i.removesuffix("/activation") for i in found[name]] == inputs, name


# What stands in front of a concatenation: a branch that ends in convolution and
# normalization, a pooled one, a convolution alone, a resized one.
BRANCHES = {
    "a": lambda x, name: conv(x, name, 2, defaults=DEFAULTS),
    "p": lambda x, name: tf_keras.layers.MaxPooling2D(
        3, strides=1, padding="same", name=name
    )(x),
    "c": lambda x, name: biased_conv(x, name, 2),
    "r": lambda x, name: resize_to(
        conv(x, f"{name}/small", 2, stride=2, kernel_size=3, defaults=DEFAULTS),
        x.shape[1:3],
        name,
    ),
}


@pytest.mark.parametrize("order", ["ap", "pa", "abp", "ac", "ca", "ra", "ar", "aaaar"])
def test_concatenations_keep_their_order(order: str) -> None:
    network = joined(order)
    model = annotate(expand(network).model)
    assert layer_inputs(model)["join"] == layer_inputs(network)["join"]
    with bypassed():
        difference = snr(*both(network, model))
    assert difference > 100


def joined(order: Sequence[str]) -> Any:
    """Builds a network of branches that are concatenated."""
    pixels = tf_keras.Input((9, 9, 3), batch_size=1, name=keys.IMAGE)
    branches = [
        BRANCHES["a" if kind == "b" else kind](pixels, f"branch{number}")
        for number, kind in enumerate(order)
    ]
    x = tf_keras.layers.Concatenate(name="join")(branches)
    return finished(pixels, x)


def finished(pixels: Any, x: Any) -> Any:
    """Adds a head whose channels weigh differently."""
    x = biased_conv(x, "semantic_last_layer", 4)
    network = tf_keras.Model(pixels, {keys.SEMANTIC_LOGITS: x})
    fill(network)
    return network


def both(plain: Any, model: Any) -> tuple[Any, Any]:
    """Gives the class scores of two networks."""
    canvas = picture(1, tuple(plain.input_shape[1:3]))
    return (
        run(plain, canvas)[keys.SEMANTIC_LOGITS],
        run(model, canvas)[keys.SEMANTIC_LOGITS],
    )


def test_without_quantizers_the_network_is_the_float_one() -> None:
    quantized, canvas = tiny(), picture(5)
    expected, bounded = (
        run(quantized.plain, canvas),
        run(quantized.expanded.model, canvas),
    )
    with bypassed():
        found = run(quantized.model, canvas)
    assert set(found) == set(expected)
    for name in found:
        assert snr(bounded[name], found[name]) > 200, name
    expected[keys.CENTER_HEATMAP] = expected[keys.CENTER_HEATMAP].clip(0, 1)
    for name in found:
        assert snr(expected[name], found[name]) > 100, name
    assert snr(bounded[name], run(quantized.model, canvas)[name]) < 60


def test_every_convolution_has_a_kernel_quantizer_and_ranges_are_set() -> None:
    model = tiny().model
    kernels = {p for p in variable_paths(model) if p.endswith("kernel")}
    ranges = {p: v.numpy() for p, v in quantizer_paths(model).items()}
    quantized = {p for p in ranges if p.endswith("kernel_max")}
    assert quantized == {f"quantizers/{path}_max" for path in kernels}
    for path, values in ranges.items():
        if path.endswith("_max"):
            low = ranges[path.removesuffix("max") + "min"]
            assert np.isfinite(values).all() and np.isfinite(low).all(), path
            assert (low <= 0).all() and (values > 0).all(), path
            is_gate = path.endswith("gate/output_max")
            assert is_gate or not np.any(values == UNSET), path
            assert not np.any(low == -UNSET), path


def test_kernels_have_a_range_for_each_channel() -> None:
    model = tiny().model
    weights, ranges = variable_paths(model), quantizer_paths(model)
    paths = {path.rpartition("/")[2]: path for path in weights}
    for leaf, axes in (("kernel", (0, 1, 2)), ("depthwise_kernel", (0, 1, 3))):
        largest = np.abs(weights[paths[leaf]].numpy()).max(axis=axes)
        found = ranges[f"quantizers/{paths[leaf]}_max"].numpy()
        np.testing.assert_allclose(found, largest)
        assert len(np.unique(found)) > 1


def test_channels_of_depthwise_kernels_keep_their_resolution() -> None:
    channels = np.array([1000.0, 0.37], np.float32).reshape(1, 1, 2, 1)
    kernel = np.ones((3, 3, 1, 1), np.float32) * channels
    quantizer = PerChannel(axis=2)
    largest = np.abs(kernel).max(axis=(0, 1, 3))
    bounds = {"min_var": tf.constant(-largest), "max_var": tf.constant(largest)}
    found = quantizer(tf.constant(kernel), False, bounds)
    np.testing.assert_allclose(found, kernel, rtol=1e-5)


def test_a_device_rounds_once_behind_what_it_fuses() -> None:
    pixels = tf_keras.Input((9, 9, 3), batch_size=1, name=keys.IMAGE)
    x = conv(pixels, "relu", 4, defaults=DEFAULTS)
    x = conv(x, "swish", 4, activation="hard_swish", defaults=DEFAULTS)
    x = conv(x, "linear", 4, activation="none", defaults=DEFAULTS)
    x = activate(x, "activated", "relu", "fused")
    y = conv(x, "branch", 4, activation="none", defaults=DEFAULTS)
    x = tf_keras.layers.Add(name="sum")([y, x])
    x = tf_keras.layers.ReLU(name="after_sum")(x)
    x = simplified_squeeze_excite(x, "se")
    x = separable_conv(x, "separable", 4, defaults=DEFAULTS, kernel_size=3)
    expanded = expand(finished(pixels, x))
    parts = quantized_parts(expanded.model)
    rounded = {name for name, part in parts.items() if part.output}
    assert rounded == {
        "image/pixels",
        "relu/_activation",
        "swish/_batch_norm",
        "swish/_activation/sixth",
        "swish/_activation/gate",
        "swish/_activation",
        "activated",
        "branch/_batch_norm",
        "after_sum",
        "se/_mean",
        "se/_se_conv",
        "se/_gate/gate",
        "se/_gate",
        "se/_scale",
        "separable/_depthwise/_activation",
        "separable/_pointwise/_activation",
        "semantic_last_layer",
    }
    assert expanded.fixed["swish/_activation/gate"] == (0, 6)
    assert parts["separable/_depthwise/_depthwise_conv"].kernel == "depthwise_kernel"


def test_a_mean_over_the_whole_map_takes_the_range_of_its_input() -> None:
    """A network for crops may pool where one for the canvas has a window."""

    def network(pool_size: tuple[int, int] | None) -> Any:
        pixels = tf_keras.Input((9, 9, 3), batch_size=1, name=keys.IMAGE)
        x = conv(pixels, "encoder", 4, defaults=DEFAULTS)
        x = aspp(
            x,
            "aspp",
            4,
            atrous_rates=(1, 2, 3),
            pool_size=pool_size,
            only_1x1_projection=False,
            defaults=DEFAULTS,
        )
        return expand(finished(pixels, x)).model

    window = quantized_parts(network((5, 5)))
    ranges = {n: (-1.0, float(i + 1)) for i, n in enumerate(window)}
    model = annotate(network(None))
    set_ranges(model, ranges)
    found = quantizer_paths(model)["quantizers/aspp/_aspp_pool/_mean/output_max"]
    assert float(found) == ranges["encoder/_activation"][1]


def test_layers_that_are_not_known_are_refused_by_name() -> None:
    pixels = tf_keras.Input((9, 9, 3), batch_size=1, name=keys.IMAGE)
    x = tf_keras.layers.LayerNormalization(name="encoder/_odd")(pixels)
    with pytest.raises(UsageError, match="encoder/_odd .LayerNormalization.*nearest"):
        expand(finished(pixels, x))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "refused"),
    [
        ("cityscapes_panoptic_mobilenet_v3_large_os32", None),
        ("synthetic_street_panoptic_mobilenet_v3_small_minimalistic", None),
        ("synthetic_street_panoptic_resnet50", None),
        ("synthetic_street_panoptic_wide_resnet41", None),
        ("synthetic_street_deeplabv3_mobilenet_v3_small", None),
        ("synthetic_street_deeplabv3plus_mobilenet_v3_small", None),
        ("synthetic_street_panoptic_swidernet_sac", "SwitchedConv2D"),
        ("synthetic_street_axial_axial_resnet_s", "Attention"),
    ],
)
def test_models_of_convolutions_are_supported(recipe: str, refused: str | None) -> None:
    config = load_experiment(recipe, [])
    size = (65, 129)
    network = build_model(config, input_size=size, batch_size=1)
    if refused is not None:
        with pytest.raises(UsageError, match=refused):
            expand(network)
        return
    fill(network)
    expanded = expand(network)
    kernels = [p for p in variable_paths(network) if p.endswith("kernel")]
    parts = quantized_parts(expanded.model)
    assert len([part for part in parts.values() if part.kernel]) == len(kernels)
    expected, found = both(network, expanded.model)
    assert snr(expected, found) > 100
