"""Passes over ONNX graphs: each mends one thing and keeps the values."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx", reason="install deeplab2-edge[onnx]")
pytest.importorskip("onnxruntime", reason="install deeplab2-edge[onnx]")

from deeplab2_edge.convert.onnx import passes
from deeplab2_edge.convert.onnx.passes import Graph, attribute, infer_shapes
from deeplab2_edge.errors import ConversionError
from deeplab2_edge.optional import require

onnx = require("onnx", extra="onnx")
ort = require("onnxruntime", extra="onnx")


def parse(text: str, **constants: Any) -> Any:
    """Builds a model from the text form of ONNX, with constants by name."""
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> network {text}'
    )
    for name, value in constants.items():
        tensor = onnx.numpy_helper.from_array(np.asarray(value), name)
        model.graph.initializer.append(tensor)
    for place, node in enumerate(model.graph.node):
        node.name = node.name or f"net/layer{place}/{node.op_type}__{place}"
    return model


def run(model: Any, **inputs: NDArray[Any]) -> list[NDArray[Any]]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found: list[NDArray[Any]] = session.run(None, inputs)
    return found


def ops(model: Any) -> list[str]:
    return [node.op_type for node in model.graph.node]


def noise(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def apply(model: Any, change: Callable[[Graph], None], **inputs: NDArray[Any]) -> Any:
    """Applies a pass and checks that values stay as they were."""
    before = run(model, **inputs)
    change(Graph(model))
    onnx.checker.check_model(model)
    for old, new in zip(before, run(model, **inputs), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-5)
    return model


ALIGNED = 'Resize <coordinate_transformation_mode = "align_corners", mode = "linear">'


@pytest.mark.parametrize("sides", [(17, 33, 65), (9, 17, 33), (65, 129), (3, 5, 9)])
def test_resize_keeps_odd_sizes(sides: tuple[int, ...]) -> None:
    first = sides[0]
    names = ["x", *(f"t{i}" for i in range(len(sides) - 2)), "y"]
    body = "".join(
        f"{new} = {ALIGNED} ({old}, , factors{place}) "
        for place, (old, new) in enumerate(zip(names, names[1:], strict=False))
    )
    factors = {
        f"factors{i}": np.array([1, 1, new / old, new / old], np.float32)
        for i, (old, new) in enumerate(zip(sides, sides[1:], strict=False))
    }
    last = sides[-1]
    model = parse(
        f"(float[1,2,{first},{first}] x) => (float[1,2,{last},{last}] y) {{ {body} }}",
        **factors,
    )
    passes.set_resize_sizes(Graph(model))
    onnx.checker.check_model(model)
    assert all(len(n.input) == 4 and not n.input[2] for n in model.graph.node)
    shapes = infer_shapes(model)
    assert [shapes[name][2] for name in names] == list(sides)
    x = noise(1, 2, first, first)
    (y,) = run(model, x=x)
    for corner in (0, -1):
        np.testing.assert_allclose(
            y[..., corner, corner], x[..., corner, corner], rtol=1e-5
        )


def test_resize_to_a_size_of_the_image_is_refused() -> None:
    model = parse(
        "(float[1,2,5,5] x, float[4] f) => (float[1,2,H,W] y) "
        f"{{ y = {ALIGNED} (x, , f) }}"
    )
    with pytest.raises(ConversionError, match="depends on the image"):
        passes.set_resize_sizes(Graph(model))


def test_idle_layout_ops_go() -> None:
    model = apply(
        parse(
            """(float[1,4,1,6] x) => (float[1,4,1,6] y) {
            a = Reshape (x, same)
            b = Identity (a)
            c = Transpose <perm = [2, 1, 0, 3]> (b)
            d = Relu (c)
            y = Reshape (d, same)
            }""",
            same=np.array([1, 4, 1, 6], np.int64),
        ),
        passes.remove_idle_layout_ops,
        x=noise(1, 4, 1, 6),
    )
    assert ops(model) == ["Relu", "Reshape"]  # the last one gives the output its name


def test_transpose_that_moves_values_stays() -> None:
    model = apply(
        parse(
            """(float[1,4,4,6] x) => (float[1,4,4,6] y) {
            a = Transpose <perm = [0, 2, 1, 3]> (x)
            y = Relu (a)
            }"""
        ),
        passes.remove_idle_layout_ops,
        x=noise(1, 4, 4, 6),
    )
    assert ops(model) == ["Transpose", "Relu"]


@pytest.mark.parametrize("bias", [True, False])
def test_batch_norm_folds_into_the_convolution_before(bias: bool) -> None:
    constants = {
        "kernel": noise(3, 4, 1, 1),
        "scale": noise(3) + 2,
        "shift": noise(3),
        "mean": noise(3) - 1,
        "variance": np.abs(noise(3)) + 0.5,
    }
    if bias:
        constants["bias"] = noise(3)
    model = apply(
        parse(
            f"""(float[1,4,5,5] x) => (float[1,3,5,5] y) {{
            a = Conv (x, kernel{", bias" if bias else ""})
            b = BatchNormalization <epsilon = 0.001> (a, scale, shift, mean, variance)
            y = Relu (b)
            }}""",
            **constants,
        ),
        passes.fold_batch_norms,
        x=noise(1, 4, 5, 5),
    )
    assert ops(model) == ["Conv", "Relu"]


def test_batch_norm_of_a_shared_convolution_stays() -> None:
    model = parse(
        """(float[1,4,5,5] x) => (float[1,4,5,5] y, float[1,4,5,5] z) {
        z = Conv (x, kernel)
        y = BatchNormalization (z, one, zero, zero, one)
        }""",
        kernel=noise(4, 4, 1, 1),
        one=np.ones(4, np.float32),
        zero=np.zeros(4, np.float32),
    )
    apply(model, passes.fold_batch_norms, x=noise(1, 4, 5, 5))
    assert ops(model) == ["Conv", "BatchNormalization"]


def test_padding_folds_into_the_convolution() -> None:
    model = apply(
        parse(
            """(float[1,4,9,9] x) => (float[1,3,5,5] y) {
            a = Pad (x, amounts)
            y = Conv <pads = [0, 1, 0, 1], strides = [2, 2]> (a, kernel)
            }""",
            amounts=np.array([0, 0, 1, 0, 0, 0, 1, 0], np.int64),
            kernel=noise(3, 4, 3, 3),
        ),
        passes.fold_padding,
        x=noise(1, 4, 9, 9),
    )
    assert ops(model) == ["Conv"]
    assert list(attribute(model.graph.node[0], "pads")) == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("amounts", "fill"),
    [([0, 0, 1, 1, 0, 0, 1, 1], 1.0), ([0, 1, 0, 0, 0, 0, 0, 0], 0.0)],
)
def test_other_padding_stays(amounts: list[int], fill: float) -> None:
    channels = 4 + amounts[1]
    model = parse(
        """(float[1,4,9,9] x) => (float[1,3,H,W] y) {
        a = Pad (x, amounts, fill)
        y = Conv (a, kernel)
        }""",
        amounts=np.array(amounts, np.int64),
        fill=np.array(fill, np.float32),
        kernel=noise(3, channels, 3, 3),
    )
    apply(model, passes.fold_padding, x=noise(1, 4, 9, 9))
    assert ops(model) == ["Pad", "Conv"]


SIXTH = np.array(1 / 6, np.float32)


@pytest.mark.parametrize(
    "product",
    [
        "p = Mul (x, gate) y = Mul (p, sixth)",
        "p = Mul (sixth, gate) y = Mul (x, p)",
        "p = Mul (x, sixth) y = Mul (p, gate)",
        "p = Mul (x, sixth) y = Mul (gate, p)",
    ],
)
def test_hard_swish_is_found_in_any_order(product: str) -> None:
    model = apply(
        parse(
            f"""(float[1,4] x) => (float[1,4] y) {{
            moved = Add (three, x)
            gate = Clip (moved, zero, six)
            {product}
            }}""",
            three=np.array([[3]], np.float32),
            zero=np.array(0, np.float32),
            six=np.array(6, np.float32),
            sixth=SIXTH,
        ),
        passes.fuse_hard_swish,
        x=noise(1, 4) * 4,
    )
    assert ops(model) == ["HardSwish"]


def test_hard_sigmoid_is_no_hard_swish() -> None:
    model = parse(
        """(float[1,4] x) => (float[1,4] y) {
        moved = Add (three, x)
        gate = Clip (moved, zero, six)
        y = Mul (gate, sixth)
        }""",
        three=np.array([[3]], np.float32),
        zero=np.array(0, np.float32),
        six=np.array(6, np.float32),
        sixth=SIXTH,
    )
    apply(model, passes.fuse_hard_swish, x=noise(1, 4))
    assert ops(model) == ["Add", "Clip", "Mul"]


def test_images_are_transposed_as_bytes() -> None:
    model = parse(
        """(uint8[1,5,7,3] image) => (float[1,4,5,7] y) {
        a = Cast <to = 1> (image)
        b = Mul (a, scale)
        c = Add (b, shift)
        d = Transpose <perm = [0, 3, 1, 2]> (c)
        y = Conv (d, kernel)
        }""",
        scale=np.array(1 / 127.5, np.float32),
        shift=np.array(-1, np.float32),
        kernel=noise(4, 3, 1, 1),
    )
    image = np.random.default_rng(0).integers(0, 256, (1, 5, 7, 3), np.uint8)
    apply(model, passes.transpose_pixels_first, image=image)
    assert ops(model) == ["Transpose", "Cast", "Mul", "Add", "Conv"]


def test_names_are_those_of_layers_whatever_the_counters_say() -> None:
    def build(start: int) -> bytes:
        model = parse(
            """(float[1,4,5,5] x) => (float[1,4,5,5] y) {
            a = Conv (x, kernel, bias)
            b = Relu (a)
            y = Add (b, same_bias)
            }""",
            kernel=noise(4, 4, 1, 1),
            bias=np.ones((4,), np.float32),
            same_bias=np.ones((4, 1, 1), np.float32),
        )
        for place, node in enumerate(model.graph.node):
            node.name = f"model_{start}/net/layer/{node.op_type}__{start + place}"
        passes.tidy(model, tensor_names={"y": "head"})
        assert [n.name for n in model.graph.node] == [
            "layer/Conv",
            "layer/Relu",
            "layer/Add",
        ]
        assert [t.name for t in model.graph.initializer] == [
            "layer/Conv/kernel",
            "layer/Conv/bias",
            "layer/Add/constant1",
        ]
        assert [o.name for o in model.graph.output] == ["head"]
        content: bytes = model.SerializeToString(deterministic=True)
        return content

    assert build(3) == build(71)


def test_equal_nodes_run_once() -> None:
    model = apply(
        parse(
            """(float[1,4] x) => (float[1,4] y) {
            a = Relu (x)
            b = Relu (x)
            c = Sigmoid (a)
            d = Sigmoid (b)
            y = Add (c, d)
            }"""
        ),
        passes.merge_equal_nodes,
        x=noise(1, 4),
    )
    assert ops(model) == ["Relu", "Sigmoid", "Add"]


def test_transposes_that_undo_each_other_go_even_around_an_output() -> None:
    model = apply(
        parse(
            """(float[1,2,3,4] x) => (float[1,3,4,2] t, float[1,2,3,4] y) {
            t = Transpose <perm = [0, 2, 3, 1]> (x)
            b = Transpose <perm = [0, 3, 1, 2]> (t)
            y = Relu (b)
            }"""
        ),
        passes.cancel_transposes,
        x=noise(1, 2, 3, 4),
    )
    assert ops(model) == ["Transpose", "Relu"]


def test_equal_constants_are_stored_once() -> None:
    model = parse(
        """(float[4] x) => (float[4] y) {
        a = Add (x, p)
        b = Add (a, q)
        y = Add (b, r)
        }""",
        p=np.ones(4, np.float32),
        q=np.ones(4, np.float32),
        r=np.ones((1, 4), np.float32)[0] * 2,
        nobody=np.ones(9, np.float32),
    )
    apply(model, passes.share_constants, x=noise(4))
    assert len(model.graph.initializer) == 2


def test_order_follows_from_outputs_alone() -> None:
    text = """(float[4] x) => (float[4] y, float[4] b) {{
        {}
        {}
        y = Add (b, c)
        }}"""
    nodes = ["b = Relu (x)", "c = Sigmoid (x)"]
    found = []
    for order in (nodes, nodes[::-1]):
        model = parse(text.format(*order))
        passes.order_by_outputs(Graph(model))
        found.append((ops(model), [o.name for o in model.graph.output]))
    assert found[0] == found[1] == (["Relu", "Sigmoid", "Add"], ["b", "y"])


def test_contradicting_shapes_are_reported() -> None:
    model = parse(
        "(float[1,4] x) => (float[1,5] y) { y = Add (x, c) }",
        c=np.ones((1, 3), np.float32),
    )
    with pytest.raises(ConversionError, match="contradict"):
        infer_shapes(model)
