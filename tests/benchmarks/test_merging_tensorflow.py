"""What the runtime is measured against gives the same maps."""

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from benchmarks.merging import make_heads
from benchmarks.merging_tensorflow import make_merge
from deeplab2_edge import keys
from deeplab2_edge.panoptic import MergeSettings, merge_heads

pytestmark = pytest.mark.tf

CANVAS = (65, 129)


@pytest.mark.parametrize("count", [1, 12])
def test_maps_are_those_of_the_runtime(count: int) -> None:
    heads = make_heads(CANVAS, count, is_integer=False)
    settings = MergeSettings(tuple(range(11, 19)), 1000, 255, nms_kernel=7)
    logits, heatmap, offsets = (
        heads[name]
        for name in (keys.SEMANTIC_LOGITS, keys.CENTER_HEATMAP, keys.OFFSET_MAP)
    )
    expected = merge_heads(
        logits, heatmap[..., 0], offsets, canvas=CANVAS, settings=settings
    ).panoptic
    found = make_merge(CANVAS, settings)(heads)
    # Rounding of a resized value or of a distance may decide for another.
    assert (found != expected).mean() < 0.002
    assert len(np.unique(expected)) > count
