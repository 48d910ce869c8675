"""How long does a conversion take, and how much memory?

Converts networks of published size with the weights they begin with; what training
makes of these costs nothing here. Each conversion is a process of its own, from the
checkpoint to the verified file. Writes one JSON.

    python -m benchmarks.conversion_cost [RECIPE:HxW ...]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.command import run_measured
from deeplab2_edge.checkpoints import save_weights
from deeplab2_edge.config import format_config, load_config
from deeplab2_edge.experiments import find_recipe
from deeplab2_edge.files import atomic_write
from deeplab2_edge.models import build_model
from deeplab2_edge.runtime.machine import describe_machine

RESULTS = Path(__file__).parent / "results" / "conversion_cost.json"
NETWORKS = ("cityscapes_panoptic_mobilenet_v3_large_os32:513x1025",)
FILES = (("tflite", "none"), ("tflite", "int8"), ("onnx", "none"), ("onnx", "int8"))
_IMAGES = 50


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", metavar="RECIPE:HxW", default=NETWORKS)
    args = parser.parse_args()
    rows = [row for network in args.networks for row in _measure(network)]
    document = {
        "command": "python -m benchmarks.conversion_cost",
        "machine": describe_machine(),
        "calibration_images": _IMAGES,
        "rows": rows,
    }
    with atomic_write(RESULTS) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n")


def _measure(network: str) -> list[dict[str, Any]]:
    recipe, size = network.split(":")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = _begin(recipe, Path(folder) / "checkpoint")
        for file_format, mode in FILES:
            path = Path(folder) / f"model.{file_format}"
            started = time.monotonic()
            _, peak = run_measured(
                *("convert", "--checkpoint", str(checkpoint), "--input-size", size),
                *("--format", file_format, "--quantize", mode, "--quiet", "--json"),
                *("--calibration-data", "synthetic:train"),
                *("--calibration-images", str(_IMAGES), "--verify-images", "2"),
                *("--output", str(path)),
            )
            row = {
                "recipe": recipe,
                "canvas": size,
                "file": f"{file_format} {mode}",
                "seconds": round(time.monotonic() - started),
                "peak_memory_bytes": peak,
                "file_bytes": path.stat().st_size,
            }
            print(json.dumps(row), flush=True)
            rows.append(row)
    return rows


def _begin(recipe: str, folder: Path) -> Path:
    """Writes a checkpoint of the weights a network begins with."""
    config = load_config(find_recipe(recipe))
    folder.mkdir()
    save_weights(build_model(config, input_size=(65, 129)), folder / "ckpt")
    (folder / "config.textproto").write_text(format_config(config))
    return folder


if __name__ == "__main__":
    main()
