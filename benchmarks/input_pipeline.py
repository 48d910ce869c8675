"""How many training samples per second does the input pipeline make?

Reads records of the synthetic street world in a temporary folder, 513x1025 images, and
makes 513x513 crops of them as each family of networks needs them: decoding, random
scale, crop and flip, color jitter or copy-paste where published recipes use them, and
all targets. No network takes part. `cpu_ms_per_image` is the work of all threads; it
hardly depends on what else the machine does, as `images_per_second` does. A training
step starves only if it takes less than the time of a batch here.

    python -m benchmarks.input_pipeline [--batches 20] [--output FILE.json]
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deeplab2_edge.config import (
    AugmentationOptions,
    DatasetOptions,
    PanopticCopyPasteOptions,
)
from deeplab2_edge.files import atomic_write
from deeplab2_edge.optional import require
from deeplab2_edge.records import write_records
from deeplab2_edge.runtime.machine import describe_machine
from deeplab2_edge.train.data import training_dataset
from deeplab2_edge.train.data.builders import VideoSource

tf: Any = require("tensorflow", extra="train")

IMAGE_SIZE = (513, 1025)
CROP_SIZE = (513, 513)
BATCH_SIZE = 8
NUM_VIDEOS, NUM_FRAMES = 4, 5
# As published: 0.5 to 2.0 for street scenes.
_AUGMENTATIONS = AugmentationOptions(
    min_scale_factor=0.5, max_scale_factor=2.0, scale_factor_step_size=0.1
)
_POLICY = {
    "autoaugment_policy_name": "simple_classification_policy_magnitude_scale_0.2"
}
_PASTE = {
    "panoptic_copy_paste": PanopticCopyPasteOptions(panoptic_copy_paste_scale=1.0)
}
# Changes of the data-set options, of the augmentation, and what the model needs.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "DeepLabv3": ({}, {}, {"has_instances": False}),
    "Panoptic-DeepLab": ({}, {}, {}),
    "Panoptic-DeepLab, AutoAugment": ({}, _POLICY, {}),
    "MaX-DeepLab, AutoAugment": ({"thing_id_mask_annotations": True}, _POLICY, {}),
    "MaX-DeepLab, copy-paste": ({"thing_id_mask_annotations": True}, _PASTE, {}),
    "Motion-DeepLab": ({"use_two_frames": True}, {}, {}),
    "ViP-DeepLab": ({"use_next_frame": True}, {}, {"has_depth": True}),
}
_WARM_UP_BATCHES = 3
_DEFAULT_OUTPUT = Path(__file__).parent / "results" / "input_pipeline.json"


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--output", type=Path, default=_DEFAULT_OUTPUT)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train-00000-of-00001.tfrecord"
        source = VideoSource(range(NUM_VIDEOS), NUM_FRAMES, IMAGE_SIZE)
        write_records(path, (r for i in range(len(source)) for r in source.encode(i)))
        for name in CASES:
            rows.append({"samples": name, **measure(name, path, source, args.batches)})
            print(json.dumps(rows[-1]), flush=True)
    document = {
        "command": "python -m benchmarks.input_pipeline",
        "image_size": IMAGE_SIZE,
        "crop_size": CROP_SIZE,
        "batch_size": BATCH_SIZE,
        "batches": args.batches,
        "tensorflow": tf.__version__,
        "machine": describe_machine(),
        "rows": rows,
    }
    with atomic_write(args.output) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n")
    print(f"{args.output} written")


def measure(
    name: str, path: Path, source: VideoSource, num_batches: int
) -> dict[str, float]:
    """Times the batches of one of `CASES`."""
    changes, augmentation, needs = CASES[name]
    options = DatasetOptions(
        file_pattern=(str(path),),
        batch_size=BATCH_SIZE,
        crop_size=CROP_SIZE,
        increase_small_instance_weights=True,
        augmentations=_AUGMENTATIONS.replace(**augmentation),
        **changes,
    )
    batches = iter(training_dataset(options, source.info, seed=0, **needs))
    return timed_batches(batches, num_batches, BATCH_SIZE)


def timed_batches(
    batches: Iterator[Any], num_batches: int, batch_size: int
) -> dict[str, float]:
    """Times batches of a pipeline that nobody else takes from."""
    for _ in range(_WARM_UP_BATCHES):
        next(batches)
    started, cpu_started = time.monotonic(), time.process_time()
    for _ in range(num_batches):
        next(batches)
    num_images = num_batches * batch_size
    seconds = time.monotonic() - started
    cpu_seconds = time.process_time() - cpu_started
    return {
        "images_per_second": round(num_images / seconds, 1),
        "cpu_ms_per_image": round(1000 * cpu_seconds / num_images, 1),
    }


if __name__ == "__main__":
    main()
