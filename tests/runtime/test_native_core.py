"""The native core from heads to the image: the bits of the NumPy reference."""

import dataclasses
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from deeplab2_edge import keys
from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic import MergeSettings
from deeplab2_edge.runtime import native
from deeplab2_edge.runtime.heads import RawHead
from deeplab2_edge.runtime.preprocess import Placement
from tests.runtime.native_cases import Case, Model, check_case, make_case

pytestmark = pytest.mark.usefixtures("native_library")


def crowd(num_centers: int = 400, seed: int = 0) -> Case:
    """Makes a scene of many instances, like that of a trained network."""
    rng = np.random.default_rng(seed)
    height, width = 65, 129
    logits = rng.normal(size=(9, 17, 19)).repeat(8, 0).repeat(8, 1)[:height, :width]
    logits += 0.3 * rng.normal(size=logits.shape)
    place = np.stack(np.mgrid[:height, :width], axis=-1)
    pixels = rng.choice(height * width, num_centers, replace=False)
    centers = np.stack(np.divmod(pixels, width), axis=-1)
    squared = np.square(place[:, :, None] - centers).sum(axis=-1)
    heat = np.zeros((height, width, 1), np.float32)
    heat.reshape(-1)[pixels] = rng.uniform(0.2, 1, num_centers)
    offsets = centers[squared.argmin(axis=-1)] - place + rng.normal(size=place.shape)
    heads = {
        keys.SEMANTIC_LOGITS: RawHead(logits.astype(np.float32)),
        keys.CENTER_HEATMAP: RawHead(heat),
        keys.OFFSET_MAP: RawHead(offsets.astype(np.float32)),
    }
    merge = MergeSettings(tuple(range(11, 19)), 1000, 255, nms_kernel=3)
    canvas = 257, 513
    return heads, Placement((300, 700), (250, 513)), Model(canvas, merge, 19)


@pytest.mark.parametrize("first", range(0, 240, 40))
def test_maps_and_segments_are_those_of_the_reference(first: int) -> None:
    for seed in range(first, first + 40):
        check_case(make_case(seed), num_threads=1 + seed % 3)


@pytest.mark.parametrize("num_centers", [1, 30, 400])
def test_crowds_of_all_sizes(num_centers: int) -> None:
    heads, placement, model = crowd(num_centers)
    found = check_case((heads, placement, model))
    assert len(found.centers_yx) >= min(num_centers, 300)
    assert len(found.segments.ids) >= min(num_centers, 100)


def test_more_centers_than_half_words_name() -> None:
    size = 271, 301
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(*size, 2)).astype(np.float32)
    heads = {
        keys.SEMANTIC_LOGITS: RawHead(logits),
        keys.CENTER_HEATMAP: RawHead(np.full((*size, 1), 0.5, np.float32)),
        keys.OFFSET_MAP: RawHead(np.zeros((*size, 2), np.float32)),
    }
    merge = MergeSettings((0, 1), 1 << 20, 3, nms_kernel=1, keep_k_centers=0)
    placement, model = Placement(size, size), Model(size, merge, 2)
    found = native.segment_panoptic(heads, placement, model)  # type: ignore[arg-type]
    # Every pixel is a center of its own, and the next number of its class.
    is_second = logits.argmax(axis=-1).reshape(-1)
    number = np.where(is_second, np.cumsum(is_second), np.cumsum(1 - is_second))
    expected = is_second * (1 << 20) + number
    assert len(found.centers_yx) == len(found.segments.ids) == logits[..., 0].size
    np.testing.assert_array_equal(found.panoptic.reshape(-1), expected)


def test_threads_do_not_change_the_result() -> None:
    for case in (crowd(), make_case(11), make_case(12)):
        results = [
            native.segment_panoptic(*case, num_threads=count)  # type: ignore[arg-type]
            for count in (1, 2, 4)
        ]
        for other in results[1:]:
            np.testing.assert_array_equal(other.panoptic, results[0].panoptic)
            np.testing.assert_array_equal(other.semantic, results[0].semantic)
            for field in dataclasses.fields(other.segments):
                np.testing.assert_array_equal(
                    getattr(other.segments, field.name),
                    getattr(results[0].segments, field.name),
                )


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_many_frames_take_no_more_memory_than_a_few() -> None:
    cases = [crowd(count, seed=count) for count in (3, 50)]

    def pages_after(num_frames: int) -> int:
        for i in range(num_frames):
            native.segment_panoptic(*cases[i % 2], num_threads=2)  # type: ignore[arg-type]
        return int(Path("/proc/self/statm").read_text().split()[1])

    before = pages_after(20)
    assert pages_after(200) - before < 256  # 1 MiB


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_works_too() -> None:
    case = crowd(20)
    check_case(case, num_threads=2)
    child = multiprocessing.get_context("fork").Process(
        target=check_case, args=(case,), kwargs={"num_threads": 2}
    )
    child.start()
    child.join(30)
    assert child.exitcode == 0


def test_heads_that_do_not_fit_are_refused() -> None:
    heads, placement, model = make_case(1)
    logits = heads[keys.SEMANTIC_LOGITS]
    lacking = dataclasses.replace(logits, values=logits.values[..., 0])
    with pytest.raises(UsageError, match=r"semantic_logits has shape"):
        native.segment_panoptic(
            {**heads, keys.SEMANTIC_LOGITS: lacking},
            placement,
            model,  # type: ignore[arg-type]
        )
    large = Placement((9, 9), (model.canvas[0] + 1, 1))
    with pytest.raises(UsageError, match="sizes or settings"):
        native.segment_panoptic(heads, large, model)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="num_threads is 0"):
        native.segment_panoptic(heads, placement, model, 0)  # type: ignore[arg-type]
