"""ONNX files without the onnx package: properties behind, suspicion in front."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deeplab2_edge.errors import ModelFileError
from deeplab2_edge.onnx_file import (
    append_properties,
    graph_length,
    is_onnx,
    read_properties,
    summarize,
)

onnx = pytest.importorskip("onnx", reason="install deeplab2-edge[onnx] to run")

PROPERTIES = {
    "deeplab2_edge.json": '{"name": "straße"}',
    "deeplab2_edge.golden": "x" * 300,
}


def _model(**properties: str) -> Any:
    """Builds y = x + w, with opset 17."""
    tensor = onnx.helper.make_tensor_value_info
    weights = onnx.numpy_helper.from_array(np.ones(4, np.float32), "w")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "w"], ["y"])],
        "plain",
        [tensor("x", onnx.TensorProto.FLOAT, [4])],
        [tensor("y", onnx.TensorProto.FLOAT, [4])],
        [weights],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.helper.set_model_props(model, properties)
    return model


MODEL = _model()
CONTENT = MODEL.SerializeToString()


def test_appended_properties_are_read_back() -> None:
    extended = append_properties(CONTENT, PROPERTIES)
    assert read_properties(extended) == PROPERTIES
    assert extended[: graph_length(extended)] == CONTENT


def test_onnx_and_its_checker_take_appended_properties() -> None:
    extended = onnx.load_from_string(append_properties(CONTENT, PROPERTIES))
    onnx.checker.check_model(extended, full_check=True)
    assert {p.key: p.value for p in extended.metadata_props} == PROPERTIES
    del extended.metadata_props[:]
    assert extended == MODEL


def test_onnx_runtime_sees_appended_properties() -> None:
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(
        append_properties(CONTENT, PROPERTIES), providers=["CPUExecutionProvider"]
    )
    assert session.get_modelmeta().custom_metadata_map == PROPERTIES
    (y,) = session.run(None, {"x": np.zeros(4, np.float32)})
    assert y.tolist() == [1, 1, 1, 1]


def test_properties_of_others_belong_to_the_model() -> None:
    content = _model(author="somebody").SerializeToString()
    extended = append_properties(content, PROPERTIES)
    assert read_properties(extended) == {"author": "somebody", **PROPERTIES}
    assert graph_length(extended) == len(content)


def test_model_without_properties_ends_at_its_end() -> None:
    assert read_properties(CONTENT) == {}
    assert graph_length(CONTENT) == len(CONTENT)


def test_what_follows_a_property_is_not_appended() -> None:
    author = b"\x1a\x03abc"  # producer_version
    hidden = append_properties(CONTENT, PROPERTIES) + author
    assert graph_length(hidden) == len(hidden)


def test_key_must_be_new_and_ours() -> None:
    extended = append_properties(CONTENT, PROPERTIES)
    with pytest.raises(ModelFileError, match="already"):
        append_properties(extended, {"deeplab2_edge.json": "{}"})
    with pytest.raises(ValueError, match="does not start with"):
        append_properties(CONTENT, {"author": "me"})


def test_property_given_twice_is_refused() -> None:
    tail = append_properties(CONTENT, PROPERTIES)[len(CONTENT) :]
    with pytest.raises(ModelFileError, match="twice"):
        read_properties(CONTENT + tail + tail)


def test_two_graphs_are_refused() -> None:
    # Protobuf would merge them into one.
    with pytest.raises(ModelFileError, match="2 graphs"):
        read_properties(CONTENT + b"\x3a\x00")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 hello",
        b"\x1c\x00\x00\x00TFL3" + bytes(64),
        b"\x89PNG\r\n\x1a\n" * 9,
        CONTENT[:-1],
        CONTENT[: len(CONTENT) // 2],
        b"\x08" + b"\xff" * 12,  # a number that never ends
        b"\x3a\xff\xff\xff\xff\x7f",  # a graph longer than the file
        b"\x0b\x0c",  # a group, which protobuf gave up
    ],
)
def test_other_files_are_refused(content: bytes) -> None:
    assert not is_onnx(content)
    with pytest.raises(ModelFileError, match="not an ONNX file"):
        read_properties(content)


def test_absurdly_many_fields_are_refused_soon() -> None:
    with pytest.raises(ModelFileError, match="fields"):
        summarize(CONTENT + b"\x28\x01" * (1 << 21))


def test_summary_counts_ops() -> None:
    summary = summarize(CONTENT)
    assert summary.ir_version == 8
    assert summary.opsets == {"": 17}
    assert summary.op_counts == {"Add": 1}
    assert summary.num_tensors == 3
    summary.check_self_contained()


def test_summary_finds_external_data_in_constants_and_nested_graphs() -> None:
    def external(tensor: Any) -> None:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../../etc/passwd")

    plain = _model()
    external(plain.graph.initializer[0])
    nested = _model()
    branch = onnx.helper.make_node("If", ["c"], ["z"])
    inner = _model().graph
    external(inner.initializer[0])
    branch.attribute.append(onnx.helper.make_attribute("then_branch", inner))
    nested.graph.node.append(branch)
    for model in (plain, nested):
        summary = summarize(model.SerializeToString())
        assert summary.has_external_data
        with pytest.raises(ModelFileError, match="other files"):
            summary.check_self_contained()


def test_ops_that_are_not_standard_are_refused() -> None:
    model = _model()
    model.graph.node[0].domain = "com.example"
    with pytest.raises(ModelFileError, match=r"com\.example\.Add"):
        summarize(model.SerializeToString()).check_self_contained()
    model = _model()
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    with pytest.raises(ModelFileError, match="com.example"):
        summarize(model.SerializeToString()).check_self_contained()


@pytest.mark.parametrize("op", ["Loop", "If", "Scan"])
def test_loops_and_branches_are_refused(op: str) -> None:
    model = _model()
    model.graph.node[0].op_type = op
    with pytest.raises(ModelFileError, match=op):
        summarize(model.SerializeToString()).check_self_contained()


@pytest.mark.parametrize(
    ("rounds", "is_allowed"),
    [([50], True), ([50, 1024], True), ([1 << 18], False), ([-1], False)],
)
def test_loops_must_say_when_they_end(rounds: list[int], is_allowed: bool) -> None:
    model = _model()
    body = onnx.helper.make_graph([], "body", [], [])
    for index, count in enumerate(rounds):
        name = f"rounds{index}"
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(np.array(count, np.int64), name)
            if index
            else onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [], [count])
        )
        node = onnx.helper.make_node("Loop", [name, ""], [f"z{index}"], body=body)
        model.graph.node.append(node)
    summary = summarize(model.SerializeToString())
    if is_allowed:
        summary.check_self_contained()
    else:
        with pytest.raises(ModelFileError, match="run for long"):
            summary.check_self_contained()
    # A number that is computed is none that the file states.
    model.graph.node.append(onnx.helper.make_node("Neg", ["x"], ["rounds0"]))
    assert summarize(model.SerializeToString()).loop_rounds is None


def test_outputs_that_were_integers_are_found() -> None:
    model = _model()
    model.graph.node[0].op_type = "DequantizeLinear"
    assert summarize(model.SerializeToString()).integer_outputs == {"y"}
    model.graph.node[0].output[0] = "z"
    model.graph.node.append(onnx.helper.make_node("Transpose", ["z"], ["y"]))
    assert summarize(model.SerializeToString()).integer_outputs == {"y"}
    model.graph.node[1].op_type = "Relu"
    assert summarize(model.SerializeToString()).integer_outputs == frozenset()
    # In a circle.
    model.graph.node[1].CopyFrom(onnx.helper.make_node("Transpose", ["y"], ["y"]))
    assert summarize(model.SerializeToString()).integer_outputs == frozenset()


def test_functions_are_refused() -> None:
    model = _model()
    model.functions.add(name="f", domain="mine")
    with pytest.raises(ModelFileError, match="functions"):
        summarize(model.SerializeToString()).check_self_contained()


def test_graphs_within_graphs_end() -> None:
    graph = onnx.helper.make_graph([], "g", [], [])
    for _ in range(20):
        node = onnx.helper.make_node("If", ["c"], ["z"], then_branch=graph)
        graph = onnx.helper.make_graph([node], "g", [], [])
    model = onnx.helper.make_model(graph)
    with pytest.raises(ModelFileError, match="deep"):
        summarize(model.SerializeToString())


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damage_never_escapes_the_error_family(data: st.DataObject) -> None:
    content = bytearray(append_properties(CONTENT, PROPERTIES))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    for read in (read_properties, graph_length, summarize):
        try:
            read(bytes(content))
        except ModelFileError:
            pass


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64))
@example(b"\x08\x08\x3a\x00")
def test_any_bytes_are_judged(content: bytes) -> None:
    if is_onnx(content):
        assert 0 <= graph_length(content) <= len(content)


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=8).map(lambda text: "deeplab2_edge." + text),
        st.text(max_size=300),
        max_size=4,
    )
)
def test_any_text_survives(properties: dict[str, str]) -> None:
    assert read_properties(append_properties(CONTENT, properties)) == properties
