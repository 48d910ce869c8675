"""Every form of resizing gives the same values."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge.convert.forms import RESIZE_FORMS
from deeplab2_edge.layers.resize import ResizeBilinear

pytestmark = pytest.mark.tf


@pytest.mark.parametrize("form", RESIZE_FORMS)
@pytest.mark.parametrize(
    ("source", "target"),
    [((5, 9), (9, 17)), ((1, 1), (9, 17)), ((1, 1), (1, 1)), ((9, 17), (5, 9))],
)
def test_forms_agree(
    source: tuple[int, int], target: tuple[int, int], form: str
) -> None:
    x: Any = np.random.default_rng(0).normal(size=(1, *source, 3)).astype(np.float32)
    expected = ResizeBilinear(target)(x).numpy()
    found = ResizeBilinear(target, form)(x).numpy()
    assert found.shape == (1, *target, 3)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_single_pixel_is_spread_without_resizing() -> None:
    import tensorflow as tf

    layer = ResizeBilinear((9, 17), "spread")
    function = tf.function(layer.call).get_concrete_function(
        tf.TensorSpec((1, 1, 1, 3), tf.float32)
    )
    kinds = {op.type for op in function.graph.get_operations()}
    assert "Mul" in kinds and "ResizeBilinear" not in kinds
