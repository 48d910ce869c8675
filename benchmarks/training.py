"""How fast does training run, does it wait for its input, what memory does it take?

Trains Panoptic-DeepLab with MobileNetV3-Large and with ResNet-50, as published but for
the crop, 513x513, on rendered street scenes of 513x1025 pixels, stored as JPEG of
quality 95, which the input pipeline decodes, scales by 0.5 to 2, crops and flips. For
each network, in processes of their own:

* the input pipeline alone;
* steps of a training loop with that pipeline beside it, in variants, one after the
  other (A B C A B C ...) so that a drifting machine hits all alike. Ratios are medians
  of the ratios of a round. `input_wait_fraction` is the share of the loop's time in
  which it waited for a batch;
* where the time of a step goes, from a trace of TensorFlow's profiler (on a CPU);
* the peak of resident memory of two steps (`train --dry-run`) at two batch sizes. Their
  difference, divided by that of the batch sizes, is the memory of an image; beside it
  stands what `--dry-run` computes from the graph.

    python -m benchmarks.training [--rounds 3] [--output FILE.json]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.command import run_command
from deeplab2_edge.config import ExperimentOptions, format_config, load_config
from deeplab2_edge.experiments import find_recipe
from deeplab2_edge.files import atomic_write
from deeplab2_edge.runtime.machine import describe_machine

IMAGE_SIZE, CROP_SIZE = (513, 1025), (513, 513)
NUM_IMAGES = 16
# Recipe -> images per step.
BATCH_SIZES = {
    "cityscapes_panoptic_mobilenet_v3_large_os32": 4,
    "cityscapes_panoptic_resnet50_os32": 2,
}
PLAIN = "float32"
# Arguments of `build_model`.
VARIANTS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "recompute": {"recompute": True},
    "bfloat16": {"precision": "mixed_bfloat16"},
}
# Options of the command whose memory is measured.
MEMORY_VARIANTS: dict[str, tuple[str, ...]] = {
    PLAIN: (),
    "recompute": ("--recompute",),
}
MEMORY_BATCH_SIZES = (2, 4)
_PIPELINE_IMAGES = 60
_DEFAULT_OUTPUT = Path(__file__).parent / "results" / "training.json"


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=_DEFAULT_OUTPUT)
    parser.add_argument("--measure", metavar="EXPERIMENT", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(load_config(args.measure), args.rounds)))
        return
    started = time.monotonic()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        pattern = render(Path(folder), IMAGE_SIZE)
        for recipe, batch_size in BATCH_SIZES.items():
            config = experiment(recipe, pattern, CROP_SIZE, batch_size)
            path = Path(folder) / f"{recipe}.textproto"
            path.write_text(format_config(config), encoding="utf-8")
            row = {"recipe": recipe, "batch_size": batch_size}
            row.update(_measure_in_process(path, args.rounds))
            row["memory"] = measure_memory(path)
            rows.append(row)
            print(json.dumps(row), flush=True)
    document = {
        "command": "python -m benchmarks.training",
        "image_size": IMAGE_SIZE,
        "crop_size": CROP_SIZE,
        "rounds": args.rounds,
        "seconds": round(time.monotonic() - started),
        "machine": describe_machine(),
        "rows": rows,
    }
    with atomic_write(args.output) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n")
    print(f"{args.output} written; `python -m benchmarks.tables` makes the table")


def render(folder: Path, size: tuple[int, int]) -> str:
    """Renders records of street scenes and returns the pattern of their files."""
    run_command(
        *("data", "synth", "--quiet", "--output", str(folder), "--split", "train"),
        *("--num", str(NUM_IMAGES), "--shards", "2", "--size", f"{size[0]}x{size[1]}"),
    )
    return f"{folder}/train-*.tfrecord"


def experiment(
    recipe: str, file_pattern: str, crop_size: tuple[int, int], batch_size: int
) -> ExperimentOptions:
    """Gives a published experiment on rendered scenes, with random weights.

    The semantic head has the 11 classes of these instead of 19.
    """
    return load_config(
        find_recipe(recipe),
        overrides={
            "experiment_name": recipe,
            "model_options.initial_checkpoint": "",
            "model_options.panoptic_deeplab.semantic_head.output_channels": 11,
            "train_dataset_options.dataset": "synthetic_street",
            "train_dataset_options.file_pattern": [file_pattern],
            "train_dataset_options.crop_size": list(crop_size),
            "train_dataset_options.batch_size": batch_size,
        },
    )


def measure_memory(path: Path) -> list[dict[str, Any]]:
    """Measures the memory of an image in the steps of an experiment's file."""
    cases = [
        (options, batch_size)
        for options in MEMORY_VARIANTS.values()
        for batch_size in MEMORY_BATCH_SIZES
    ]
    # Most of the time is tracing, on one core; two at once do not change the memory.
    with ThreadPoolExecutor(max_workers=2) as pool:
        tried = iter(list(pool.map(lambda case: _try_out(path, *case), cases)))
    return [
        {"variant": name, **_memory_of_image(next(tried), next(tried))}
        for name in MEMORY_VARIANTS
    ]


