"""Where the native core leaves out centers and cells: still the bits of NumPy."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.panoptic import MergeSettings
from deeplab2_edge.runtime.heads import RawHead
from deeplab2_edge.runtime.preprocess import Placement
from tests.runtime.native_cases import Case, Model, check_case

pytestmark = pytest.mark.usefixtures("native_library")

SIZE = 17, 25
MERGE = MergeSettings((1, 2, 4), 1000, 255, nms_kernel=3)


def case_of(
    heat: NDArray[Any],
    offsets: NDArray[Any],
    *,
    canvas: tuple[int, int] | None = None,
    merge: MergeSettings = MERGE,
    seed: int = 0,
) -> Case:
    """Makes a case whose classes are regions, things beside things and beside stuff."""
    rng = np.random.default_rng(seed)
    height, width = heat.shape
    logits = rng.normal(size=(height // 3 + 1, width // 3 + 1, 5))
    logits = logits.repeat(3, 0).repeat(3, 1)[:height, :width]
    logits = logits + 0.2 * rng.normal(size=logits.shape)
    heads = {
        keys.SEMANTIC_LOGITS: RawHead(logits.astype(np.float32)),
        keys.CENTER_HEATMAP: RawHead(heat[..., None].astype(np.float32)),
        keys.OFFSET_MAP: RawHead(offsets.astype(np.float32)),
    }
    size = canvas or (4 * height - 3, 4 * width - 3)
    return heads, Placement(size, size), Model(size, merge, 5)


def heat_of(centers: NDArray[Any], size: tuple[int, int] = SIZE) -> NDArray[np.float32]:
    heat = np.zeros(size, np.float32)
    heat[tuple(centers.T)] = 0.5
    return heat


def offsets_to(
    centers: NDArray[Any], size: tuple[int, int] = SIZE
) -> NDArray[np.float64]:
    """Leads each pixel to the center nearest to it."""
    place = np.stack(np.mgrid[: size[0], : size[1]], axis=-1)
    squared = np.square(place[:, :, None] - centers).sum(axis=-1)
    return (centers[squared.argmin(axis=-1)] - place).astype(float)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    spacing=st.sampled_from([2, 3, 4, 8]),
    steps=st.sampled_from([1, 2, 4, 64]),
    noise=st.sampled_from([0.0, 0.5, 2.0, 6.0]),
)
def test_votes_as_far_from_two_centers_go_to_the_first(
    seed: int, spacing: int, steps: int, noise: float
) -> None:
    # Centers on a grid, and votes on the lines between them and on edges of buckets.
    rng = np.random.default_rng(seed)
    grid = np.stack(np.mgrid[: SIZE[0] : spacing, : SIZE[1] : spacing], axis=-1)
    centers = grid.reshape(-1, 2)
    offsets = offsets_to(centers) + noise * rng.normal(size=(*SIZE, 2))
    offsets = np.round(offsets * steps) / steps
    found = check_case(case_of(heat_of(centers), offsets, seed=seed))
    assert len(found.centers_yx) == len(centers)


@pytest.mark.parametrize("seed", range(12))
def test_votes_between_more_centers_than_are_kept_apart(seed: int) -> None:
    # All lead to one place around which the centers stand, or to any place at all.
    rng = np.random.default_rng(seed)
    merge = dataclasses.replace(MERGE, nms_kernel=1)
    centers = rng.choice(64, 40, replace=False)
    centers = np.stack(np.divmod(centers, 8), axis=-1) + 5
    place = np.stack(np.mgrid[: SIZE[0], : SIZE[1]], axis=-1)
    offsets = centers.mean(axis=0) - place + (seed % 3) * rng.normal(size=(*SIZE, 2))
    if seed % 4 == 3:
        offsets = rng.uniform(-30, 30, (*SIZE, 2))
    check_case(case_of(heat_of(centers), offsets, merge=merge, seed=seed))


@pytest.mark.parametrize("wild", [np.nan, np.inf, -np.inf, 3e38, -1e9, 5000.0, 1023.99])
def test_wild_votes_beside_tame_ones(wild: float) -> None:
    rng = np.random.default_rng(5)
    centers = rng.integers(0, SIZE, (20, 2))
    offsets = offsets_to(centers)
    offsets[rng.uniform(size=offsets.shape) < 0.05] = wild
    check_case(case_of(heat_of(centers), offsets))


@pytest.mark.parametrize("zero_point", [-128, 3])
def test_votes_of_integers(zero_point: int) -> None:
    rng = np.random.default_rng(6)
    centers = rng.integers(0, SIZE, (30, 2))
    heads, placement, model = case_of(heat_of(centers), offsets_to(centers))
    for name, scale in ((keys.OFFSET_MAP, 0.5), (keys.CENTER_HEATMAP, 1 / 255)):
        steps = np.round(heads[name].values / scale) + zero_point
        steps = np.clip(steps, -128, 127).astype(np.int8)
        heads[name] = RawHead(steps, scale, zero_point)
    check_case((heads, placement, model))


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    size=st.tuples(st.integers(1, 12), st.integers(1, 20)),
    growth=st.sampled_from([1, 2, 3, 4, 5]),
    extra=st.sampled_from([0, 0, 1, 3]),
    kernel=st.sampled_from([1, 2, 3, 4, 5, 7, 13, 41]),
    kind=st.sampled_from(["blobs", "ramp", "steps", "last bits", "flat", "noise"]),
    spoiled=st.sampled_from([None, None, None, np.nan, np.inf, -np.inf, 3e38]),
    merge_plateaus=st.booleans(),
)
def test_no_center_is_left_out(
    seed: int,
    size: tuple[int, int],
    growth: int,
    extra: int,
    kernel: int,
    kind: str,
    spoiled: float | None,
    merge_plateaus: bool,
) -> None:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    centers = rng.integers(0, size, (4, 2))
    squared = np.stack([(y - cy) ** 2 + (x - cx) ** 2 for cy, cx in centers])
    heat = np.exp(-squared.min(axis=0) / 8)
    if kind == "ramp":
        heat = (rng.normal() * y + rng.normal() * x) / 20
    elif kind == "steps":
        heat = np.round(heat * 4) / 4
    elif kind == "last bits":  # slopes about as large as the rounding
        heat = 0.5 + heat * 2.0 ** -int(rng.integers(15, 25))
    elif kind == "flat":
        heat = np.full(size, 0.5)
        heat[tuple(rng.integers(0, size))] += 1e-7
    elif kind == "noise":
        heat = rng.uniform(size=size)
    if spoiled is not None:
        heat[tuple(rng.integers(0, size))] = spoiled
    canvas = tuple((side - 1) * growth + 1 + extra for side in size)
    merge = dataclasses.replace(MERGE, nms_kernel=kernel, merge_plateaus=merge_plateaus)
    offsets = rng.normal(size=(*size, 2))
    check_case(case_of(heat, offsets, canvas=canvas, merge=merge, seed=seed))  # type: ignore[arg-type]
