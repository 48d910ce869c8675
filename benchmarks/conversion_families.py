"""Does every family convert, and is the file equal to its source?

Converts a trained checkpoint of each family to float TFLite and ONNX, and to
int8-mixed; compares each file with the float model, head by head, and by the family's
own metric on labeled scenes. Adds what it finds to one JSON, file by file, so that it
can be stopped and go on.

    python -m benchmarks.conversion_families --data data --runs runs [RECIPE ...]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.command import run_command, run_measured
from benchmarks.families import figures_of, small_street_recipes
from deeplab2_edge import experiments
from deeplab2_edge.config import load_config
from deeplab2_edge.families import MOTION, TWO_FRAMES, family_of
from deeplab2_edge.files import atomic_write
from deeplab2_edge.runtime.machine import describe_machine

RESULTS = Path(__file__).parent / "results" / "conversion_families.json"
# Format and mode of each file; the last one is measured on labels.
FILES = (("tflite", "none"), ("onnx", "none"), ("tflite", "int8-mixed"))
_RECORDS = {MOTION: "synthetic_129_two_frames", TWO_FRAMES: "synthetic_129_next_frame"}


def main() -> None:
    """Converts, measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE")
    parser.add_argument(
        "--data", type=Path, required=True, help="of benchmarks.families"
    )
    parser.add_argument("--runs", type=Path, required=True, help="of the same")
    parser.add_argument("--limit", type=int, default=60)
    args = parser.parse_args()
    for recipe in args.recipes or small_street_recipes():
        run = args.runs / recipe
        if run.is_dir():
            family = family_of(load_config(experiments.find_recipe(recipe)))
            records = args.data / _RECORDS.get(family, "synthetic_129")
            _measure(recipe, run, f"{records}/val-*.tfrecord", args.limit)


def _measure(recipe: str, run: Path, records: str, limit: int) -> None:
    for file_format, mode in FILES:
        name = f"{file_format} {mode}"
        if name in _read()["rows"].get(recipe, {}):
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"model.{file_format}"
            started = time.monotonic()
            text, peak = run_measured(
                *("convert", "--checkpoint", str(run), "--quantize", mode),
                *("--format", file_format, "--output", str(path)),
                *("--calibration-data", records.replace("val-", "train-")),
                *("--verify-data", records, "--verify-images", "4"),
                *("--quiet", "--json"),
            )
            report = json.loads(text)
            row = {
                "seconds": round(time.monotonic() - started),
                "peak_memory_bytes": peak,
                "file_bytes": path.stat().st_size,
                "heads": report["verification"]["heads"],
                "op_counts": report["op_counts"],
            }
            if mode != "none":
                row["float"] = _evaluate(str(run), records, limit)
                row["converted"] = _evaluate(str(path), records, limit)
        _add(recipe, name, row)
        figures = {k: row[k] for k in ("heads", "float", "converted") if k in row}
        print(recipe, name, json.dumps(figures), flush=True)


def _evaluate(model: str, records: str, limit: int) -> dict[str, float]:
    text = run_command(
        *("evaluate", model, "--data", records, "--limit", str(limit)),
        *("--quiet", "--json"),
    )
    return figures_of(json.loads(text))


def _read() -> dict[str, Any]:
    document: dict[str, Any] = {"rows": {}}
    if RESULTS.is_file():
        document = json.loads(RESULTS.read_text())
    return document


def _add(recipe: str, name: str, row: dict[str, Any]) -> None:
    document = _read()
    document["command"] = (
        "python -m benchmarks.conversion_families --data data --runs runs"
    )
    document["machine"] = describe_machine()
    document["rows"].setdefault(recipe, {})[name] = row
    with atomic_write(RESULTS) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
