"""Float graphs of every family: their ops, ranks and values."""

import collections
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")

from deeplab2_edge import keys
from deeplab2_edge.convert.export import export_graph
from deeplab2_edge.convert.forms import Forms, forms_for
from deeplab2_edge.graph_limits import GraphLimits
from deeplab2_edge.models.inference import InferenceNetwork
from deeplab2_edge.optional import require
from deeplab2_edge.targets.gpu import check_gpu
from deeplab2_edge.tflite_file.checking import check_content
from deeplab2_edge.tflite_file.graph import Graph, Op, read_graph
from tests.convert.networks import (
    assert_close,
    build,
    converted,
    expected_heads,
    experiment,
    run,
)

tf: Any = require("tensorflow", extra="convert")

pytestmark = pytest.mark.tf

# What every convolutional network is made of.
CONVOLUTIONAL = {
    *("ADD", "CAST", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "MEAN", "MUL"),
    "RESIZE_BILINEAR",
}
MOBILE = {*CONVOLUTIONAL, "HARD_SWISH", "LOGISTIC"}
ATTENTION = {
    *CONVOLUTIONAL,
    *("BATCH_MATMUL", "FULLY_CONNECTED", "PAD", "RELU", "RESHAPE", "SLICE"),
    *("SOFTMAX", "SPLIT", "SPLIT_V", "STRIDED_SLICE", "TRANSPOSE"),
}
BUILTIN, EINSUM = Forms(axial="builtin"), Forms(axial="einsum")
GPU = forms_for("gpu", "none")


@dataclass(frozen=True)
class Case:
    """Is a network in certain forms, and what it may consist of.

    Attributes:
        architecture: See `networks.experiment`.
        backbone: Likewise.
        ops: Ops that may occur.
        transposes: How many TRANSPOSE there are.
        forms: In which it is built.
        crop_width: See `networks.experiment`.
    """

    architecture: str
    backbone: str = "mobilenet"
    ops: set[str] = field(default_factory=lambda: MOBILE)
    transposes: int = 0
    forms: Forms = EINSUM
    crop_width: int = 65


CASES = {
    "deeplab_v3": Case("deeplab_v3"),
    "deeplab_v3_plus": Case("deeplab_v3_plus"),
    "panoptic_mobilenet": Case("panoptic_deeplab"),
    "panoptic_pool_window": Case(
        "panoptic_deeplab", ops={*MOBILE, "AVERAGE_POOL_2D"}, crop_width=33
    ),
    "panoptic_resnet": Case("panoptic_deeplab", "resnet", CONVOLUTIONAL),
    "panoptic_sac": Case(
        "panoptic_deeplab", "sac", {*CONVOLUTIONAL, "AVERAGE_POOL_2D", "SUB"}
    ),
    "motion": Case("motion_deeplab"),
    "vip": Case("vip_deeplab"),
    "axial_builtin": Case("panoptic_deeplab", "axial", ATTENTION, 14, BUILTIN),
    "axial_einsum": Case("panoptic_deeplab", "axial", ATTENTION, 34, EINSUM),
    "wide_axial_builtin": Case(
        "panoptic_deeplab", "wide_axial", ATTENTION, 14, BUILTIN
    ),
    "max_builtin": Case(
        "max_deeplab", "max", {*ATTENTION, "L2_NORMALIZATION"}, 19, BUILTIN
    ),
    "max_einsum": Case(
        "max_deeplab", "max", {*ATTENTION, "L2_NORMALIZATION"}, 47, EINSUM
    ),
    # Three for each of 4 resizes per decoder; those of one pixel stay an op.
    "panoptic_gpu": Case(
        "panoptic_deeplab", ops={*MOBILE, "TRANSPOSE"}, transposes=12, forms=GPU
    ),
}
# Those that differ little from another case.
_SLOW = {
    *("panoptic_pool_window", "panoptic_resnet", "axial_einsum"),
    *("wide_axial_builtin", "max_einsum"),
}
NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] if name in _SLOW else [])
    for name in CASES
]


class Result:
    """Holds the file of a case and what it gives."""

    def __init__(self, case: Case) -> None:
        config = experiment(
            case.architecture, case.backbone, crop_width=case.crop_width
        )
        inputs, self.expected = expected_heads(config)
        self.content = converted(config, case.forms)
        self.graph = read_graph(self.content)
        self.found = run(self.content, inputs)


_results: dict[str, Result] = {}


def result(name: str) -> Result:
    if name not in _results:
        _results[name] = Result(CASES[name])
    return _results[name]


@pytest.mark.parametrize("name", NAMES)
def test_file_gives_the_values_of_the_model(name: str) -> None:
    assert_close(result(name).found, result(name).expected)


@pytest.mark.parametrize("name", NAMES)
def test_file_passes_the_checks_of_the_runtime(name: str) -> None:
    assert check_content(result(name).content, limits=GraphLimits(), allow_loops=False)


@pytest.mark.parametrize("name", NAMES)
def test_ops_are_builtin_and_expected(name: str) -> None:
    graph = result(name).graph
    counts = collections.Counter(op.name for op in graph.ops)
    assert not any(op.is_custom for op in graph.ops)
    assert set(counts) <= CASES[name].ops, counts
    assert counts["TRANSPOSE"] == CASES[name].transposes, counts


