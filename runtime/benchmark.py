"""Measures a model on this machine, each stage of a prediction apart."""

import contextlib
import functools
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.images import read_image, write_png
from deeplab2_edge.model_file import ModelFile, read_model_file
from deeplab2_edge.progress import progress
from deeplab2_edge.runtime.draw import put_text, text_size
from deeplab2_edge.runtime.engine import FileEngine, default_threads, open_engine
from deeplab2_edge.runtime.engine_report import EngineReport
from deeplab2_edge.runtime.machine import (
    describe_machine,
    peak_memory_bytes,
    refuse_emulation,
    temperature_c,
)
from deeplab2_edge.runtime.segmenter import PanopticSegmenter
from deeplab2_edge.runtime.sources import folder_images
from deeplab2_edge.runtime.timing import STAGES, StageTimer
from deeplab2_edge.wording import counted

SCHEMA_VERSION = 1
_PERCENTILES = (50, 90, 99)
# RGB of each stage in the plot, readable for color-blind people (Okabe and Ito).
_STAGE_COLORS = {
    "decode": (86, 180, 233),
    "preprocess": (0, 158, 115),
    "network": (213, 94, 0),
    "merge": (230, 159, 0),
    "draw": (204, 121, 167),
}
_INK = (30, 30, 30)


@dataclass(frozen=True)
class Timing:
    """Sums up many measurements of one thing, in milliseconds."""

    p50_ms: float
    p90_ms: float
    p99_ms: float

    def to_dict(self) -> dict[str, float]:
        """Gives the fields, ready for JSON."""
        return {
            "p50_ms": round(self.p50_ms, 3),
            "p90_ms": round(self.p90_ms, 3),
            "p99_ms": round(self.p99_ms, 3),
        }


@dataclass(frozen=True)
class BenchmarkRun:
    """Holds the figures of one number of threads.

    Attributes:
        threads: Of the interpreter; other stages use what NumPy and OpenCV use.
        load_ms: From the path to an engine that is ready.
        stages: By name, in the order of `timing.STAGES`.
        total: One image from file to drawing.
        engine: What computed the network.
    """

    threads: int
    load_ms: float
    stages: dict[str, Timing]
    total: Timing
    engine: EngineReport

    def to_dict(self) -> dict[str, Any]:
        """Gives the fields, ready for JSON."""
        return {
            "threads": self.threads,
            "load_ms": round(self.load_ms, 3),
            "stages": {name: t.to_dict() for name, t in self.stages.items()},
            "total": self.total.to_dict(),
            "engine": self.engine.to_dict(),
        }


@dataclass(frozen=True)
class BenchmarkReport:
    """Holds everything a benchmark found.

    Attributes:
        model: Name, path, size and kind of the model.
        machine: What `describe_machine` says, with `delegate` and the temperature
            after the last run as `temperature_after_c`.
        input: Where the images came from, how many, and their sizes.
        repeats: Measured images per run.
        runs: One per number of threads, as asked.
        peak_memory_bytes: Of the whole process, None where unknown.
    """

    model: dict[str, Any]
    machine: dict[str, Any]
    input: dict[str, Any]
    repeats: int
    runs: tuple[BenchmarkRun, ...]
    peak_memory_bytes: int | None

    @property
    def fastest(self) -> BenchmarkRun:
        """The run with the lowest median of the total."""
        return min(self.runs, key=lambda run: run.total.p50_ms)

    def to_dict(self) -> dict[str, Any]:
        """Gives the report as documented for `benchmark --json`.

        `threads`, `load_ms`, `stages.{decode,preprocess,network,merge,draw}` and
        `total` with `p50_ms`, `p90_ms`, `p99_ms`, and `engine`, are those of the
        fastest run; all runs are in `runs`. Beside them: `schema_version`, `model`,
        `machine`, `input`, `repeats`, `peak_memory_bytes`.
        """
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "machine": self.machine,
            "input": self.input,
            "repeats": self.repeats,
            **self.fastest.to_dict(),
            "peak_memory_bytes": self.peak_memory_bytes,
            "runs": [run.to_dict() for run in self.runs],
        }


def run_benchmark(
    model_path: str | os.PathLike[str],
    *,
    threads: Sequence[int] | None = None,
    inputs: Sequence[str] = (),
    repeats: int = 50,
    warmup: int = 5,
    delegate: str | None = None,
    delegate_options: Mapping[str, str] | None = None,
    runtime: str | None = None,
    quiet: bool = False,
) -> BenchmarkReport:
    """Measures load, decode, preprocess, network, merge and draw.

    Args:
        model_path: A model file.
        threads: Numbers of threads to try; default: what a segmenter would use.
        inputs: Images and folders; default: the model's own golden image, or a
            drawn street scene of the size of the canvas.
        repeats: Images to measure for each number of threads.
        warmup: Images before that, not counted.
        delegate: See `open_engine`, as for the two that follow.
        delegate_options: For its library.
        runtime: Of the file.
        quiet: Show no progress.

    Raises:
        ModelFileError: If the model cannot be used.
        DataError: If an input cannot be used.
        UsageError: If a number makes no sense, or the processor is emulated.
    """
    refuse_emulation()
    if repeats < 1 or warmup < 0:
        raise UsageError(
            f"repeats is {repeats} and warmup {warmup}; they must be at least 1 and 0"
        )
    model = read_model_file(model_path)
    machine = describe_machine()
    open_with = functools.partial(
        open_engine,
        model_path,
        delegate=delegate,
        delegate_options=delegate_options,
        runtime=runtime,
    )
    with contextlib.ExitStack() as stack:
        if inputs:
            paths = _image_paths(inputs)
            source = ", ".join(inputs)
        else:
            paths, source = stack.enter_context(_own_image(model))
        sizes = sorted({read_image(path).shape[:2] for path in paths})
        runs = tuple(
            _measure(
                open_with,
                paths,
                threads=count,
                repeats=repeats,
                warmup=warmup,
                quiet=quiet,
            )
            for count in (threads or [default_threads()])
        )
    metadata = model.metadata
    return BenchmarkReport(
        model={
            "name": metadata.name,
            "path": str(model_path),
            "bytes": len(model.graph),
            "backbone": metadata.backbone,
            "canvas": list(metadata.canvas),
            "quantization": metadata.quantization,
            "graph_sha256": metadata.graph_sha256,
        },
        machine={
            **machine,
            "delegate": runs[0].engine.delegate,
            "temperature_after_c": temperature_c(),
        },
        input={
            "source": source,
            "count": len(paths),
            "sizes": [list(size) for size in sizes],
        },
        repeats=repeats,
        runs=runs,
        peak_memory_bytes=peak_memory_bytes(),
    )


