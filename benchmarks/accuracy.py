"""What does int8 cost in accuracy?

Evaluates a checkpoint in float, converts it to int8 and evaluates the file on the same
labeled images, at their original size. Writes one JSON.

    python -m benchmarks.accuracy --checkpoint demo --data synthetic --limit 200 \\
        --output benchmarks/results/accuracy_synthetic.json
    python -m benchmarks.accuracy --checkpoint runs/camvid_mobilenet_v3_small \\
        --data camvid/val --calibration-data camvid/train --dataset camvid \\
        --output benchmarks/results/accuracy_camvid.json
"""

import argparse
import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.command import run_command
from deeplab2_edge.files import atomic_write


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="demo")
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--dataset")
    parser.add_argument("--calibration-data", default="synthetic:train")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    data = ["--data", args.data, "--json"]
    data += ["--dataset", args.dataset] if args.dataset else []
    data += ["--limit", str(args.limit)] if args.limit else []
    with tempfile.TemporaryDirectory() as folder:
        model = str(Path(folder) / "model_int8.tflite")
        run_command(
            *("convert", "--checkpoint", args.checkpoint, "--quantize", "int8"),
            *("--calibration-data", args.calibration_data, "--output", model),
        )
        in_float = json.loads(run_command("evaluate", args.checkpoint, *data))
        in_int8 = json.loads(run_command("evaluate", model, *data))
        size = Path(model).stat().st_size
    # Labels hold the path of a temporary file.
    in_float["label"], in_int8["label"] = "float", "int8"
    figures = {
        name: points_of(report)
        for name, report in (("float", in_float), ("int8", in_int8))
    }
    document = {
        "command": f"python -m benchmarks.accuracy {shlex.join(sys.argv[1:])}",
        "num_images": in_float["num_images"],
        "int8_bytes": size,
        "percent": figures,
        "drop": {
            name: round(figures["float"][name] - figures["int8"][name], 2)
            for name in figures["float"]
        },
        "reports": {"float": in_float, "int8": in_int8},
    }
    with atomic_write(args.output) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps({k: document[k] for k in ("percent", "drop")}, indent=1))


def points_of(report: Any) -> dict[str, float]:
    """Picks the main figures of a report of `evaluate`, in percent."""
    quality = report["panoptic_quality"]
    names = ("pq", "sq", "rq", "pq_things", "pq_stuff")
    points = {name: 100 * quality[name] for name in names}
    points["miou"] = 100 * report["mean_iou"]["miou"]
    return {name: round(value, 2) for name, value in points.items()}


if __name__ == "__main__":
    main()
