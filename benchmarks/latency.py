"""How long does a frame take on this machine, stage by stage?

Converts the shipped checkpoint to float and int8 at two canvases and runs
`deeplab2-edge benchmark` on every file with one and two threads, each in a process of
its own, the files in turn (A B C D A B C D ...) so that a drifting machine hits all
alike. Writes one JSON.

    python -m benchmarks.latency [--rounds 3] [--output benchmarks/results/latency.json]
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.command import run_command
from deeplab2_edge.files import atomic_write

CANVASES = ("257x513", "513x1025")
QUANTIZATIONS = ("none", "int8")
THREADS = (1, 2)
STAGES = ("decode", "preprocess", "network", "merge", "draw")
_REPEATS = 20
_DEFAULT_OUTPUT = Path(__file__).parent / "results" / "latency.json"


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=_DEFAULT_OUTPUT)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = {
            (canvas, mode): _convert(Path(folder), canvas, mode)
            for canvas in CANVASES
            for mode in QUANTIZATIONS
        }
        measured: dict[tuple[str, str, int], list[Any]] = {}
        for number in range(args.rounds):
            for (canvas, mode), path in files.items():
                for threads in THREADS:
                    print(f"round {number + 1}: {canvas} {mode} {threads}", flush=True)
                    report = _benchmark(path, threads)
                    measured.setdefault((canvas, mode, threads), []).append(report)
    document = _summarize(measured, args.rounds)
    with atomic_write(args.output) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n")
    print(f"{args.output} written; `python -m benchmarks.tables` makes the table")


def _convert(folder: Path, canvas: str, mode: str) -> Path:
    path = folder / f"{canvas}_{mode}.tflite"
    run_command(
        "convert", "--quantize", mode, "--input-size", canvas, "--output", str(path)
    )
    return path


def _benchmark(path: Path, threads: int) -> Any:
    repeats = str(_REPEATS)
    return json.loads(
        run_command(
            *("benchmark", str(path), "--threads", str(threads)),
            *("--repeats", repeats, "--json"),
        )
    )


def _summarize(measured: dict[Any, list[Any]], rounds: int) -> dict[str, Any]:
    rows = []
    for (canvas, mode, threads), reports in measured.items():
        base = measured[canvas, "none", threads]
        ratios = [
            mine["stages"]["network"]["p50_ms"] / other["stages"]["network"]["p50_ms"]
            for mine, other in zip(reports, base, strict=True)
        ]
        rows.append(
            {
                "canvas": canvas,
                "quantize": mode,
                "threads": threads,
                "p50_ms": {
                    stage: statistics.median(
                        report["stages"][stage]["p50_ms"] for report in reports
                    )
                    for stage in STAGES
                },
                "total_p50_ms": statistics.median(
                    report["total"]["p50_ms"] for report in reports
                ),
                "load_ms": statistics.median(r["load_ms"] for r in reports),
                "network_ratio_to_fp32": statistics.median(ratios),
                "peak_memory_bytes": max(r["peak_memory_bytes"] for r in reports),
                "model_bytes": reports[0]["model"]["bytes"],
            }
        )
    machine = next(iter(measured.values()))[0]["machine"]
    return {
        "command": "python -m benchmarks.latency",
        "model": "demo",
        "rounds": rounds,
        "repeats": _REPEATS,
        "machine": machine,
        "rows": rows,
    }


if __name__ == "__main__":
    main()
