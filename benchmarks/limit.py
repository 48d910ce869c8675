"""How near is a network to what this machine can multiply, and where is the rest lost?

Two figures of the same engine are compared: the multiply-adds a second that LiteRT
reaches on ideal layers (wide convolutions that fill the caches, depthwise ones), and
what it reaches on networks of published size. The time of each is then divided by kind
of operator, as XNNPACK runs them; a kind's loss is its time less what its multiply-adds
would take at the peak.

Files are made once and kept in `--models`.

    python -m benchmarks.limit [--checkpoint large=runs/large] [--models DIR]
        [--output FILE.json]
"""

import argparse
import collections
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.networks import make_files, named_checkpoint
from benchmarks.op_profile import TimedOp, profile_ops, total_ms
from deeplab2_edge.files import atomic_write
from deeplab2_edge.model_file import read_model_file
from deeplab2_edge.optional import require
from deeplab2_edge.runtime.machine import describe_machine
from deeplab2_edge.targets.cost import multiply_adds
from deeplab2_edge.tflite_file.graph import read_graph

_RESULTS = Path(__file__).parent / "results" / "limit.json"
_THREADS = (1, 2)
# What a kernel of XNNPACK is called, and what it is.
_KINDS = (
    ("DWConv", "depthwise"),
    ("IGEMM", "convolution"),
    ("GEMM", "pointwise"),
    ("Resize", "resize"),
    ("Multiply", "product"),
    ("HardSwish", "hard-swish"),
    ("Unary", "hard-swish"),
    ("Add", "sum"),
    ("Mean", "mean"),
    ("Copy", "concatenation"),
    ("Sigmoid", "gate"),
)
_LAYERS = {
    "pointwise 512 to 512": ((64, 128, 512), 512, 1, False),
    "convolution 3x3 256 to 256": ((64, 128, 256), 256, 3, False),
    "depthwise 3x3 of 256": ((128, 128, 256), 0, 3, True),
    "depthwise 5x5 of 256": ((128, 128, 256), 0, 5, True),
}


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoint", action="append", metavar="[NAME=]FOLDER", help="default: demo"
    )
    parser.add_argument("--canvas", default="513x1025", metavar="HxW")
    parser.add_argument("--models", type=Path, default=Path("build/networks"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=_RESULTS)
    args = parser.parse_args()
    height, width = map(int, args.canvas.split("x"))
    networks = dict(map(named_checkpoint, args.checkpoint or ["demo"]))
    files = {
        (name, mode): path
        for name, checkpoint in networks.items()
        for (_, mode), path in make_files(
            args.models, checkpoint, (height, width)
        ).items()
    }
    peaks = {
        dtype: {
            name: _rates(_layer(*shape, dtype=dtype), args.rounds)
            for name, shape in _LAYERS.items()
        }
        for dtype in ("float32", "int8")
    }
    rows = []
    for (network, mode), path in files.items():
        dtype = "int8" if mode == "int8" else "float32"
        for threads in _THREADS:
            ops = profile_ops(path, threads=threads)
            row = {
                "network": network,
                "canvas": [height, width],
                "mode": mode,
                "threads": threads,
                **_account(path, ops, _peak(peaks[dtype], threads)),
            }
            rows.append(row)
            print(json.dumps(row), flush=True)
    document = {
        "command": "python -m benchmarks.limit",
        "machine": describe_machine(),
        "gmac_per_second": peaks,
        "rows": rows,
    }
    with atomic_write(args.output) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n")


def _account(path: Path, ops: Sequence[TimedOp], peak: float) -> dict[str, Any]:
    """Divides the time of a network by kinds of operators.

    Args:
        path: The file.
        ops: Its operators as they ran.
        peak: Multiply-adds in a millisecond.
    """
    macs = _multiply_adds(path)
    times: collections.Counter[str] = collections.Counter()
    for op in ops:
        times[_kind(op)] += op.ms
    total = total_ms(ops)
    kinds = {}
    for kind, ms in times.most_common():
        ideal = macs.get(kind, 0) / peak
        kinds[kind] = {
            "ms": round(ms, 3),
            "share": round(ms / total, 4),
            "gmac_per_second": round(macs.get(kind, 0) / ms / 1e6, 1) if ms else None,
            "loss_ms": round(ms - ideal, 3),
        }
    worst = sorted(kinds, key=lambda kind: -kinds[kind]["loss_ms"])[:3]
    return {
        "ms": round(total, 3),
        "gmac": round(sum(macs.values()) / 1e9, 3),
        "gmac_per_second": round(sum(macs.values()) / total / 1e6, 1),
        "share_of_peak": round(sum(macs.values()) / peak / total, 4),
        "kinds": kinds,
        "largest_losses": worst,
    }


def _kind(op: TimedOp) -> str:
    if not op.is_delegated:
        return f"{op.kind} outside XNNPACK"
    return next((kind for word, kind in _KINDS if word in op.kind), op.kind)


def _multiply_adds(path: Path) -> Mapping[str, int]:
    counts: collections.Counter[str] = collections.Counter()
    for op in read_graph(read_model_file(path).graph).ops:
        if op.name == "DEPTHWISE_CONV_2D":
            counts["depthwise"] += multiply_adds(op)
        elif op.name in ("CONV_2D", "FULLY_CONNECTED"):
            kernel = op.input(1)
            assert kernel is not None
            is_wide = op.name == "CONV_2D" and max(kernel.shape[1:3]) > 1
            counts["convolution" if is_wide else "pointwise"] += multiply_adds(op)
    return counts


def _peak(rates: Mapping[str, Mapping[str, float]], threads: int) -> float:
    """Gives the most multiply-adds in a millisecond."""
    return max(rate[str(threads)] for rate in rates.values()) * 1e6


def _rates(layer: tuple[bytes, int], rounds: int) -> dict[str, float]:
    """Measures GMAC/s of one layer for each number of threads, interleaved."""
    from ai_edge_litert.interpreter import Interpreter

    graph, macs = layer
    engines = {t: Interpreter(model_content=graph, num_threads=t) for t in _THREADS}
    seconds: dict[int, list[float]] = {threads: [] for threads in engines}
    for engine in engines.values():
        engine.allocate_tensors()
        engine.invoke()
    for _ in range(rounds * 4):
        for threads, engine in engines.items():
            start = time.perf_counter()
            engine.invoke()
            seconds[threads].append(time.perf_counter() - start)
    return {
        str(threads): round(macs / min(times) / 1e9, 1)  # a peak is the best there is
        for threads, times in seconds.items()
    }


def _layer(
    shape: tuple[int, int, int],
    channels: int,
    kernel: int,
    is_depthwise: bool,
    *,
    dtype: str,
) -> tuple[bytes, int]:
    """Makes a file of one layer, and counts its multiply-adds."""
    tf = require("tensorflow", extra="convert")
    tf_keras = require("tf_keras", extra="convert")
    x = tf_keras.Input(shape, batch_size=1)
    if is_depthwise:
        y = tf_keras.layers.DepthwiseConv2D(kernel, padding="same")(x)
        macs = int(np.prod(shape)) * kernel**2
    else:
        y = tf_keras.layers.Conv2D(channels, kernel, padding="same")(x)
        macs = int(np.prod(shape)) * channels * kernel**2
    converter = tf.lite.TFLiteConverter.from_keras_model(tf_keras.Model(x, y))
    if dtype == "int8":
        rng = np.random.default_rng(0)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            [rng.normal(size=(1, *shape)).astype(np.float32)] for _ in range(2)
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert()), macs


if __name__ == "__main__":
    main()
