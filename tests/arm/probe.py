"""Runs model files on images and keeps everything that comes out.

The same program runs on this machine and on the emulated boards: `probe.py OUTPUT
MODEL... IMAGE...` writes an `.npz` with arrays by `MODEL/IMAGE/THREADS/NAME`.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.images import read_image
from deeplab2_edge.runtime import PanopticSegmenter

THREADS = (1, 2)


def probe(models: list[Path], images: list[Path]) -> dict[str, NDArray[Any]]:
    """Gives heads as they leave the network, and maps at the size of the image."""
    found: dict[str, NDArray[Any]] = {}
    for model in models:
        for threads in THREADS:
            segmenter = PanopticSegmenter(model, num_threads=threads)
            for path in images:
                seen = segmenter.look(read_image(path))
                result = segmenter.finish(seen)
                place = f"{model.stem}/{path.stem}/{threads}"
                for name, head in seen.heads.items():
                    found[f"{place}/{name}"] = head.values
                found[f"{place}/panoptic"] = result.panoptic
                found[f"{place}/semantic"] = result.semantic
                found[f"{place}/scores"] = np.array(
                    [segment.score or 0 for segment in result.segments], np.float32
                )
    return found


if __name__ == "__main__":
    files = [Path(text) for text in sys.argv[2:]]
    arrays = probe(
        [file for file in files if file.suffix == ".tflite"],
        [file for file in files if file.suffix != ".tflite"],
    )
    np.savez(sys.argv[1], **arrays)
