"""Files of networks of published size, made once for all benchmarks of time.

They have the weights they begin with: what training makes of these costs nothing.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.command import run_command
from deeplab2_edge.checkpoints import save_weights
from deeplab2_edge.config import format_config, load_config
from deeplab2_edge.experiments import find_recipe
from deeplab2_edge.models import build_model

PUBLISHED = {
    "small os16": "cityscapes_panoptic_mobilenet_v3_small_os16_res513x1025",
    "large os16": "cityscapes_panoptic_mobilenet_v3_large_os16_res513x1025",
    "large os32": "cityscapes_panoptic_mobilenet_v3_large_os32",
}
MODES = ("none", "int8")


@dataclass(frozen=True)
class NetworkFile:
    """Is one file of one network.

    Attributes:
        network: What it is called in tables.
        recipe: Its experiment.
        canvas: (height, width).
        mode: How it is quantized.
        path: Of the file.
    """

    network: str
    recipe: str
    canvas: tuple[int, int]
    mode: str
    path: Path

    def to_dict(self) -> dict[str, Any]:
        """Gives what identifies it, ready for JSON."""
        return {
            "network": self.network,
            "recipe": self.recipe,
            "canvas": list(self.canvas),
            "mode": self.mode,
        }


def make_files(
    folder: Path,
    networks: dict[str, str],
    canvases: Sequence[tuple[int, int]],
    modes: Sequence[str] = MODES,
) -> list[NetworkFile]:
    """Converts networks that are not in the folder yet, and lists all.

    Args:
        folder: Of the files.
        networks: Recipes by what they are called in tables.
        canvases: (height, width) of each.
        modes: Of `convert --quantize`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [
        NetworkFile(
            name,
            recipe,
            canvas,
            mode,
            folder / f"{recipe}_{canvas[0]}x{canvas[1]}_{mode}.tflite",
        )
        for name, recipe in networks.items()
        for canvas in canvases
        for mode in modes
    ]
    for recipe in networks.values():
        missing = [f for f in files if f.recipe == recipe and not f.path.exists()]
        if missing:
            _convert(recipe, missing)
    return files


def begin(recipe: str, folder: Path) -> Path:
    """Writes a checkpoint of the weights a network begins with, in a new folder."""
    config = load_config(find_recipe(recipe))
    folder.mkdir()
    save_weights(build_model(config, input_size=(65, 129)), folder / "ckpt")
    (folder / "config.textproto").write_text(format_config(config))
    return folder


def _convert(recipe: str, files: Sequence[NetworkFile]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = begin(recipe, Path(folder) / "checkpoint")
        for file in files:
            size = f"{file.canvas[0]}x{file.canvas[1]}"
            run_command(
                *("convert", "--checkpoint", str(checkpoint), "--input-size", size),
                *("--quantize", file.mode, "--quiet", "--json"),
                *("--calibration-data", "synthetic:train"),
                *("--calibration-images", "4", "--verify-images", "1"),
                *("--output", str(file.path)),
            )
