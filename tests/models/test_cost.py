"""The cost of networks, against counts made in another way."""

import math
from typing import Any

import pytest

from deeplab2_edge.cli.experiments import load_experiment

pytestmark = pytest.mark.tf
tf = pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge.layers.axial_attention import (  # noqa: E402
    AttentionOptions,
    axial_attention,
)
from deeplab2_edge.layers.defaults import LayerDefaults  # noqa: E402
from deeplab2_edge.layers.dual_path import (  # noqa: E402
    DualPathOptions,
    dual_path_transformer,
)
from deeplab2_edge.layers.switchable_atrous import SwitchedConv2D  # noqa: E402
from deeplab2_edge.models import build_model  # noqa: E402
from deeplab2_edge.models.cost import inference_graph, model_cost, network_cost  # noqa: E402
from deeplab2_edge.optional import require  # noqa: E402

tf_keras: Any = require("tf_keras", extra="train")

DEFAULTS = LayerDefaults()
# Every kind of layer, a quarter as wide as published.
NETWORKS = [
    "cityscapes_dvps_vip_resnet50_beta_os32",
    "cityscapes_panoptic_swidernet_sac_1_1_1_os16",
    "cityscapes_axial_axial_swidernet_1_1_1_os16",
    pytest.param("coco_max_deeplab_s_os16_res641_100k", marks=pytest.mark.slow),
]


def test_a_convolutional_network_costs_what_its_layers_do() -> None:
    # Output stride 8: dilated depthwise convolutions, which Keras rearranges.
    config = load_experiment(
        "synthetic_street_mobilenet_v3_small",
        ["model_options.backbone.output_stride=8"],
    )
    model = build_model(config, input_size=(65, 97), batch_size=1)
    expected = 0
    for layer in model.layers:
        if isinstance(layer, tf_keras.layers.DepthwiseConv2D):
            kernel = layer.depthwise_kernel
        elif isinstance(layer, tf_keras.layers.Conv2D):
            kernel = layer.kernel
        else:
            continue
        _, height, width, _ = layer.output.shape
        expected += height * width * math.prod(kernel.shape)
    assert model_cost(model).multiply_adds == expected


@pytest.mark.parametrize("name", NETWORKS)
def test_products_are_those_of_the_profiler(name: str) -> None:
    config = load_experiment(
        name, ["model_options.backbone.backbone_width_multiplier=0.25"]
    )
    model = build_model(config, input_size=(65, 97), batch_size=1)
    graph = inference_graph(model)
    profiler = tf.compat.v1.profiler
    options = profiler.ProfileOptionBuilder(
        profiler.ProfileOptionBuilder.float_operation()
    )
    kinds = ["Conv2D", "DepthwiseConv2dNative", "MatMul", "BatchMatMulV2"]
    options = options.with_accounted_types(kinds).with_empty_output().build()
    with graph.as_default():
        profile = profiler.profile(graph, options=options)
    # It counts a multiplication and an addition as two.
    assert model_cost(model).multiply_adds == profile.total_float_ops / 2


def test_axial_attention_by_hand() -> None:
    x = tf_keras.Input((5, 7, 6), batch_size=1)
    options = AttentionOptions(num_heads=2)
    y = axial_attention(x, "attention", 8, options=options, defaults=DEFAULTS)
    # 8 channels of queries, 8 of keys, 16 of values: 32 to project to.
    depth = 3 * 8 + 2 * 16  # content, query and key positions; values, positions
    height = 5 * 7 * 6 * 32 + 7 * 5 * 5 * depth
    width = 5 * 7 * 16 * 32 + 5 * 7 * 7 * depth
    assert model_cost(tf_keras.Model(x, y)).multiply_adds == height + width


def test_dual_path_transformer_by_hand() -> None:
    pixels = tf_keras.Input((3, 5, 12), batch_size=1)
    memory = tf_keras.Input((4, 10), batch_size=1)
    options = DualPathOptions(num_heads=2, feed_forward_network_channels=20)
    outputs = dual_path_transformer(
        pixels, memory, "transformer", 8, options=options, defaults=DEFAULTS
    )
    whole = tf_keras.Input((15 * 12 + 4 * 10,), batch_size=1)
    parts = (
        tf_keras.layers.Reshape((3, 5, 12))(whole[:, : 15 * 12]),
        tf_keras.layers.Reshape((4, 10))(whole[:, 15 * 12 :]),
    )
    inner = tf_keras.Model([pixels, memory], outputs)
    # A bottleneck of 16, then 8 + 8 + 16 for queries, keys and values.
    of_pixels = 15 * (12 * 16 + 16 * 32 + 16 * 12)
    of_memory = 4 * (10 * 16 + 16 * 32 + 16 * 10 + 2 * 10 * 20)
    attention = (4 * (15 + 4) + 15 * 4) * (8 + 16)
    assert model_cost(tf_keras.Model(whole, inner(parts))).multiply_adds == (
        of_pixels + of_memory + attention
    )


def test_a_switchable_convolution_is_two() -> None:
    x = tf_keras.Input((9, 9, 4), batch_size=1)
    switch = tf_keras.layers.Conv2D(1, 1)(x)
    y = SwitchedConv2D(6, 3, 1)([x, switch])
    expected = 9 * 9 * 4 + 2 * 9 * 9 * (3 * 3 * 4 * 6)
    assert model_cost(tf_keras.Model(x, y)).multiply_adds == expected


def test_what_is_not_read_has_parameters_only() -> None:
    x = tf_keras.Input((8, 8, 3), batch_size=1)
    model = tf_keras.Model(x, tf_keras.layers.Conv2D(2, 1)(x))
    unread = tf_keras.layers.Conv2D(5, 1)
    unread.build((1, 8, 8, 3))
    model.unread_layers = [unread]
    cost = model_cost(model)
    assert cost.parameters == cost.trainable_parameters == (6 + 2) + (15 + 5)
    assert cost.multiply_adds == 8 * 8 * 6


def test_memory_is_the_most_that_is_alive_at_once() -> None:
    x = tf_keras.Input((8, 8, 1), batch_size=1)
    wide = tf_keras.layers.Conv2D(4, 1, use_bias=False)(x)  # 1024 bytes
    wide = tf_keras.layers.ReLU()(wide)  # in their place
    wide = tf_keras.layers.Reshape((16, 4, 4))(wide)  # the same bytes
    narrow = tf_keras.layers.Conv2D(2, 1, use_bias=False)(wide)  # 512 more
    assert model_cost(tf_keras.Model(x, narrow)).activation_bytes == 1024 + 512
    # A shortcut keeps what it starts from.
    total = tf_keras.layers.Concatenate()([narrow, wide])
    cost = model_cost(tf_keras.Model(x, total))
    assert cost.activation_bytes == 1024 + 512 + 1536
    assert cost.memory_bytes == 1024 + 512 + 1536 + 4 * (4 + 8)


def test_a_network_without_values_costs_the_same() -> None:
    config = load_experiment("synthetic_street_mobilenet_v3_small", [])
    model = build_model(config, input_size=(65, 65), batch_size=1)
    assert network_cost(config, input_size=(65, 65)) == model_cost(model)
