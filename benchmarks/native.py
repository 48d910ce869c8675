"""What does the native core save around a network, beside merging?

Runs each task in NumPy (and OpenCV) and natively, in turn, so that a drifting machine
hits both alike, one thread each, and checks that both give the same:

* `place`: an image of a camera resized and padded into the int8 input of a network;
* `overlay`: 48 segments, 40 of them things, drawn over an image;
* `masks`: masks of a mask transformer decoded (128 masks, 19 classes);
* `motion`: 60 instances tracked by Motion-DeepLab;
* `stitch`: 60 instances matched between two views of a frame;
* `chain`: a pair of frames added to a video by ViP-DeepLab;
* `two_frames`: heads of a pair of frames merged as ViP-DeepLab does.

Times are of the processor, so that other work on the machine counts less; ratios are
medians of the ratios of a round. Merging itself is `benchmarks.merging`.

    python -m benchmarks.native [--rounds 15] [--output FILE.json]
"""

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.merging import make_heads
from deeplab2_edge import keys, panoptic
from deeplab2_edge.files import atomic_write
from deeplab2_edge.model_file import ResizeRule
from deeplab2_edge.panoptic import (
    Heads,
    MaskMaps,
    MaskSettings,
    MergeSettings,
    MotionSettings,
    MotionTracker,
    VideoStitcher,
    stitch,
)
from deeplab2_edge.panoptic.instances import NUMPY_PASSES
from deeplab2_edge.runtime import native
from deeplab2_edge.runtime.draw import _blend_segments
from deeplab2_edge.runtime.heads import RawHead
from deeplab2_edge.runtime.machine import describe_machine
from deeplab2_edge.runtime.native.drawing import blend_segments
from deeplab2_edge.runtime.native.instances import NATIVE_PASSES
from deeplab2_edge.runtime.native.masks import decode_masks
from deeplab2_edge.runtime.native.two_frames import merge_two_frames
from deeplab2_edge.runtime.preprocess import place_on_canvas

CANVASES = ((257, 513), (513, 1025))
_CAMERA = (1080, 1920)
_INSTANCES = 60
_MASKS = 128
_THINGS = tuple(range(11, 19))
_DIVISOR = 1000
_OUTPUT = Path(__file__).parent / "results" / "native.json"

# What is measured, in NumPy and natively.
Pair = tuple[Callable[[], Any], Callable[[], Any]]


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, default=_OUTPUT)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    rows = []
    for canvas in CANVASES:
        for task, (plain, natively) in _tasks(canvas):
            _check_equal(plain(), natively(), task)
            row = {"canvas": list(canvas), "task": task}
            row |= _measure(plain, natively, args.rounds)
            rows.append(row)
            print(json.dumps(row), flush=True)
    document = {
        "command": "python -m benchmarks.native",
        "machine": describe_machine(),
        "rounds": args.rounds,
        "rows": rows,
    }
    with atomic_write(args.output) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n")


def _measure(
    plain: Callable[[], Any], natively: Callable[[], Any], rounds: int
) -> dict[str, float]:
    seconds: dict[str, list[float]] = {"numpy": [], "native": []}
    for _ in range(rounds):
        for name, run in (("numpy", plain), ("native", natively)):
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    ratios = [a / b for a, b in zip(seconds["numpy"], seconds["native"], strict=True)]
    result = {
        f"{name}_ms": round(1000 * statistics.median(s), 3)
        for name, s in seconds.items()
    }
    return result | {"ratio": round(statistics.median(ratios), 2)}


def _check_equal(plain: Any, natively: Any, name: str) -> None:
    if not dataclasses.is_dataclass(plain):
        np.testing.assert_array_equal(natively, plain, name)
        return
    for field in dataclasses.fields(plain):
        values = [getattr(both, field.name) for both in (plain, natively)]
        if isinstance(plain, MaskMaps) and field.name == "instance_scores":
            # Exponentials differ in their last bits.
            np.testing.assert_allclose(*values, rtol=1e-5)
        else:
            _check_equal(*values, field.name)


def _tasks(canvas: tuple[int, int]) -> Iterator[tuple[str, Pair]]:
    rng = np.random.default_rng(0)
    yield "place", _place(rng, canvas)
    yield "overlay", _overlay(rng, canvas)
    yield "masks", _masks(rng, canvas)
    first, second = (_frame(canvas, shift) for shift in (0, 3))
    yield "motion", _motion(first, second)
    yield (
        "stitch",
        _pair(
            lambda passes: stitch(first, second, label_divisor=_DIVISOR, passes=passes)
        ),
    )
    yield (
        "chain",
        _pair(
            lambda passes: _chain(VideoStitcher(_DIVISOR, passes=passes), first, second)
        ),
    )
    yield "two_frames", _two_frames(canvas)


def _pair(run: Callable[..., Any]) -> Pair:
    return lambda: run(NUMPY_PASSES), lambda: run(NATIVE_PASSES)


