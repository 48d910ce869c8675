"""Does every family learn?

Trains the recipes of the small synthetic street and measures each on held-out scenes
twice: after its first step, and at its end. Renders the records it needs. Adds what it
finds to one JSON, recipe by recipe, so that it can be stopped.

    python -m benchmarks.families --data data --output runs [RECIPE ...]
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.command import run_command, run_measured
from deeplab2_edge import experiments
from deeplab2_edge.config import load_config
from deeplab2_edge.files import atomic_write
from deeplab2_edge.runtime.machine import describe_machine

RESULTS = Path(__file__).parent / "results" / "families.json"
CANVAS = (129, 257)
# What of a video a model reads beside its image.
_VIDEOS = {"motion_deeplab": "--two-frames", "vip_deeplab": "--next-frame"}
_FIGURES = (
    ("panoptic_quality", "pq"),
    ("mean_iou", "miou"),
    ("tracking_quality", "stq"),
    ("video_panoptic_quality", "vpq"),
    ("depth", "abs_rel"),
)


def main() -> None:
    """Trains, measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    for recipe in args.recipes or small_street_recipes():
        row = measure(recipe, args.data, args.output)
        _add(recipe, row)
        print(recipe, json.dumps({k: row[k] for k in ("first_step", "trained")}))


def small_street_recipes() -> list[str]:
    """Lists the recipes of this benchmark: those of its canvas."""
    names = [n for n in experiments.recipe_names() if n.startswith("synthetic_street")]
    return [n for n in names if _crop_size(n) == CANVAS]


def measure(recipe: str, data: Path, output: Path) -> dict[str, Any]:
    """Trains one recipe and returns its row."""
    records = _records(recipe, data)
    train: tuple[str, ...] = (
        "train",
        recipe,
        "--output",
        str(output),
        "--json",
        "--quiet",
    )
    for placeholder, split in (("${TRAIN_SET}", "train"), ("${VAL_SET}", "val")):
        train += ("--set", f"{placeholder}={records}/{split}-*.tfrecord")
    run_command(*train, "--steps", "1")
    first = _evaluate(output / recipe, records)
    started = time.monotonic()
    text, peak = run_measured(*train)
    seconds = time.monotonic() - started
    summary = json.loads(text)
    return {
        "canvas": CANVAS,
        "steps": summary["last_step"],
        "seconds": round(seconds),
        "steps_per_second": summary["steps_per_second"],
        "peak_memory_bytes": peak,
        "losses": summary["losses"],
        "first_step": first,
        "trained": _evaluate(output / recipe, records),
    }


def _records(recipe: str, data: Path) -> Path:
    config = load_config(experiments.find_recipe(recipe))
    flag = _VIDEOS.get(str(config.model_options.meta_architecture))
    folder, numbers, shards = "synthetic_129", (2400, 200), (24, 4)
    options: tuple[str, ...] = ()
    if flag is not None:
        folder += flag.replace("--", "_").replace("-", "_")
        options, numbers, shards = ("--video-frames", "6", flag), (300, 25), (30, 5)
    for split, number, count in zip(("train", "val"), numbers, shards, strict=True):
        run_command(
            *("data", "synth", "--quiet", "--size", "x".join(map(str, CANVAS))),
            *("--output", str(data / folder), "--split", split, "--num", str(number)),
            *("--shards", str(count), *options),
        )
    return data / folder


def _evaluate(run: Path, records: Path) -> dict[str, float]:
    text = run_command(
        *("evaluate", str(run), "--data", f"{records}/val-*.tfrecord"),
        *("--quiet", "--json"),
    )
    return figures_of(json.loads(text))


def figures_of(report: dict[str, Any]) -> dict[str, float]:
    """Picks the main figures of a report: percent, the relative error of depth too."""
    return {
        figure: round(100 * report[metric][figure], 2)
        for metric, figure in _FIGURES
        if metric in report
    }


def _crop_size(recipe: str) -> tuple[int, ...]:
    config = load_config(experiments.find_recipe(recipe))
    return tuple(config.train_dataset_options.crop_size)


def _add(recipe: str, row: dict[str, Any]) -> None:
    document: dict[str, Any] = {"rows": {}}
    if RESULTS.is_file():
        document = json.loads(RESULTS.read_text())
    document["command"] = "python -m benchmarks.families --data data --output runs"
    document["machine"] = describe_machine()
    document["rows"][recipe] = row
    with atomic_write(RESULTS) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
