"""Heads of all kinds for the native core, and what the reference makes of them."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys, panoptic
from deeplab2_edge.panoptic import MergeSettings
from deeplab2_edge.runtime.heads import RawHead
from deeplab2_edge.runtime.native import NativeResult, segment_panoptic
from deeplab2_edge.runtime.preprocess import Placement
from deeplab2_edge.runtime.results import build_result

DTYPES = ("float32", "int8", "uint8", "int16")


@dataclasses.dataclass(frozen=True)
class Model:
    """Is what the core needs to know of a model."""

    canvas: tuple[int, int]
    merge: MergeSettings
    num_classes: int
    name: str = "model"

    @property
    def label_divisor(self) -> int:
        return self.merge.label_divisor

    @property
    def ignore_label(self) -> int:
        return self.merge.ignore_label

    @property
    def thing_ids(self) -> tuple[int, ...]:
        return self.merge.thing_ids

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(f"class {i}" for i in range(self.num_classes))


Case = tuple[dict[str, RawHead], Placement, Model]


def make_case(seed: int) -> Case:
    """Draws a case: sizes, types, settings, and how wild the heads are."""
    rng = np.random.default_rng(seed)

    def choose(*options: Any) -> Any:
        return options[rng.integers(len(options))]

    height, width = (int(choose(1, 2, 3, 5, 9, 12, 17)) for _ in range(2))
    growth = choose(1, 2, 4, 4, 4, 8, 3.3, 0.6)
    extra = int(choose(0, 0, 1, 3))
    canvas = tuple(
        max(int((side - 1) * growth) + 1 + extra, 1) for side in (height, width)
    )
    classes = int(choose(1, 2, 5, 11, 19, 34, 133, 300 if seed % 7 == 0 else 19))
    kind = choose("all", "none", "some", "some", "some")
    things = {
        "all": range(classes),
        "none": (),
        "some": np.flatnonzero(rng.integers(0, 2, classes)),
    }[kind]
    merge = MergeSettings(
        tuple(int(c) for c in things),
        int(choose(2, 5, 1000)),
        int(choose(0, 255, classes)),
        center_score_threshold=float(choose(-1.0, 0.0, 0.1, 0.1, 0.5, 2.0)),
        nms_kernel=int(choose(1, 2, 3, 4, 5, 7, 13, 41)),
        keep_k_centers=int(choose(0, 1, 3, 400, 400)),
        stuff_area_limit=int(choose(0, 5, 60)),
        merge_plateaus=bool(choose(False, True)),
    )
    logits = rng.normal(size=(height, width, classes)) * choose(0.1, 3, 30)
    if choose(False, True):  # regions rather than noise
        logits[:] = logits[:1, :1]
        logits += rng.normal(size=logits.shape) * choose(0, 0.01, 1)
    heat = rng.uniform(-0.3, 1, (height, width, 1))
    if choose(False, True):
        heat[rng.uniform(size=heat.shape) < 0.8] = choose(0, -0.1, 0.1)
    if choose(False, True):  # plateaus
        heat = np.round(heat * 3) / 3
    offsets = rng.normal(size=(height, width, 2)) * choose(0, 0.3, 3, 50, 5000)
    if choose(False, True):  # to a few places, as trained networks do
        goals = rng.uniform(0, 1, (3, 2)) * (height, width)
        which = rng.integers(0, 3, (height // 4 + 1, width // 4 + 1))
        which = which.repeat(4, 0).repeat(4, 1)[:height, :width]
        place = np.stack(np.mgrid[:height, :width], axis=-1)
        offsets = goals[which] - place + 0.01 * offsets
    heads = {
        keys.SEMANTIC_LOGITS: _quantized(rng, logits, choose),
        keys.CENTER_HEATMAP: _quantized(rng, heat, choose),
        keys.OFFSET_MAP: _quantized(rng, offsets, choose),
    }
    if seed % 5 == 0:
        heads = {name: _spoiled(rng, head) for name, head in heads.items()}
    resized = tuple(int(rng.integers(1, side + 1)) for side in canvas)
    if choose(False, True):
        resized = canvas
    image = tuple(
        max(int(side * choose(1, 1, 0.4, 1.7, 3)) + int(choose(0, 0, 1)), 1)
        for side in resized
    )
    placement = Placement(image, resized)  # type: ignore[arg-type]
    named = max(classes - int(choose(0, 0, 0, 1)), 1)
    return heads, placement, Model(canvas, merge, named)  # type: ignore[arg-type]


def expected_of(heads: dict[str, RawHead], placement: Placement, model: Model) -> Any:
    """Gives maps and result as NumPy makes them."""
    with np.errstate(all="ignore"):
        maps = panoptic.merge_heads(
            heads[keys.SEMANTIC_LOGITS].real(),
            heads[keys.CENTER_HEATMAP].real()[..., 0],
            heads[keys.OFFSET_MAP].real(),
            canvas=model.canvas,
            settings=model.merge,
        )
        image = np.zeros((*placement.image_size, 3), np.uint8)
        return maps, build_result(image, maps, placement, model)  # type: ignore[arg-type]


def check_case(case: Case, *, num_threads: int = 1) -> NativeResult:
    """Compares all that the core gives with the reference, bit for bit."""
    heads, placement, model = case
    maps, expected = expected_of(*case)
    found = segment_panoptic(heads, placement, model, num_threads)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found.centers_yx, maps.centers_yx)
    np.testing.assert_array_equal(found.center_scores, maps.center_scores)
    np.testing.assert_array_equal(found.semantic, expected.semantic)
    np.testing.assert_array_equal(found.panoptic, expected.panoptic)
    for array in (found.panoptic, found.semantic):
        assert array.dtype == np.int32
    rows = [
        (s.id, s.area_px, s.box_xyxy, s.score if s.score is not None else None)
        for s in expected.segments
    ]
    table = found.segments
    assert rows == [
        (i, area, tuple(box), None if np.isnan(score) else score)
        for i, area, box, score in zip(
            table.ids.tolist(),
            table.areas.tolist(),
            table.boxes.tolist(),
            table.scores.tolist(),
            strict=True,
        )
    ]
    return found


def _quantized(rng: np.random.Generator, real: NDArray[Any], choose: Any) -> RawHead:
    dtype = choose("float32", *DTYPES)
    if dtype == "float32":
        return RawHead(real.astype(np.float32))
    info = np.iinfo(dtype)
    steps = choose(4, 100, info.max - info.min)
    span = max(float(real.max() - real.min()), 1e-3)
    scale = float(np.float32(span / steps))
    zero = int(np.clip(np.round(info.min - real.min() / scale), -60000, 60000))
    values = np.clip(np.round(real / scale) + zero, info.min, info.max)
    return RawHead(values.astype(dtype), scale, zero)


def _spoiled(rng: np.random.Generator, head: RawHead) -> RawHead:
    if head.values.dtype != np.float32:
        return head
    values = head.values.copy()
    for wild in (np.nan, np.inf, -np.inf, 3e38, -1e20, 1e-42):
        values[rng.uniform(size=values.shape) < rng.choice([0, 0, 0.01, 0.3])] = wild
    return RawHead(values)
