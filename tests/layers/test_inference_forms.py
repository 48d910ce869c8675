"""Attention in the form for devices gives what it gives in the form that is trained."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge.checkpoints import variable_paths
from deeplab2_edge.layers.axial_attention import AttentionOptions, axial_attention
from deeplab2_edge.layers.axial_inference import _skew, _unskew
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.dual_path import dual_path_transformer
from deeplab2_edge.layers.dual_path_options import DualPathOptions
from deeplab2_edge.layers.resize import interpolation_matrix
from deeplab2_edge.optional import require
from tests.models import synthetic_weights

tf: Any = require("tensorflow", extra="train")
tf_keras: Any = require("tf_keras", extra="train")

pytestmark = pytest.mark.tf

FORMS = ("einsum", "builtin")
SIGMOID = {"self_attention_activation": "sigmoid"}
CONTENT = {
    "use_query_rpe_similarity": False,
    "use_key_rpe_similarity": False,
    "retrieve_value_rpe": False,
}
QUERIES = {
    "use_content_similarity": False,
    "use_key_rpe_similarity": False,
    "retrieve_value_content": False,
}
KEYS = {"use_content_similarity": False, "use_query_rpe_similarity": False}
# Size of the map, stride, options.
AXIAL: dict[str, tuple[tuple[int, int], int, dict[str, Any]]] = {
    "all terms": ((7, 10), 1, {}),
    "stride 2, odd": ((7, 9), 2, {}),
    "stride 3": ((8, 5), 3, {}),
    "one row": ((1, 6), 2, {}),
    "sigmoid": ((9, 4), 2, SIGMOID),
    "content": ((6, 7), 2, CONTENT),
    "queries": ((6, 7), 1, QUERIES),
    "keys": ((6, 7), 2, KEYS),
    "span in one block": ((6, 20), 2, {"span": 3}),
    "span, sigmoid": ((6, 20), 1, {"span": 3, **SIGMOID}),
    "span in blocks": ((3, 150), 2, {"span": 9}),
}


@pytest.mark.parametrize("case", AXIAL.values(), ids=AXIAL)
def test_axial_attention(case: tuple[tuple[int, int], int, dict[str, Any]]) -> None:
    size, stride, options = case
    x = normal((2, *size, 12))
    outputs = []
    for form in FORMS:
        pixels = tf_keras.Input((*size, 12))
        y = axial_attention(
            pixels,
            "block2/_attention",
            8,
            options=AttentionOptions(num_heads=2, **options),
            defaults=LayerDefaults(axial=form),
            stride=stride,
            # Half of the cases stretch positions.
            trained_size=(13, 33) if stride == 2 else None,
        )
        outputs.append(filled(tf_keras.Model(pixels, y))(x, training=False).numpy())
    assert_close(outputs[1], outputs[0])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"transformer_activation": "sigmoid"},
        {"use_memory_self_attention": False},
        {"use_pixel2memory_feedback_attention": False},
        {
            "use_memory_self_attention": False,
            "use_pixel2memory_feedback_attention": False,
            "transformer_activation": "sigmoid",
        },
    ],
)
def test_dual_path_transformer(options: dict[str, Any]) -> None:
    x, memory = normal((2, 5, 7, 24)), normal((2, 9, 20))
    found, shapes = [], []
    for form in FORMS:
        model = transformer(form, **options)
        found.append([y.numpy() for y in model([x, memory], training=False)])
        shapes.append({p: tuple(v.shape) for p, v in variable_paths(model).items()})
    assert shapes[0] == shapes[1]
    for plain, folded in zip(*found, strict=True):
        assert_close(folded, plain)


def test_folded_transformers_do_not_train() -> None:
    with pytest.raises(ValueError, match="axial='einsum' to train"):
        transformer("builtin")([normal((1, 5, 7, 24)), normal((1, 9, 20))], True)


def test_axial_attention_trains_in_any_form() -> None:
    """The form concerns inference; a training pass computes batch statistics."""
    x, outputs = normal((2, 5, 6, 12)), []
    for form in FORMS:
        pixels = tf_keras.Input((5, 6, 12))
        y = axial_attention(
            pixels,
            "block2/_attention",
            8,
            options=AttentionOptions(num_heads=2),
            defaults=LayerDefaults(axial=form),
        )
        outputs.append(filled(tf_keras.Model(pixels, y))(x, training=True).numpy())
    np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize(("rows", "width", "stride"), [(4, 4, 1), (3, 6, 2), (1, 5, 3)])
def test_skew_shifts_rows_and_unskew_is_its_transpose(
    rows: int, width: int, stride: int
) -> None:
    period = max(width + stride * (rows - 1), width + stride)
    table = np.arange(rows * period, dtype=np.float32).reshape(1, 1, rows, period)
    skewed = _skew(tf.constant(table), stride, width).numpy()
    for i in range(rows):
        first = stride * (rows - 1 - i)
        np.testing.assert_array_equal(
            skewed[0, 0, i], table[0, 0, i, first : first + width]
        )
    back = _unskew(tf.constant(skewed), stride, period).numpy()
    mask = _unskew(tf.ones_like(skewed), stride, period).numpy()
    np.testing.assert_array_equal(back, table * mask)


def test_interpolation_weights_add_up_and_meet_the_corners() -> None:
    matrix = interpolation_matrix(5, 9)
    np.testing.assert_allclose(matrix.sum(axis=0), 1)
    np.testing.assert_array_equal(matrix[:, 0], [1, 0, 0, 0, 0])
    np.testing.assert_array_equal(matrix[:, 1], [0.5, 0.5, 0, 0, 0])
    np.testing.assert_array_equal(matrix[:, -1], [0, 0, 0, 0, 1])


def transformer(form: str, **options: Any) -> Any:
    pixels, memory = tf_keras.Input((5, 7, 24)), tf_keras.Input((9, 20))
    outputs = dual_path_transformer(
        pixels,
        memory,
        "encoder/_stage5/_block1_transformer",
        16,
        options=DualPathOptions(feed_forward_network_channels=32, **options),
        defaults=LayerDefaults(axial=form),
    )
    return filled(tf_keras.Model([pixels, memory], list(outputs)))


def filled(model: Any) -> Any:
    for path, variable in variable_paths(model).items():
        value = synthetic_weights.weight(path, variable.shape)
        # No scale is near 1: a wrong one shows.
        variable.assign(value * 1.7 if path.endswith("gamma") else value)
    return model


def normal(shape: tuple[int, ...]) -> NDArray[Any]:
    return np.random.default_rng(7).normal(size=shape).astype(np.float32)


def assert_close(found: NDArray[Any], expected: NDArray[Any]) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-5 * max(expected.std(), 1e-3)