def _place(rng: np.random.Generator, canvas: tuple[int, int]) -> Pair:
    image = rng.integers(0, 256, (*_CAMERA, 3), np.uint8)
    table = np.arange(-128, 128).astype(np.int8)
    _, placement = place_on_canvas(image, canvas, ResizeRule())
    outs = [np.empty((*canvas, 3), np.int8) for _ in range(2)]

    def plain() -> NDArray[np.int8]:
        pixels, _ = place_on_canvas(image, canvas, ResizeRule())
        return np.take(table, pixels, out=outs[0], mode="clip")

    def natively() -> NDArray[np.int8]:
        native.place_image(image, placement, canvas, outs[1], table)
        return outs[1]

    return plain, natively


def _overlay(rng: np.random.Generator, canvas: tuple[int, int]) -> Pair:
    frame = _frame(canvas, 0)
    ids, segment_map = np.unique(frame, return_inverse=True)
    segment_map = segment_map.reshape(canvas).astype(np.uint16)
    shades = [tuple(shade) for shade in rng.integers(0, 256, (len(ids), 3)).tolist()]
    is_thing = (ids[1:] % _DIVISOR > 0).tolist()
    image = rng.integers(0, 256, (*canvas, 3), np.uint8)
    arguments: Any = image, segment_map, shades[1:], is_thing
    return (
        lambda: _blend_segments(*arguments, alpha=0.5, contour=255),
        lambda: blend_segments(*arguments, alpha=0.5, contour=255),
    )


def _masks(rng: np.random.Generator, canvas: tuple[int, int]) -> Pair:
    height, width = ((side - 1) // 4 + 1 for side in canvas)
    y, x = np.indices((height, width), np.float32)[..., np.newaxis]
    center_y, center_x = rng.uniform(0, height, _MASKS), rng.uniform(0, width, _MASKS)
    radius = rng.uniform(height / 25, height / 4, _MASKS)
    masks = 8 - 4 * ((y - center_y) ** 2 + (x - center_x) ** 2) / radius**2
    masks = np.maximum(masks, -20) + rng.normal(scale=0.5, size=masks.shape)
    logits = masks.astype(np.float32)
    classes = rng.normal(scale=6, size=(_MASKS, 20)).astype(np.float32)
    options: Any = {
        "canvas": canvas,
        "settings": MaskSettings(_THINGS, _DIVISOR, 255),
    }
    return (
        lambda: panoptic.decode_masks(logits, classes, **options),
        lambda: decode_masks(RawHead(logits), RawHead(classes), **options),
    )


def _frame(canvas: tuple[int, int], shift: int) -> NDArray[np.int32]:
    """Draws stripes of stuff and round things that move to the right."""
    rng = np.random.default_rng(1)
    height, width = canvas
    y, x = np.indices(canvas)
    frame = (y * 8 // height * _DIVISOR).astype(np.int32)
    for number in range(1, _INSTANCES + 1):
        center_y, center_x = rng.integers(0, height), rng.integers(0, width)
        radius = rng.integers(height // 40, height // 10)
        is_inside = (y - center_y) ** 2 + (x - center_x - shift) ** 2 < radius**2
        frame[is_inside] = _THINGS[number % 3] * _DIVISOR + number
    return frame


def _motion(first: NDArray[np.int32], second: NDArray[np.int32]) -> Pair:
    settings = MotionSettings(_THINGS, _DIVISOR, track_divisor=100_000)
    offsets = np.zeros((9, 17, 2), np.float32)

    def track(passes: Any) -> Callable[[], Any]:
        tracker = MotionTracker(settings, passes=passes)
        tracker.update(first, offsets)
        return lambda: tracker.update(second, offsets)

    return track(NUMPY_PASSES), track(NATIVE_PASSES)


def _chain(
    stitcher: VideoStitcher, first: NDArray[np.int32], second: NDArray[np.int32]
) -> NDArray[np.int32]:
    stitcher.update(first, second)
    return stitcher.update(second, first)


def _two_frames(canvas: tuple[int, int]) -> Pair:
    heads, offsets = [], []
    for count in (_INSTANCES, _INSTANCES - 1):
        made = make_heads(canvas, count, is_integer=False)
        offsets.append(made[keys.OFFSET_MAP])
        heads.append(
            Heads(
                made[keys.SEMANTIC_LOGITS],
                made[keys.CENTER_HEATMAP].reshape(offsets[-1].shape[:2]),
                offsets[-1],
            )
        )
    arguments: Any = heads[0], offsets[1], heads[1]
    options: Any = {
        "canvas": canvas,
        "settings": MergeSettings(_THINGS, _DIVISOR, 255, nms_kernel=7),
    }
    return (
        lambda: panoptic.merge_two_frames(*arguments, **options),
        lambda: merge_two_frames(*arguments, **options),
    )


if __name__ == "__main__":
    main()
