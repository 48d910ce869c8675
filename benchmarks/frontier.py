"""Which small network gives the most quality for its time?

Every trained network is converted to int8 at every canvas, measured on the same labeled
images at their original size, and timed from a decoded image to its segments, in turn
with all others (A B C A B C ...). A row that is neither slower nor worse than another
is on the frontier. Adds row by row to one JSON, so that it can be stopped and go on.

    python -m benchmarks.frontier --data synthetic --limit 200 \\
        --run large=runs/large --run small=runs/small \\
        --canvases 257x513 193x385 --output benchmarks/results/frontier_synthetic.json
"""

import argparse
import json
import shlex
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import run_command
from benchmarks.conversion import points_of, write
from deeplab2_edge.runtime.machine import describe_machine
from deeplab2_edge.runtime.segmenter import PanopticSegmenter
from deeplab2_edge.synth import render_scene

_THREADS = (1, 2)
_SCENES = range(1_000_400, 1_000_404)

Rows = dict[str, dict[str, Any]]


def main() -> None:
    """Converts, measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--run", action="append", required=True, metavar="NAME=FOLDER", help="trained"
    )
    parser.add_argument("--canvases", nargs="+", required=True, metavar="HxW")
    parser.add_argument("--data", required=True)
    parser.add_argument("--dataset")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--calibration-data", default="synthetic:train")
    parser.add_argument("--files", type=Path, default=Path("build/frontier"))
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    args.files.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {"rows": {}}
    if args.output.is_file():
        document = json.loads(args.output.read_text())
    document["command"] = f"python -m benchmarks.frontier {shlex.join(sys.argv[1:])}"
    rows: Rows = document["rows"]
    for named in args.run:
        network, _, folder = named.partition("=")
        for canvas in args.canvases:
            name = f"{network} {canvas}"
            if name not in rows:
                path = args.files / f"{network}_{canvas}.tflite"
                row = {"network": network, "canvas": canvas}
                rows[name] = row | _measure(folder, canvas, path, args)
                write(document, args.output)
            print(name, json.dumps(rows[name]), flush=True)
    _time(rows, args.files, args.rounds)
    for row in rows.values():
        row["is_on_frontier"] = not any(_beats(other, row) for other in rows.values())
    document["machine"] = describe_machine()
    write(document, args.output)


def _measure(
    checkpoint: str, canvas: str, path: Path, args: argparse.Namespace
) -> dict[str, Any]:
    if not path.exists():
        run_command(
            *("convert", "--checkpoint", checkpoint, "--input-size", canvas),
            *("--quantize", "int8", "--calibration-data", args.calibration_data),
            *("--verify-images", "2", "--quiet", "--json", "--output", str(path)),
        )
    data = ["--data", args.data, "--json", "--quiet"]
    data += ["--dataset", args.dataset] if args.dataset else []
    data += ["--limit", str(args.limit)] if args.limit else []
    report = json.loads(run_command("evaluate", str(path), *data))
    return {
        "num_images": report["num_images"],
        "percent": points_of(report),
        "file_bytes": path.stat().st_size,
    }


def _time(rows: Rows, folder: Path, rounds: int) -> None:
    """Adds milliseconds, and their share of the slowest row's in the same round."""
    images = [render_scene(number).image for number in _SCENES]
    segmenters = {
        (name, threads): PanopticSegmenter(
            folder / f"{row['network']}_{row['canvas']}.tflite", num_threads=threads
        )
        for name, row in rows.items()
        for threads in _THREADS
    }
    times: Mapping[tuple[str, int], list[float]] = {key: [] for key in segmenters}
    for number in range(rounds + 1):
        for key, segmenter in segmenters.items():
            start = time.perf_counter()
            segmenter(images[number % len(images)])
            if number:  # the first round warms up
                times[key].append(1000 * (time.perf_counter() - start))
    slowest = max(rows, key=lambda name: statistics.median(times[name, 1]))
    for name, row in rows.items():
        row["ms"] = {
            str(n): round(statistics.median(times[name, n]), 2) for n in _THREADS
        }
        row["share_of_slowest"] = {
            str(n): round(_ratio(times[name, n], times[slowest, n]), 4)
            for n in _THREADS
        }


def _ratio(times: Sequence[float], others: Sequence[float]) -> float:
    return float(np.median(np.divide(times, others)))


def _beats(other: dict[str, Any], row: dict[str, Any]) -> bool:
    is_better = other["percent"]["pq"] > row["percent"]["pq"]
    return is_better and other["ms"]["1"] <= row["ms"]["1"]


if __name__ == "__main__":
    main()
