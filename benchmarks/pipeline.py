"""What does working on several frames at once bring, and does memory stay flat?

Segments a video of rendered streets from its file to its overlay video, as
`deeplab2-edge run` does, one frame after the other and overlapped, in turn (A B A B
...) so that a drifting machine hits both alike: with one and two threads of the
network, on all cores and on one. Then reads frames on and on, overlapped, and looks at
the memory of the process. Each in a process of its own; Linux only. Writes one JSON;
ratios are medians of the ratios of a round.

    python -m benchmarks.pipeline [--model FILE] [--rounds 5] [--frames 100]
"""

import argparse
import itertools
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.command import run_command
from deeplab2_edge import PanopticSegmenter
from deeplab2_edge.files import atomic_write
from deeplab2_edge.runtime.machine import describe_machine, refuse_emulation
from deeplab2_edge.runtime.pipeline import FramePipeline
from deeplab2_edge.runtime.sources import Frame, Source, open_sources
from deeplab2_edge.runtime.video import open_video
from deeplab2_edge.synth import render_video

SIZE = (720, 1280)
CANVAS = "513x1025"
THREADS = (1, 2)
_NUM_SCENES = 20  # rendered once and shown again and again
_MEMORY_SAMPLES = 10
_OUTPUT = Path(__file__).parent / "results" / "pipeline.json"


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="default: the demo, int8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--memory-frames", type=int, default=10_000)
    parser.add_argument("--output", type=Path, default=_OUTPUT)
    args = parser.parse_args()
    refuse_emulation()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = args.model or _convert(folder)
        path = _draw(folder / "drive.mp4", args.frames)
        rows = []
        for cores, threads in itertools.product(_core_counts(), THREADS):
            words = (model, path, folder, cores, threads, args.rounds)
            row = _in_a_process(_compare, *words)
            rows.append(row)
            print(json.dumps(row), flush=True)
        memory = _in_a_process(_watch_memory, model, path, args.memory_frames)
        print(json.dumps(memory), flush=True)
    document = {
        "command": "python -m benchmarks.pipeline",
        "machine": describe_machine(),
        "model": PanopticSegmenter(args.model).name if args.model else "demo, int8",
        "video": f"{SIZE[0]}x{SIZE[1]}, MPEG-4",
        "frames": args.frames,
        "rounds": args.rounds,
        "rows": rows,
        "memory": memory,
    }
    with atomic_write(args.output) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n")


def _convert(folder: Path) -> Path:
    path = folder / "int8.tflite"
    words = ("--quantize", "int8", "--input-size", CANVAS, "--output", str(path))
    run_command("convert", *words)
    return path


def _draw(path: Path, count: int) -> Path:
    scenes = list(render_video(0, num_frames=_NUM_SCENES, size=SIZE))
    # There and back again: the last scene is followed by the one before.
    order = itertools.cycle([*scenes, *scenes[-2:0:-1]])
    with open_video(path, 10.0) as video:
        for scene in itertools.islice(order, count):
            video.write(scene.image)
    return path


def _core_counts() -> list[int]:
    count = len(os.sched_getaffinity(0))
    return [count, 1] if count > 1 else [1]


def _in_a_process(function: Callable[..., Any], *arguments: Any) -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def _compare(
    model: Path, path: Path, folder: Path, cores: int, threads: int, rounds: int
) -> dict[str, Any]:
    # Before the first thread of any library, which would keep its cores.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    (source,) = open_sources([str(path)])
    segmenter = PanopticSegmenter(model, num_threads=threads)
    speeds: dict[bool, list[float]] = {False: [], True: []}
    cpu_ms: dict[bool, list[float]] = {False: [], True: []}
    _segment(segmenter, source, folder, overlap=True)  # warms up
    for _ in range(rounds):
        for overlap in speeds:
            speed, cpu = _segment(segmenter, source, folder, overlap=overlap)
            speeds[overlap].append(speed)
            cpu_ms[overlap].append(cpu)
    pairs = zip(speeds[True], speeds[False], strict=True)
    return {
        "cores": cores,
        "threads": threads,
        "sequential_fps": round(statistics.median(speeds[False]), 2),
        "overlapped_fps": round(statistics.median(speeds[True]), 2),
        "speedup": round(statistics.median(mine / base for mine, base in pairs), 3),
        "sequential_cpu_ms": round(statistics.median(cpu_ms[False]), 2),
        "overlapped_cpu_ms": round(statistics.median(cpu_ms[True]), 2),
    }


def _segment(
    segmenter: PanopticSegmenter, source: Source, folder: Path, *, overlap: bool
) -> tuple[float, float]:
    """Gives frames per second, and milliseconds of the processor per frame."""
    start, cpu = time.perf_counter(), time.process_time()
    count = 0
    with (
        open_video(folder / "overlay.mp4", source.fps) as video,
        FramePipeline(source.frames(), segmenter, overlap=overlap) as results,
    ):
        for _, result in results:
            video.write(result.overlay())
            count += 1
    seconds = time.perf_counter() - start
    return count / seconds, (time.process_time() - cpu) / count * 1000


def _watch_memory(model: Path, path: Path, count: int) -> dict[str, Any]:
    (source,) = open_sources([str(path)])
    segmenter = PanopticSegmenter(model)
    every = max(count // _MEMORY_SAMPLES, 1)
    sizes = []
    with FramePipeline(_on_and_on(source, count), segmenter) as results:
        for done, (_, result) in enumerate(results, start=1):
            result.overlay()
            if done % every == 0:
                sizes.append(_resident_bytes())
    return {
        "frames": count,
        "every": every,
        "resident_bytes": sizes,
        "growth_bytes": sizes[-1] - sizes[0],
    }


def _on_and_on(source: Source, count: int) -> Iterator[Frame]:
    again = itertools.chain.from_iterable(source.frames() for _ in itertools.count())
    return itertools.islice(again, count)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
