"""What does each way of conversion cost and bring?

Converts a checkpoint in every mode, with both quantizers and to both formats; measures
every file and the float model on the same labeled images, at their original size; and
times the networks in turn (A B C A B C ...), each against float TFLite in the same
round. Adds row by row to one JSON, so that it can be stopped and go on.

    python -m benchmarks.conversion --checkpoint demo --data synthetic --limit 200 \\
        --output benchmarks/results/conversion_synthetic.json
    python -m benchmarks.conversion --checkpoint runs/camvid_mobilenet_v3_small \\
        --data camvid/val --calibration-data camvid/train --dataset camvid \\
        --output benchmarks/results/conversion_camvid.json \\
        --qat-steps 300 --qat-data 'records/train-*.tfrecord'
"""

import argparse
import json
import shlex
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import run_command, run_measured
from deeplab2_edge.files import atomic_write
from deeplab2_edge.runtime.engine import Engine, open_engine
from deeplab2_edge.runtime.machine import describe_machine

# Name of a row -> what `convert` is asked for.
ROWS: Mapping[str, tuple[str, ...]] = {
    "none": ("--quantize", "none"),
    "fp16": ("--quantize", "fp16"),
    "dynamic": ("--quantize", "dynamic"),
    "int8": ("--quantize", "int8", "--quantizer", "tflite"),
    "int8, ai-edge": ("--quantize", "int8", "--quantizer", "ai-edge"),
    "int8-mixed": ("--quantize", "int8-mixed"),
    "int16x8": ("--quantize", "int16x8"),
    "int8, QAT": ("--quantize", "int8", "--qat"),
    "onnx none": ("--format", "onnx", "--quantize", "none"),
    "onnx int8": ("--format", "onnx", "--quantize", "int8"),
}
BASE = "none"
_ROUNDS = 15


def main() -> None:
    """Converts, measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--checkpoint", default="demo")
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--dataset")
    parser.add_argument("--calibration-data", default="synthetic:train")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--qat-steps", type=int, help="without: no QAT")
    parser.add_argument("--qat-data")
    parser.add_argument("--files", type=Path, default=Path("conversion_files"))
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    rows = args.rows or [r for r in ROWS if "QAT" not in r or args.qat_steps]
    data = ["--data", args.data, "--json", "--quiet"]
    data += ["--dataset", args.dataset] if args.dataset else []
    data += ["--limit", str(args.limit)] if args.limit else []
    document = _begin(args.output)
    if "float" not in document["rows"]:
        report = json.loads(run_command("evaluate", args.checkpoint, *data))
        document["num_images"] = report["num_images"]
        document["rows"]["float"] = {"percent": points_of(report)}
        write(document, args.output)
    args.files.mkdir(parents=True, exist_ok=True)
    for name in rows:
        if name not in document["rows"]:
            document["rows"][name] = _measure(name, args, data)
            write(document, args.output)
        print(name, json.dumps(document["rows"][name]), flush=True)
    _time_networks(document, args.files)
    write(document, args.output)


def points_of(report: Any) -> dict[str, float]:
    """Picks the main figures of a report of `evaluate`, in percent."""
    quality = report["panoptic_quality"]
    names = ("pq", "sq", "rq", "pq_things", "pq_stuff")
    points = {name: 100 * quality[name] for name in names}
    points["miou"] = 100 * report["mean_iou"]["miou"]
    return {name: round(value, 2) for name, value in points.items()}


def _begin(output: Path) -> dict[str, Any]:
    document: dict[str, Any] = {"rows": {}}
    if output.is_file():
        document = json.loads(output.read_text())
    document["command"] = f"python -m benchmarks.conversion {shlex.join(sys.argv[1:])}"
    document["machine"] = describe_machine()
    return document


def write(document: dict[str, Any], output: Path) -> None:
    """Writes what is known so far, whole or not at all."""
    with atomic_write(output) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n")


def _file_of(name: str, folder: Path) -> Path:
    suffix = "onnx" if name.startswith("onnx") else "tflite"
    stem = name.replace(", ", "_").replace(" ", "_")
    return folder / f"{stem}.{suffix}"


def _measure(name: str, args: argparse.Namespace, data: list[str]) -> dict[str, Any]:
    path = _file_of(name, args.files)
    options = [*ROWS[name], "--calibration-data", args.calibration_data]
    if "QAT" in name:
        options += ["--qat-steps", str(args.qat_steps)]
        options += ["--qat-data", args.qat_data] if args.qat_data else []
    started = time.monotonic()
    text, peak = run_measured(
        *("convert", "--checkpoint", args.checkpoint, *options),
        *("--output", str(path), "--verify-images", "4", "--quiet", "--json"),
    )
    seconds = time.monotonic() - started
    report = json.loads(run_command("evaluate", str(path), *data))
    return {
        "percent": points_of(report),
        "file_bytes": path.stat().st_size,
        "convert_seconds": round(seconds),
        "convert_peak_bytes": peak,
        "op_counts": json.loads(text)["op_counts"],
    }


def _time_networks(document: dict[str, Any], folder: Path) -> None:
    """Adds the time of each network, as a ratio to float TFLite in the same round.

    With one thread: threads of ONNX Runtime that wait keep a core busy, and would slow
    the others in their turn.
    """
    engines = {
        name: open_engine(_file_of(name, folder), num_threads=1)
        for name in document["rows"]
        if name != "float" and _file_of(name, folder).is_file()
    }
    times: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(_ROUNDS + 1):
        for name, engine in engines.items():
            elapsed = _run(engine)
            if number:  # the first round warms up
                times[name].append(elapsed)
    for name, measured in times.items():
        ratios = [a / b for a, b in zip(measured, times[BASE], strict=True)]
        document["rows"][name]["network_ms"] = round(statistics.median(measured), 2)
        document["rows"][name]["ratio"] = round(statistics.median(ratios), 3)


def _run(engine: Engine) -> float:
    inputs = {
        name: np.full(spec.shape, 100, np.uint8)
        for name, spec in engine.metadata.inputs.items()
    }
    start = time.perf_counter_ns()
    engine.run(inputs)
    return (time.perf_counter_ns() - start) / 1e6


if __name__ == "__main__":
    main()
