"""Two frames merged in C++: the bits of the NumPy reference."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplab2_edge import panoptic
from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic import Heads, MergeSettings
from deeplab2_edge.runtime.native.two_frames import merge_two_frames

MERGE = MergeSettings((2, 4), 1000, 9, nms_kernel=5, stuff_area_limit=20)


pytestmark = pytest.mark.usefixtures("native_library")


def check(found: Any, expected: Any, name: str = "") -> None:
    """Compares maps, and what holds maps."""
    if dataclasses.is_dataclass(expected):
        for field in dataclasses.fields(expected):
            values = (getattr(both, field.name) for both in (found, expected))
            check(*values, field.name)
        return
    assert found.dtype == expected.dtype, name
    np.testing.assert_array_equal(found, expected, name)


def draw_heads(
    rng: np.random.Generator, size: tuple[int, int], classes: int, spread: float
) -> Heads:
    return Heads(
        np.round(rng.normal(size=(*size, classes)) * 2, 1).astype(np.float32),
        np.round(rng.uniform(-0.2, 1, size), 1).astype(np.float32),
        # Halves make ties between centers, which rounding decides.
        (np.round(rng.normal(size=(*size, 2)) * spread * 2) / 2).astype(np.float32),
    )


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    size=st.tuples(st.integers(1, 7), st.integers(1, 9)),
    growth=st.sampled_from([1, 2, 3, 4]),
    classes=st.integers(3, 6),
    spread=st.sampled_from([0.0, 1.0, 5.0]),
    keep=st.sampled_from([0, 1, 3, 400]),
    num_threads=st.integers(1, 2),
)
def test_pairs_are_those_of_the_reference(
    seed: int,
    size: tuple[int, int],
    growth: int,
    classes: int,
    spread: float,
    keep: int,
    num_threads: int,
) -> None:
    rng = np.random.default_rng(seed)
    heads = [draw_heads(rng, size, classes, spread) for _ in range(2)]
    offsets = draw_heads(rng, size, 1, spread).offset_map
    canvas = tuple((side - 1) * growth + 1 + seed % 3 for side in size)
    merge = dataclasses.replace(MERGE, keep_k_centers=keep)
    arguments: Any = heads[0], offsets, heads[1]
    options: Any = {"canvas": canvas, "settings": merge}
    expected = panoptic.merge_two_frames(*arguments, **options)
    found = merge_two_frames(*arguments, **options, num_threads=num_threads)
    check(found, expected)


def test_votes_are_rounded_as_in_the_wide_image() -> None:
    # Between two centers, by less than float32 tells in the right half.
    heat = np.zeros((1, 9), np.float32)
    heat[0, 2] = heat[0, 6] = 1
    logits = np.zeros((1, 9, 5), np.float32)
    logits[..., 2] = 1
    rng = np.random.default_rng(0)
    to_middle = np.zeros((1, 9, 2), np.float32)
    to_middle[0, :, 1] = 4 - np.arange(9) + rng.uniform(-1, 1, 9) * 1e-6
    frames = Heads(logits, heat, np.zeros((1, 9, 2), np.float32))
    options: Any = {"canvas": (1, 2049), "settings": MERGE}
    arguments = frames, to_middle, frames
    expected = panoptic.merge_two_frames(*arguments, **options)
    check(merge_two_frames(*arguments, **options), expected)


def test_what_does_not_fit_is_refused() -> None:
    rng = np.random.default_rng(1)
    heads = draw_heads(rng, (3, 4), 5, 1.0)
    options: Any = {"canvas": (9, 13), "settings": MERGE}
    with pytest.raises(UsageError, match="next_offset_map has shape"):
        merge_two_frames(heads, heads.offset_map[:2], heads, **options)
    narrow = dataclasses.replace(MERGE, label_divisor=2)
    many = draw_heads(rng, (9, 9), 5, 0.0)
    options = {"canvas": (33, 33), "settings": narrow}
    for merge in (panoptic.merge_two_frames, merge_two_frames):
        with pytest.raises(UsageError, match="label_divisor"):
            merge(many, many.offset_map, many, **options)