def _try_out(path: Path, options: tuple[str, ...], batch_size: int) -> dict[str, Any]:
    text = run_command(
        *("train", str(path), "--dry-run", "--json", *options),
        *("--output", str(path.parent / "runs")),
        *("--set", f"train_dataset_options.batch_size={batch_size}"),
    )
    tried: dict[str, Any] = json.loads(text)
    return tried


def _memory_of_image(few: dict[str, Any], many: dict[str, Any]) -> dict[str, Any]:
    peaks = [few["peak_memory_bytes"], many["peak_memory_bytes"]]
    small, large = MEMORY_BATCH_SIZES
    return {
        "batch_sizes": MEMORY_BATCH_SIZES,
        "peak_bytes": peaks,
        "bytes_per_image": round((peaks[1] - peaks[0]) / (large - small)),
        "computed_bytes_per_image": many["memory_bytes_per_image"],
    }


# In a process of its own ----------------------------------------------------------


def _measure_in_process(path: Path, rounds: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.training"]
    command += ["--measure", str(path), "--rounds", str(rounds)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(printed.stdout)
    return result


def measure(config: ExperimentOptions, rounds: int) -> dict[str, Any]:
    """Measures pipeline and steps of an experiment."""
    import tensorflow as tf

    from benchmarks.input_pipeline import timed_batches
    from benchmarks.step_profile import profile_step
    from deeplab2_edge.datasets.registry import get_dataset
    from deeplab2_edge.train.data import training_dataset

    options = config.train_dataset_options
    info = get_dataset(options.dataset)
    batches = iter(training_dataset(options, info, seed=0))
    num_batches = -(-_PIPELINE_IMAGES // options.batch_size)
    pipeline = timed_batches(batches, num_batches, options.batch_size)
    steps, model_name = {}, ""
    for name, arguments in VARIANTS.items():
        model_name, steps[name] = _make_step(config, info, arguments)
        # Also traces the step.
        steps[name](next(batches))
    times: dict[str, list[_Time]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(_timed(step, batches))
    batch = next(batches)
    is_on_gpu = bool(tf.config.list_physical_devices("GPU"))
    profile = {} if is_on_gpu else profile_step(lambda: steps[PLAIN](batch), model_name)
    return {
        "tensorflow": tf.__version__,
        "device": "GPU" if is_on_gpu else "CPU",
        "input_pipeline": pipeline,
        "steps": [
            {"variant": name, **_summarize(mine, times[PLAIN], options.batch_size)}
            for name, mine in times.items()
        ],
        "profile": profile,
    }


def _make_step(
    config: ExperimentOptions, info: Any, arguments: dict[str, Any]
) -> tuple[str, Callable[[Any], None]]:
    """Builds a step, which waits until the device is done, and names its network."""
    import tensorflow as tf

    from deeplab2_edge.checkpoints import variable_paths
    from deeplab2_edge.models import build_model
    from deeplab2_edge.train.losses import TOTAL_LOSS, build_loss
    from deeplab2_edge.train.optimizers import build_optimizer_groups
    from deeplab2_edge.train.step import make_train_step, seed_of

    trainer = config.trainer_options
    model = build_model(
        config, input_size=config.train_dataset_options.crop_size, **arguments
    )
    global_step = tf.Variable(0, dtype=tf.int64, trainable=False)
    step = make_train_step(
        model,
        build_loss(
            trainer.loss_options,
            info,
            model_options=config.model_options,
            seed_source=seed_of(global_step),
        ),
        build_optimizer_groups(trainer.solver_options, variable_paths(model)),
        global_step,
        solver=trainer.solver_options,
    )

    def run(batch: Any) -> None:
        float(step(batch)[TOTAL_LOSS])

    return model.name, run


class _Time(NamedTuple):
    """Holds seconds: waiting for the batch, of the step, and its processor time."""

    wait: float
    step: float
    cpu: float


def _timed(step: Callable[[Any], None], batches: Iterator[Any]) -> _Time:
    started = time.perf_counter()
    batch = next(batches)
    ready, cpu = time.perf_counter(), time.process_time()
    step(batch)
    return _Time(
        ready - started, time.perf_counter() - ready, time.process_time() - cpu
    )


def _summarize(mine: list[_Time], plain: list[_Time], batch_size: int) -> Any:
    seconds = statistics.median(time.wait + time.step for time in mine)
    waited, stepped = sum(time.wait for time in mine), sum(time.step for time in mine)
    ratios = [a.step / b.step for a, b in zip(mine, plain, strict=True)]
    return {
        "steps_per_second": round(1 / seconds, 4),
        "images_per_second": round(batch_size / seconds, 3),
        "cpu_seconds": round(statistics.median(time.cpu for time in mine), 2),
        "input_wait_fraction": round(waited / (waited + stepped), 4),
        "ratio": round(statistics.median(ratios), 3),
    }


if __name__ == "__main__":
    main()
