"""What does it cost to make panoptic maps of heads, and where is it cheapest?

Runs the same heads through every way to merge, in turn (A B C D A B C D ...) so that a
drifting machine hits all alike:

* `numpy`: `panoptic.merge_heads` and `build_result`, the reference;
* `native`, `native_2`: the C++ core from the heads to the image, 1 and 2 threads;
* `tensorflow`: as one writes it down, see `merging_tensorflow`; 1 thread;
* `tflite`: what `--merge graph` appends to a TFLite file, in LiteRT; 1 thread;
* `onnx`: the same of ONNX files, in ONNX Runtime; 1 thread.

Heads are of float32 or int8; all but the native core multiply int8 out first, which
counts. Checks that all give the same map (TensorFlow rounds in its own order: all but
one pixel in a hundred) and writes one JSON: medians of milliseconds by the clock and of
the processor, and ratios, medians of those of a round. `extra_bytes` is what it takes
to load what merges and to run it once, with its results; `map_bytes` is one map (Linux
only). Then the cost of the core against centers and against pixels.

    python -m benchmarks.merging [--rounds 7] [--canvas 513x1025] [--output FILE.json]
"""

import argparse
import ctypes
import gc
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.merging_tensorflow import make_merge
from deeplab2_edge import families, keys, panoptic
from deeplab2_edge.convert.merge.tail import tail_as_onnx, tail_as_tflite, trace_tail
from deeplab2_edge.files import atomic_write
from deeplab2_edge.panoptic import MergeSettings, resize_bilinear
from deeplab2_edge.runtime import native
from deeplab2_edge.runtime.classes import ClassTable
from deeplab2_edge.runtime.heads import RawHead
from deeplab2_edge.runtime.machine import describe_machine
from deeplab2_edge.runtime.preprocess import Placement
from deeplab2_edge.runtime.results import build_result

CANVASES = ((257, 513), (513, 1025), (1025, 2049))
CLASSES = 19
# Seen in a street: a few, and a crowd.
CENTERS = (20, 60)
# What the cost of the core is drawn against.
ALL_CENTERS = (1, 5, 20, 60, 150, 400)
_THINGS = tuple(range(11, 19))
_OUTPUT = Path(__file__).parent / "results" / "merging.json"
_SAME = 0.99

Heads = dict[str, NDArray[np.float32]]
RawHeads = Mapping[str, RawHead]
Run = Callable[[RawHeads], NDArray[np.int32]]


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--canvas", action="append", help="HxW; default: all")
    parser.add_argument("--output", type=Path, default=_OUTPUT)
    args = parser.parse_args()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    canvases = [c for c in CANVASES if not args.canvas or _name(c) in args.canvas]
    rows: list[dict[str, Any]] = []
    for canvas in canvases:
        files = _files(canvas)
        for count in CENTERS:
            for is_integer in (False, True):
                row = _measure(
                    canvas, count, files[is_integer], args.rounds, is_integer
                )
                rows.append(row)
                print(json.dumps(row), flush=True)
    centers = [_against_centers(canvas, 5 * args.rounds) for canvas in canvases]
    print(json.dumps(centers), flush=True)
    document = {
        "command": "python -m benchmarks.merging",
        "machine": describe_machine(),
        "classes": CLASSES,
        "rounds": args.rounds,
        "rows": rows,
        "against_centers": centers,
    }
    with atomic_write(args.output) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n")


