"""Every form of a moving mean gives the same values."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge.layers.pooling import window_mean

pytestmark = pytest.mark.tf


@pytest.mark.parametrize("window", [(1, 1), (3, 5), (9, 17)])
def test_forms_agree(window: tuple[int, int]) -> None:
    x: Any = np.random.default_rng(0).normal(size=(1, 9, 17, 4)).astype(np.float32)
    expected = window_mean(x, window, "native")
    found = window_mean(x, window, "separable", "separable")
    assert found.shape == (1, 10 - window[0], 18 - window[1], 4)
    np.testing.assert_allclose(found, expected, atol=1e-6)
