"""What an interpreter must not be given, one case each."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert.schema_py_generated")

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from deeplab2_edge import keys
from deeplab2_edge.errors import ModelFileError
from deeplab2_edge.graph_limits import GraphLimits
from deeplab2_edge.model_file import ModelFile, check_graph, read_model_file
from deeplab2_edge.tflite_file.checking import check_content
from deeplab2_edge.tflite_file.decode import decode
from tests.fuzz.corpus import many_ops
from tests.runtime.tiny_model import FLOAT_MODEL, INT8_MODEL
from tests.targets.one_op import (
    OpSpec,
    TensorSpec,
    changed,
    constant,
    conv,
    make_loop,
    model,
    one_op,
    options,
    weights,
)

LIMITS = GraphLimits()
IMAGE = TensorSpec((1, 8, 8, 4), "float32")
KERNEL = weights(6, 3, 3, 4, dtype="float32")
BIAS = weights(6, dtype="float32")
RESULT = TensorSpec((1, 8, 8, 6), "float32")
CONVOLUTION = one_op("CONV_2D", IMAGE, KERNEL, BIAS, RESULT, options=conv())


def check(content: bytes, **arguments: Any) -> Any:
    return check_content(content, limits=LIMITS, **arguments)


def refused(content: bytes, message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        check(content)


def test_files_of_ours_pass() -> None:
    for path in (FLOAT_MODEL, INT8_MODEL):
        check_graph(read_model_file(path))
    ports = check(many_ops())
    assert [port.shape for port in ports.inputs] == [(1, 65, 129, 3)]
    assert sorted(port.name for port in ports.outputs) == sorted(
        (keys.SEMANTIC_LOGITS, keys.CENTER_HEATMAP, keys.OFFSET_MAP)
    )


def test_every_end_and_every_byte() -> None:
    """Whatever stands there is taken or refused, and nothing else happens."""
    num_refused = 0
    for length in range(len(CONVOLUTION)):
        refused(CONVOLUTION[:length], ".")
    for place in range(len(CONVOLUTION)):
        for value in (0, 0xFF, CONVOLUTION[place] ^ 0x80, CONVOLUTION[place] ^ 4):
            damaged = bytearray(CONVOLUTION)
            damaged[place] = value
            try:
                check(bytes(damaged))
            except ModelFileError:
                num_refused += 1
    assert num_refused > 500


def test_an_op_that_is_not_written_is_named_and_may_be_allowed() -> None:
    content = one_op("COS", IMAGE, IMAGE)
    refused(content, r"op 0 \(COS\) is none that .* allow_ops=\['COS'\]")
    assert check(content, allow_ops=["COS"])
    custom = model([IMAGE, IMAGE], [OpSpec("", [0], [1], custom="Evil")], [0], [1])
    refused(custom, r"op 0 \(Evil\) .* allow_ops=\['Evil'\]")
    allowed = dataclasses.replace(file_of(content), allow_ops=("COS",))
    with pytest.raises(ModelFileError, match="outputs of|inputs"):
        check_graph(allowed)  # not refused for its op
    for known in ("DeepLabEdgePanopticMerge", "edgetpu-custom-op"):
        check(model([IMAGE, IMAGE], [OpSpec("", [0], [1], custom=known)], [0], [1]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strideH": 0}, r"strides \[0, 1\]"),
        ({"dilationWFactor": -1}, r"dilations \[1, -1\]"),
        ({"padding": 3}, "padding 3"),
        ({"padding": 1}, r"gives \[1, 6, 6, 6\] where \[1, 8, 8, 6\] stands"),
        ({"strideH": 2}, r"gives \[1, 4, 8, 6\]"),
    ],
)
def test_options_that_divide_by_nothing(change: Any, message: str) -> None:
    made = conv()
    for name, value in change.items():
        setattr(made, name, value)
    refused(one_op("CONV_2D", IMAGE, KERNEL, BIAS, RESULT, options=made), message)


def f32(*shape: int) -> TensorSpec:
    return TensorSpec(shape, "float32")


@pytest.mark.parametrize(
    ("name", "tensors", "made", "message"),
    [
        ("CONV_2D", (IMAGE, KERNEL, RESULT), None, "options of kind 0"),
        ("CONV_2D", (IMAGE, RESULT), conv(), "has 1 inputs"),
        (
            "CONV_2D",
            (IMAGE, weights(6, 3, 3, 5, dtype="float32"), BIAS, RESULT),
            conv(),
            "takes 4 channels with a filter of depth 5",
        ),
        (
            "CONV_2D",
            (IMAGE, KERNEL, weights(5, dtype="float32"), RESULT),
            conv(),
            r"bias of \[5\] for 6",
        ),
        ("ADD", (f32(2, 3), f32(4), f32(2, 3)), options("AddOptions"), "takes"),
        # Fewer bytes than it copies.
        (
            "RESHAPE",
            (f32(8), constant([8]), TensorSpec((8,), "int8")),
            None,
            "makes int8 of float32",
        ),
        ("RESHAPE", (f32(8), constant([9]), f32(9)), None, r"takes \[8\] to \[9\]"),
        ("TRANSPOSE", (f32(2, 3), constant([0, 0]), f32(2, 2)), None, "order"),
        (
            "GATHER",
            (f32(8), constant([0, 8]), f32(2)),
            options("GatherOptions"),
            "picks outside of 8",
        ),
        (
            "SLICE",
            (f32(8), constant([4]), constant([5]), f32(5)),
            None,
            r"cuts \[8\] at \[4\], \[5\]",
        ),
        (
            "CONCATENATION",
            (f32(2, 3), f32(2, 3), f32(2, 6)),
            options("ConcatenationOptions", axis=2),
            "axis 2 of 2",
        ),
        (
            "TOPK_V2",
            (f32(4), constant(5), f32(5)),
            options("TopKV2Options"),
            "has 1 outputs",
        ),
        (
            "RESIZE_BILINEAR",
            (IMAGE, constant([1 << 14, 1 << 14]), IMAGE),
            options("ResizeBilinearOptions"),
            r"gives \[1, 16384, 16384, 4\]",
        ),
        ("PAD", (f32(4), constant([[-1, 1]]), f32(4)), None, "two constants"),
        (
            "FILL",
            (constant([1 << 20]), constant(1.0, "float32"), f32(4)),
            None,
            "gives",
        ),
    ],
)
def test_ops_that_do_not_fit_their_tensors(
    name: str, tensors: Sequence[TensorSpec], made: Any, message: str
) -> None:
    refused(one_op(name, *tensors, options=made), message)


def test_order_and_writing() -> None:
    tensors = [IMAGE, IMAGE, IMAGE]
    backwards = [OpSpec("RELU", [1], [2]), OpSpec("RELU", [0], [1])]
    refused(model(tensors, backwards, [0], [2]), "takes tensor 1, which nothing")
    twice = [OpSpec("RELU", [0], [1]), OpSpec("RELU", [0], [1])]
    refused(model(tensors, twice, [0], [1]), "gives tensor 1, which has values already")
    refused(model(tensors, [OpSpec("RELU", [0], [1])], [0], [2]), "nothing gives one")
    refused(model(tensors, [OpSpec("RELU", [0], [3])], [0], [0]), "tensor 3 of 3")
    refused(model(tensors, [OpSpec("RELU", [-1], [1])], [0], [1]), "tensor -1 of 3")
    into = [constant(np.zeros((1, 8, 8, 4)), "float32"), IMAGE]
    refused(model(into, [OpSpec("RELU", [1], [0])], [1], [0]), "has values already")


def no_scale(made: Any) -> None:
    made.subgraphs[0].tensors[0].quantization.scale = [float("nan")]


def two_scales(made: Any) -> None:
    made.subgraphs[0].tensors[0].quantization.scale = [0.1, 0.1]


def far_zero(made: Any) -> None:
    made.subgraphs[0].tensors[0].quantization.zeroPoint = [200]


@pytest.mark.parametrize("change", [no_scale, two_scales, far_zero])
def test_quantization_that_does_not_fit(change: Any) -> None:
    tensor = TensorSpec((1, 8, 8, 4))
    content = one_op("RELU", tensor, tensor)
    assert check(content)
    refused(changed(content, change), "that do not fit")


def short_buffer(made: Any) -> None:
    made.buffers[1].data = made.buffers[1].data[:-1]


def variable(made: Any) -> None:
    made.subgraphs[0].tensors[0].isVariable = True


def dynamic(made: Any) -> None:
    made.subgraphs[0].tensors[0].shapeSignature = [-1, 8, 8, 4]


def strings(made: Any) -> None:
    made.subgraphs[0].tensors[0].type = schema.TensorType.STRING


def no_side(made: Any) -> None:
    made.subgraphs[0].tensors[0].shape = [1, 0, 8, 4]


def no_network(made: Any) -> None:
    made.subgraphs = []


def foreign_buffer(made: Any) -> None:
    made.subgraphs[0].tensors[0].buffer = 99


def foreign_code(made: Any) -> None:
    made.subgraphs[0].operators[0].opcodeIndex = 7


def far_buffer(made: Any) -> None:
    made.buffers[1].data = None
    made.buffers[1].offset, made.buffers[1].size = 1 << 40, 864


def other_signature(made: Any) -> None:
    signature = schema.SignatureDefT()
    signature.inputs = [schema.TensorMapT()]
    signature.inputs[0].tensorIndex = 50
    made.signatureDefs = [signature]


def other_options(made: Any) -> None:
    made.subgraphs[0].operators[0].largeCustomOptionsOffset = 8


def group(made: Any) -> None:
    made.externalBufferGroups = [schema.ExternalBufferGroupT()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (short_buffer, "has 863 bytes of values"),
        (variable, "sparse, a variable or stored elsewhere"),
        (dynamic, "sides that change"),
        (strings, "has type 5"),
        (no_side, r"sides \[1, 0, 8, 4\]"),
        (no_network, "no network"),
        (foreign_buffer, "buffer 99 of"),
        (foreign_code, "kind of op 7 of"),
        (far_buffer, "behind the end of the graph"),
        (other_signature, "tensor 50 of"),
        (other_options, "options or variables of another kind"),
        (group, "Model has fields that this deeplab2-edge does not know"),
    ],
)
def test_what_the_format_allows_and_we_do_not(change: Any, message: str) -> None:
    refused(changed(CONVOLUTION, change), message)


def test_memory_is_bounded() -> None:
    side = 1 << 15
    large = TensorSpec((1, side, side, 1), "float32")
    content = one_op("RELU", large, large)
    with pytest.raises(ModelFileError, match=r"'tensor0' takes 4.00 GiB.*tensor_bytes"):
        check(content)
    generous = GraphLimits(tensor_bytes=4 << 30, activation_bytes=8 << 30)
    assert check_content(content, limits=generous)
    strict = GraphLimits(tensor_bytes=4 << 30, activation_bytes=7 << 30)
    with pytest.raises(ModelFileError, match="takes 8.00 GiB at once"):
        check_content(content, limits=strict)


def test_only_what_is_alive_counts() -> None:
    """Ten tensors in a row take the memory of two."""
    tensors = [TensorSpec((1, 1 << 10), "float32") for _ in range(11)]
    ops = [OpSpec("RELU", [i], [i + 1]) for i in range(10)]
    content = model(tensors, ops, [0], [10])
    assert check_content(content, limits=GraphLimits(activation_bytes=8 << 10))
    with pytest.raises(ModelFileError, match="at once"):
        check_content(content, limits=GraphLimits(activation_bytes=(8 << 10) - 1))


def test_loops_are_for_files_that_merge() -> None:
    content = changed(one_op("RELU", IMAGE, IMAGE), make_loop)
    assert check(content)
    with pytest.raises(ModelFileError, match="loops where none are needed"):
        check(content, allow_loops=False)
    refused(
        changed(one_op("RELU", IMAGE, IMAGE), lambda made: make_loop(made, body=0)),
        "a loop runs a graph that is not there",
    )


def test_shared_parts_are_counted_each_time() -> None:
    """A short file must not take long because one list is in it two thousand times."""
    builder = flatbuffers.Builder(0)
    shape = builder.CreateNumpyVector(np.ones(5000, np.int32))
    schema.TensorStart(builder)
    schema.TensorAddShape(builder, shape)
    tensor = schema.TensorEnd(builder)
    schema.SubGraphStartTensorsVector(builder, 2000)
    for _ in range(2000):
        builder.PrependUOffsetTRelative(tensor)
    tensors = builder.EndVector()
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, tensors)
    graph = schema.SubGraphEnd(builder)
    schema.ModelStartSubgraphsVector(builder, 1)
    builder.PrependUOffsetTRelative(graph)
    graphs = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddSubgraphs(builder, graphs)
    builder.Finish(schema.ModelEnd(builder), b"TFL3")
    with pytest.raises(ModelFileError, match="its lists are longer than itself"):
        decode(bytes(builder.Output()))


def file_of(graph: bytes, **changes: Any) -> ModelFile:
    found = read_model_file(FLOAT_MODEL)
    metadata = dataclasses.replace(
        found.metadata, graph_sha256=hashlib.sha256(graph).hexdigest(), **changes
    )
    return ModelFile(graph, metadata)


def test_the_graph_must_be_what_the_metadata_says() -> None:
    graph = read_model_file(FLOAT_MODEL).graph

    def second_input(made: Any) -> None:
        network = made.subgraphs[0]
        network.tensors.append(network.tensors[network.inputs[0]])
        network.inputs = [*network.inputs, len(network.tensors) - 1]

    with pytest.raises(ModelFileError, match="takes 2 tensors, its metadata"):
        check_graph(file_of(changed(graph, second_input)))

    def one_name(made: Any) -> None:
        for index in made.subgraphs[0].outputs:
            made.subgraphs[0].tensors[index].name = b"head"

    with pytest.raises(ModelFileError, match="two outputs of the graph have one name"):
        check_graph(file_of(changed(graph, one_name)))
    with pytest.raises(ModelFileError, match="tiny: damaged: it refers to byte 32"):
        check_graph(file_of(b"\x20\0\0\0TFL3" + bytes(3)))
