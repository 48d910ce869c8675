"""What do several views of an image bring?

Evaluates a checkpoint as it is, with each image flipped too, and with three sizes of
both. Writes one JSON.

    python -m benchmarks.views --checkpoint runs/camvid_mobilenet_v3_small \\
        --data 'data/camvid/val-*.tfrecord' \\
        --output benchmarks/results/views_camvid.json
"""

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.command import run_command
from benchmarks.conversion import points_of
from deeplab2_edge.files import atomic_write

# Fields of `evaluator_options` by what they are called in the table.
VARIANTS: dict[str, dict[str, str]] = {
    "one": {},
    "flipped too": {"add_flipped_images": "true"},
    "flipped too, scales 0.75, 1, 1.25": {
        "add_flipped_images": "true",
        "eval_scales": "[0.75, 1.0, 1.25]",
    },
}


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    rows: dict[str, dict[str, float]] = {}
    num_images = 0
    for name, fields in VARIANTS.items():
        started = time.monotonic()
        report = _evaluate(args.checkpoint, args.data, fields)
        seconds = time.monotonic() - started
        num_images = report["num_images"]
        rows[name] = points_of(report) | {"seconds": round(seconds, 1)}
    document = {
        "command": f"python -m benchmarks.views {shlex.join(sys.argv[1:])}",
        "num_images": num_images,
        "percent": rows,
    }
    with atomic_write(args.output) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


def _evaluate(checkpoint: str, data: str, fields: dict[str, str]) -> dict[str, Any]:
    settings = [f"--set=evaluator_options.{name}={v}" for name, v in fields.items()]
    arguments = ("--data", data, "--quiet", "--json", *settings)
    return dict(json.loads(run_command("evaluate", checkpoint, *arguments)))


if __name__ == "__main__":
    main()