def make_heads(canvas: tuple[int, int], count: int, *, is_integer: bool) -> Heads:
    """Draws blobs of classes, centers, and offsets that lead to them."""
    rng = np.random.default_rng(count)
    height, width = ((side - 1) // 4 + 1 for side in canvas)
    coarse = 3 * rng.normal(size=(height // 8, width // 8, CLASSES))
    logits = resize_bilinear(coarse.astype(np.float32), (height, width))
    y, x = np.mgrid[:height, :width]
    centers = rng.integers(0, (height, width), (count, 2))
    squared = np.stack([(y - cy) ** 2 + (x - cx) ** 2 for cy, cx in centers])
    peaks = rng.uniform(0.3, 1, count)[:, None, None]
    heat = (np.exp(-squared / 18) * peaks).max(axis=0)
    if is_integer:
        heat = np.round(heat * 255) / 255
    offsets = centers[squared.argmin(axis=0)] - np.stack([y, x], axis=-1)
    return {
        keys.SEMANTIC_LOGITS: logits,
        keys.CENTER_HEATMAP: heat[..., None].astype(np.float32),
        keys.OFFSET_MAP: (offsets + rng.normal(size=offsets.shape)).astype(np.float32),
    }


def raw_heads(heads: Heads, *, is_integer: bool) -> RawHeads:
    """Gives heads as they leave a network: int8 with a scale for each, or float32."""
    if not is_integer:
        return {name: RawHead(head) for name, head in heads.items()}
    raw = {}
    for name, head in heads.items():
        low, high = min(float(head.min()), 0.0), float(head.max())
        scale = float(np.float32((high - low) / 255))
        zero_point = round(-128 - low / scale)
        steps = np.clip(np.round(head / scale) + zero_point, -128, 127)
        raw[name] = RawHead(steps.astype(np.int8), scale, zero_point)
    return raw


class _Model:
    """Is what merging needs to know of a model."""

    def __init__(self, canvas: tuple[int, int], *, is_integer: bool) -> None:
        self.canvas = canvas
        self.merge = MergeSettings(
            _THINGS,
            1000,
            255,
            nms_kernel=7 if canvas[0] > 300 else 5,
            merge_plateaus=is_integer,
        )
        names = tuple(str(c) for c in range(CLASSES))
        self.classes = ClassTable("merging", names, (), _THINGS, 1000, 255)
        self.placement = Placement(canvas, canvas)
        self.image = np.zeros((*canvas, 3), np.uint8)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.classes, name)

    def numpy(self, heads: RawHeads) -> NDArray[np.int32]:
        real = _real(heads)
        maps = panoptic.merge_heads(
            real[keys.SEMANTIC_LOGITS],
            real[keys.CENTER_HEATMAP][..., 0],
            real[keys.OFFSET_MAP],
            canvas=self.canvas,
            settings=self.merge,
        )
        return build_result(self.image, maps, self.placement, self.classes).panoptic

    def native(self, heads: RawHeads, num_threads: int = 1) -> NDArray[np.int32]:
        model: Any = self
        return native.segment_panoptic(
            heads, self.placement, model, num_threads
        ).panoptic


def _real(heads: RawHeads) -> Heads:
    return {name: head.real() for name, head in heads.items()}


def _files(canvas: tuple[int, int]) -> dict[bool, dict[str, bytes]]:
    """Converts what follows networks of floats, and of integers."""
    files = {}
    for is_integer in (False, True):
        heads = make_heads(canvas, CENTERS[0], is_integer=is_integer)
        tail = trace_tail(
            families.PANOPTIC,
            {name: head.shape for name, head in heads.items()},
            canvas=canvas,
            merge=_Model(canvas, is_integer=is_integer).merge,
        )
        files[is_integer] = {
            "tflite": tail_as_tflite(tail),
            "onnx": tail_as_onnx(tail, opset=17).SerializeToString(),
        }
    return files


def _makers(model: _Model, files: dict[str, bytes]) -> dict[str, Callable[[], Run]]:
    """Gives for each way what loads it."""

    def in_tensorflow() -> Run:
        merge = make_merge(model.canvas, model.merge)
        return lambda heads: merge(_real(heads))

    return {
        "native": lambda: model.native,
        "native_2": lambda: lambda heads: model.native(heads, 2),
        "numpy": lambda: model.numpy,
        # Without plateaus it is not what is compared, but costs the same.
        "tensorflow": in_tensorflow,
        "tflite": lambda: _in_litert(files["tflite"]),
        "onnx": lambda: _in_onnx_runtime(files["onnx"]),
    }


def _in_litert(graph: bytes) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=graph, num_threads=1).get_signature_runner()
    return lambda heads: runner(**{n: h[None] for n, h in _real(heads).items()})[
        keys.PANOPTIC_PRED
    ][0]


def _in_onnx_runtime(model: bytes) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options)
    return lambda heads: session.run(
        [keys.PANOPTIC_PRED], {n: h[None] for n, h in _real(heads).items()}
    )[0][0]


def _measure(
    canvas: tuple[int, int],
    count: int,
    files: dict[str, bytes],
    rounds: int,
    is_integer: bool,
) -> dict[str, Any]:
    model = _Model(canvas, is_integer=is_integer)
    heads = raw_heads(
        make_heads(canvas, count, is_integer=is_integer), is_integer=is_integer
    )
    makers = _makers(model, files)
    memory = {name: _memory(make, heads) for name, make in makers.items()}
    runs = {name: make() for name, make in makers.items()}
    expected = runs["numpy"](heads)
    for name, run in runs.items():
        same = np.mean(run(heads) == expected)
        # TensorFlow splits plateaus, which gives other instances.
        if same < (1 if name != "tensorflow" else 0 if is_integer else _SAME):
            raise SystemExit(f"{name} gives another map: {same:.4f} are the same")
    wall, processor = _in_turn(
        {n: lambda r=r: r(heads) for n, r in runs.items()}, rounds
    )
    ratios = {
        name: statistics.median(
            a / b for a, b in zip(wall[name], wall["native"], strict=True)
        )
        for name in runs
    }
    return {
        "canvas": _name(canvas),
        "centers": count,
        "is_integer": is_integer,
        "milliseconds": _medians(wall),
        "processor_milliseconds": _medians(processor),
        "ratio_to_native": {name: round(ratio, 2) for name, ratio in ratios.items()},
        "extra_bytes": memory,
        "map_bytes": 4 * canvas[0] * canvas[1],
    }


def _against_centers(canvas: tuple[int, int], rounds: int) -> dict[str, Any]:
    """Measures the core alone, one thread, with more and more centers."""
    model = _Model(canvas, is_integer=False)
    cases = {
        str(count): raw_heads(
            make_heads(canvas, count, is_integer=False), is_integer=False
        )
        for count in ALL_CENTERS
    }
    _, processor = _in_turn(
        {name: lambda h=heads: model.native(h) for name, heads in cases.items()}, rounds
    )
    return {"canvas": _name(canvas), "processor_milliseconds": _medians(processor)}


def _in_turn(
    calls: Mapping[str, Callable[[], object]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Gives milliseconds by the clock and of the processor."""
    wall: dict[str, list[float]] = {name: [] for name in calls}
    processor: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            start, used = time.perf_counter(), time.process_time()
            call()
            processor[name].append(1000 * (time.process_time() - used))
            wall[name].append(1000 * (time.perf_counter() - start))
    return wall, processor


def _medians(times: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: round(statistics.median(t), 2) for name, t in times.items()}


def _name(canvas: tuple[int, int]) -> str:
    return f"{canvas[0]}x{canvas[1]}"


def _memory(make: Callable[[], Run], heads: RawHeads) -> int:
    """Says how much memory it takes to load what merges and to run it once."""
    # What was freed goes back to the system, and the peak begins here.
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    make()(heads)
    return _status("VmHWM") - before


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise SystemExit(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    main()