def draw_plot(report: BenchmarkReport) -> NDArray[np.uint8]:
    """Draws the stages of each run as a stacked bar of medians, and the total.

    A median of sums is not the sum of medians, so the bar of the stages may be a
    little longer or shorter than the total.

    Returns:
        uint8 `[H, W, 3]` RGB.
    """
    width, left, row, top = 960, 130, 60, 110
    scale = (width - left - 130) / max(_sum_p50(run) for run in report.runs)
    image = np.full((top + row * len(report.runs) + 70, width, 3), 255, np.uint8)
    machine = report.machine
    put_text(
        image,
        f"{report.model['name']}: median ms per image",
        20,
        36,
        scale=0.8,
        color=_INK,
    )
    place = machine["board"] or machine["cpu"] or machine["architecture"]
    canvas = report.model["canvas"]
    put_text(
        image,
        f"{place}, canvas {canvas[0]}x{canvas[1]}, {report.model['quantization']}",
        20,
        66,
        scale=0.5,
        color=_INK,
    )
    for place, run in enumerate(report.runs):
        y = top + place * row
        threads = counted(run.threads, "thread")
        put_text(image, threads, 20, y + 27, scale=0.5, color=_INK)
        start = float(left)
        for name, timing in run.stages.items():
            end = start + timing.p50_ms * scale
            image[y : y + row - 18, round(start) : round(end)] = _STAGE_COLORS[name]
            text = f"{timing.p50_ms:.1f}"
            if text_size(text, 0.45)[0] + 6 < end - start:
                put_text(image, text, round(start) + 4, y + 26, scale=0.45, color=_INK)
            start = end
        put_text(
            image,
            f"{run.total.p50_ms:.2f} ms",
            round(start) + 8,
            y + 27,
            scale=0.5,
            color=_INK,
        )
    y, x = image.shape[0] - 36, left
    for name, color in _STAGE_COLORS.items():
        image[y : y + 14, x : x + 14] = color
        put_text(image, name, x + 20, y + 13, scale=0.5, color=_INK)
        x += 44 + text_size(name, 0.5)[0]
    return image


def _measure(
    open_with: Callable[..., FileEngine],
    paths: Sequence[Path],
    *,
    threads: int,
    repeats: int,
    warmup: int,
    quiet: bool,
) -> BenchmarkRun:
    start = time.perf_counter_ns()
    engine = open_with(num_threads=threads)
    load_ms = (time.perf_counter_ns() - start) / 1e6
    segmenter = PanopticSegmenter(engine)
    samples: list[list[float]] = []
    steps = progress(
        range(warmup + repeats),
        total=warmup + repeats,
        label=f"measuring with {counted(threads, 'thread')}",
        quiet=quiet,
    )
    for step in steps:
        result = segmenter(paths[step % len(paths)])
        timer = StageTimer()
        with timer.stage("draw"):
            result.overlay()
        if step >= warmup:
            times = {**result.timings_ms, **timer.milliseconds}
            samples.append([times[name] for name in STAGES])
    table = np.array(samples)
    return BenchmarkRun(
        threads=threads,
        load_ms=load_ms,
        stages={name: _timing(table[:, n]) for n, name in enumerate(STAGES)},
        total=_timing(table.sum(axis=1)),
        engine=engine.report,
    )


def _timing(values: NDArray[np.float64]) -> Timing:
    p50, p90, p99 = np.percentile(values, _PERCENTILES)
    return Timing(float(p50), float(p90), float(p99))


def _sum_p50(run: BenchmarkRun) -> float:
    return sum(timing.p50_ms for timing in run.stages.values())


def _image_paths(inputs: Sequence[str]) -> list[Path]:
    paths: list[Path] = []
    for text in inputs:
        path = Path(text)
        if not path.exists():
            raise DataError(f"{text}: no such image or folder")
        paths += folder_images(path) if path.is_dir() else [path]
    return paths


@contextlib.contextmanager
def _own_image(model: ModelFile) -> Iterator[tuple[list[Path], str]]:
    """Puts an image that suits the model into a temporary folder."""
    if model.golden is not None:
        image, source = model.golden.inputs[keys.IMAGE], "golden image of the model"
    else:
        from deeplab2_edge.synth import render_scene

        scene = render_scene(1_000_000, size=model.metadata.canvas)
        image, source = scene.image, "synthetic street scene"
    with tempfile.TemporaryDirectory(prefix="deeplab2-edge-") as folder:
        path = Path(folder) / "image.png"
        write_png(path, image)
        yield [path], source
