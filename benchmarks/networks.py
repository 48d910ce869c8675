"""Files of networks, made once for all benchmarks of time.

With the weights a network begins with, an int8 file is slower than with trained ones:
nothing keeps its activations small, and XNNPACK leaves out sums whose sides differ in
scale a thousand times. So speed is measured of trained checkpoints.
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.command import run_command

MODES = ("none", "int8")


def named_checkpoint(text: str) -> tuple[str, str]:
    """Splits `[NAME=]FOLDER` into what tables call a checkpoint and where it is."""
    name, _, checkpoint = text.rpartition("=")
    return name or checkpoint, checkpoint


def make_files(
    folder: Path,
    checkpoint: str,
    canvas: tuple[int, int],
    formats: Sequence[str] = ("tflite",),
) -> dict[tuple[str, str], Path]:
    """Converts what is not in the folder yet.

    Args:
        folder: Of the files.
        checkpoint: `demo`, or the folder of a checkpoint.
        canvas: (height, width).
        formats: Of `convert --format`.

    Returns:
        Files by format and mode of quantization.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = f"{canvas[0]}x{canvas[1]}"
    stem = f"{checkpoint.strip('/').replace('/', '_')}_{size}"
    files = {
        (kind, mode): folder / f"{stem}_{mode}.{kind}"
        for kind in formats
        for mode in MODES
    }
    for (kind, mode), path in files.items():
        if not path.exists():
            run_command(
                *("convert", "--checkpoint", checkpoint, "--input-size", size),
                *("--format", kind, "--quantize", mode, "--quiet", "--json"),
                *("--calibration-data", "synthetic:train"),
                *("--calibration-images", "24", "--verify-images", "2"),
                *("--output", str(path)),
            )
    return files