@pytest.mark.parametrize("name", NAMES)
def test_shapes_are_static_and_of_rank_4_at_most(name: str) -> None:
    graph = result(name).graph
    assert graph.num_subgraphs == 1
    for tensor in tensors_of(graph):
        assert len(tensor.shape) <= 4, tensor.name
        assert not tensor.is_dynamic, tensor.name


@pytest.mark.parametrize("name", NAMES)
def test_batch_norms_are_folded(name: str) -> None:
    names = [op.outputs[0].name for op in unfolded_norms(result(name).graph)]
    if name == "panoptic_sac":
        # A context, of the mean of all pixels, lies between the two convolutions and
        # their normalization.
        assert len(names) == 1 and "_conv2_bn_act" in names[0]
    elif name == "max_einsum":
        # Logits and what is retrieved are normalized behind a split into heads.
        assert names and all("_attention/" in n or "mask" in n for n in names)
    else:
        assert names == []


def test_networks_for_gpus_are_taken_whole() -> None:
    assert check_gpu(result("panoptic_gpu").graph).num_partitions == 1
    assert not check_gpu(result("panoptic_gpu").graph).inner_findings
    assert not check_gpu(result("axial_builtin").graph).inner_findings


@pytest.mark.slow
def test_attention_in_builtin_form_moves_less() -> None:
    for family in ("axial", "max"):
        folded, plain = (
            collections.Counter(op.name for op in result(f"{family}_{form}").graph.ops)
            for form in ("builtin", "einsum")
        )
        assert 2 * folded["TRANSPOSE"] < plain["TRANSPOSE"]
        assert folded["BATCH_MATMUL"] < plain["BATCH_MATMUL"]


def test_inputs_and_outputs_have_their_names() -> None:
    assert {tensor.name.split(":")[0] for tensor in result("motion").graph.inputs} >= {
        "serving_default_image",
        "serving_default_previous_image",
        "serving_default_previous_heatmap",
    }
    assert set(result("vip").found) == {
        keys.SEMANTIC_LOGITS,
        keys.CENTER_HEATMAP,
        keys.OFFSET_MAP,
        keys.NEXT_OFFSET_MAP,
        keys.DEPTH_PRED,
        "features_res5",
    }
    assert set(result("max_builtin").found) == {
        keys.PIXEL_SPACE_MASK_LOGITS,
        keys.TRANSFORMER_CLASS_LOGITS,
    }


def test_two_frames_share_one_encoder() -> None:
    """A frame pair costs one encoder: the other frame's features are an input."""
    single = result("panoptic_mobilenet").graph
    pair = result("vip").graph
    assert count(pair, "HARD_SWISH") == count(single, "HARD_SWISH")


def test_masks_leave_the_semantic_branch_out() -> None:
    names = {tensor.name for tensor in tensors_of(result("max_builtin").graph)}
    assert not any("semantic_" in name for name in names)


def test_graph_for_integers_takes_float_pixels_and_bounds_centers() -> None:
    config = experiment("motion_deeplab")
    model = build(config)
    exported = export_graph(model, config, for_integers=True)
    assert exported.input_names == (
        keys.IMAGE,
        keys.PREVIOUS_IMAGE,
        keys.PREVIOUS_HEATMAP,
    )
    assert {x.dtype for x in exported.function.inputs[:3]} == {tf.float32}
    inputs, expected = expected_heads(config)
    heads = exported.function(
        **{name: tf.constant(x, tf.float32) for name, x in inputs.items()}
    )
    expected[keys.CENTER_HEATMAP] = np.clip(expected[keys.CENTER_HEATMAP], 0, 1)
    for name in exported.output_names:
        np.testing.assert_allclose(heads[name], expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_networks_agree_in_all_forms_before_conversion() -> None:
    config = experiment("max_deeplab", "max")
    inputs, expected = expected_heads(config)
    for forms in (BUILTIN, BUILTIN.replace(resize="matmul")):
        heads = InferenceNetwork(build(config, forms), config)(inputs)
        assert_close({n: x.numpy() for n, x in heads.items()}, expected)


def tensors_of(graph: Graph) -> list[Any]:
    return [
        tensor
        for op in graph.ops
        for tensor in (*op.inputs, *op.outputs)
        if tensor is not None
    ]


def count(graph: Graph, name: str) -> int:
    return sum(op.name == name for op in graph.ops)


def unfolded_norms(graph: Graph) -> list[Op]:
    """Finds ADD of a constant behind MUL with a constant, one number per channel.

    The normalization of pixels, two single numbers, is none.
    """
    makers = {id(op.outputs[0]): op for op in graph.ops}

    def factor(op: Op) -> Any:
        (constant,) = op.constants if len(op.constants) == 1 else (None,)
        return constant

    found = []
    for op in graph.ops:
        if op.name != "ADD" or factor(op) is None or factor(op).num_elements == 1:
            continue
        before = makers.get(id(op.computed[0]))
        if before is not None and before.name == "MUL" and factor(before) is not None:
            found.append(op)
    return found
