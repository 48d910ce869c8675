"""Files that nobody vouches for: an error or a check, never anything else."""

import random

import pytest

from deeplab2_edge.errors import ModelFileError
from deeplab2_edge.targets import CHECKED_TARGETS, check_graph, read_graph
from deeplab2_edge.targets.edge_tpu import nearest_canvas
from deeplab2_edge.targets.report import check_document, format_check
from tests.runtime.tiny_model import INT8_MODEL
from tests.targets import test_edge_tpu
from tests.targets.one_op import OpSpec, TensorSpec, constant, model, one_op

pytest.importorskip("ai_edge_litert.schema_py_generated")

FILES = [
    test_edge_tpu.convolution(),
    test_edge_tpu.concatenation(test_edge_tpu.tensor(), test_edge_tpu.tensor()),
    test_edge_tpu.mean([1, 2]),
    test_edge_tpu.resize((17, 33)),
    test_edge_tpu.split(3),
    test_edge_tpu.strided_slice(1),
    test_edge_tpu.fully_connected(1),
    test_edge_tpu.padding(0),
    one_op("MUL", *[TensorSpec([1, 8, 8, 4])] * 3),
    one_op("BATCH_MATMUL", *[TensorSpec([1, 8, 8, 4], "float32")] * 3),
    one_op("GATHER", TensorSpec([8, 4]), constant([1, 2]), TensorSpec([2, 4])),
    one_op("TRANSPOSE", TensorSpec([2, 3]), constant([1, 0]), TensorSpec([3, 2])),
]


def check_all(content: bytes) -> None:
    """Does everything that `inspect --target` does."""
    try:
        graph = read_graph(content)
    except ModelFileError:
        return
    for target in CHECKED_TARGETS:
        check = check_graph(graph, target)
        assert 0 <= check.mapped_share <= check.possible_share <= 1
        assert format_check(check) and format_check(check, every_op=True)
        check_document(check)
    nearest_canvas(graph)


@pytest.mark.parametrize("content", FILES)
def test_damaged_files(content: bytes) -> None:
    draw = random.Random(1)
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(draw.choice((1, 2, 4))):
            place = draw.randrange(8, len(damaged))
            damaged[place] = draw.choice((0, 1, 2, 4, 127, 128, 255))
        check_all(bytes(damaged))


def test_a_damaged_file_of_ours() -> None:
    content = INT8_MODEL.read_bytes()
    draw = random.Random(2)
    for _ in range(100):
        damaged = bytearray(content)
        for _ in range(4):
            damaged[draw.randrange(8, len(damaged))] = draw.choice((0, 1, 127, 255))
        check_all(bytes(damaged))


@pytest.mark.parametrize("name", ["ADD", "MUL", "MEAN", "CONV_2D", "SPLIT", "PAD"])
def test_ops_without_tensors(name: str) -> None:
    tensors = [TensorSpec([1, 8, 8, 4]), TensorSpec([1, 8, 8, 4])]
    for inputs, outputs in (([], [1]), ([0], []), ([-1, 0], [1]), ([0, -1], [1])):
        check_all(model(tensors, [OpSpec(name, inputs, outputs)], [0], [1]))


def test_sides_beyond_all_memory() -> None:
    huge = TensorSpec([1 << 30] * 4)
    check_all(one_op("MUL", huge, huge, huge))
    check_all(one_op("CONV_2D", huge, huge, huge))


def test_names_cannot_move_the_cursor() -> None:
    tensors = [TensorSpec([1, 4], name="a\x1b[2Jb"), TensorSpec([1, 4])]
    op = OpSpec("", [0], [1], custom="\x1b]0;title\x07" + "x" * 5000)
    graph = read_graph(model(tensors, [op], [0], [1]))
    assert graph.inputs[0].name == "a?[2Jb"
    assert graph.ops[0].name.isprintable() and len(graph.ops[0].name) == 200
