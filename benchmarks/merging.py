"""What does it cost to make panoptic maps of heads, and where is it cheapest?

Runs the same heads through every way to merge, in turn (A B C D A B C D ...) so that a
drifting machine hits all alike, one thread each:

* `numpy`: `deeplab2_edge.panoptic.merge_heads`, which the runtime uses;
* `native`: the C++ core, which the custom op runs;
* `tflite`: what `--merge graph` appends to a TFLite file, in LiteRT;
* `onnx`: the same of ONNX files, in ONNX Runtime.

Checks that all give the same maps and writes one JSON. Times are of the processor, so
that other work on the machine counts less; ratios are medians of the ratios of a round.
`extra_bytes` is what it takes to load what merges and to run it once (Linux only).

    python -m benchmarks.merging [--rounds 7] [--output FILE.json]
"""

import argparse
import ctypes
import gc
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import families, keys, panoptic
from deeplab2_edge.convert.merge.tail import tail_as_onnx, tail_as_tflite, trace_tail
from deeplab2_edge.files import atomic_write
from deeplab2_edge.panoptic import MergeSettings, resize_bilinear
from deeplab2_edge.runtime import native
from deeplab2_edge.runtime.machine import describe_machine

CANVASES = ((257, 513), (513, 1025))
CLASSES = 19
# Seen in a street: a few, and a crowd.
CENTERS = (20, 60)
_THINGS = tuple(range(11, 19))
_OUTPUT = Path(__file__).parent / "results" / "merging.json"

Heads = dict[str, NDArray[np.float32]]
Run = Callable[[Heads], NDArray[np.int32]]


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=_OUTPUT)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for canvas in CANVASES:
        files = _files(canvas)
        for count in CENTERS:
            for is_integer in (False, True):
                row = _measure(canvas, count, files, args.rounds, is_integer)
                rows.append(row)
                print(json.dumps(row), flush=True)
    document = {
        "machine": describe_machine(),
        "classes": CLASSES,
        "rounds": args.rounds,
        "rows": rows,
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


def _settings(canvas: tuple[int, int], *, is_integer: bool) -> MergeSettings:
    kernel = 7 if canvas[0] > 300 else 5
    return MergeSettings(
        _THINGS, 1000, 255, nms_kernel=kernel, merge_plateaus=is_integer
    )


def _files(canvas: tuple[int, int]) -> dict[bool, dict[str, bytes]]:
    """Converts what follows networks of floats, and of integers."""
    files = {}
    for is_integer in (False, True):
        heads = make_heads(canvas, CENTERS[0], is_integer=is_integer)
        tail = trace_tail(
            families.PANOPTIC,
            {name: head.shape for name, head in heads.items()},
            canvas=canvas,
            merge=_settings(canvas, is_integer=is_integer),
        )
        files[is_integer] = {
            "tflite": tail_as_tflite(tail),
            "onnx": tail_as_onnx(tail, opset=17).SerializeToString(),
        }
    return files


def _makers(
    canvas: tuple[int, int], files: dict[str, bytes], is_integer: bool
) -> dict[str, Callable[[], Run]]:
    """Gives for each way what loads it."""
    settings = _settings(canvas, is_integer=is_integer)

    def on_arrays(merge: Any) -> Run:
        return lambda heads: (
            merge(
                heads[keys.SEMANTIC_LOGITS],
                heads[keys.CENTER_HEATMAP][..., 0],
                heads[keys.OFFSET_MAP],
                canvas=canvas,
                settings=settings,
            ).panoptic
        )

    return {
        "numpy": lambda: on_arrays(panoptic.merge_heads),
        "native": lambda: on_arrays(native.merge_heads),
        "tflite": lambda: _in_litert(files["tflite"]),
        "onnx": lambda: _in_onnx_runtime(files["onnx"]),
    }


def _in_litert(graph: bytes) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=graph, num_threads=1).get_signature_runner()
    return lambda heads: runner(**{n: h[None] for n, h in heads.items()})[
        keys.PANOPTIC_PRED
    ][0]


def _in_onnx_runtime(model: bytes) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options)
    return lambda heads: session.run(
        [keys.PANOPTIC_PRED], {n: h[None] for n, h in heads.items()}
    )[0][0]


def _measure(
    canvas: tuple[int, int],
    count: int,
    files: dict[bool, dict[str, bytes]],
    rounds: int,
    is_integer: bool,
) -> dict[str, Any]:
    heads = make_heads(canvas, count, is_integer=is_integer)
    makers = _makers(canvas, files[is_integer], is_integer)
    memory = {name: _memory(make, heads) for name, make in makers.items()}
    runs = {name: make() for name, make in makers.items()}
    expected = runs["numpy"](heads)
    for name, run in runs.items():
        if not np.array_equal(run(heads), expected):
            raise SystemExit(f"{name} gives another map")
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.process_time()
            run(heads)
            seconds[name].append(time.process_time() - start)
    ratios = {
        name: statistics.median(
            a / b for a, b in zip(seconds[name], seconds["native"], strict=True)
        )
        for name in runs
    }
    return {
        "canvas": f"{canvas[0]}x{canvas[1]}",
        "centers": count,
        "is_integer": is_integer,
        "milliseconds": {
            name: round(1000 * statistics.median(s), 2) for name, s in seconds.items()
        },
        "ratio_to_native": {name: round(ratio, 2) for name, ratio in ratios.items()},
        "extra_bytes": memory,
    }


def _memory(make: Callable[[], Run], heads: Heads) -> int:
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
