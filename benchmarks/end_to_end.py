"""From a JPEG to the overlay: how long does a picture take, and with what?

Every contender is a process of its own, with one picture in and one overlay out:

* `runtime`: `PanopticSegmenter` on a TFLite file, float and int8;
* `onnx`: the same on ONNX files;
* `python`: the same TFLite files, merged by NumPy instead of the native core;
* `tflite + tensorflow`: the same TFLite files, merged as `merging_tensorflow` does;
* `saved-model`: the float network and that merging in one SavedModel, on the CPU.

They take turns (A B C D A B C D ...), so that a drifting machine hits all alike; ratios
are medians of the ratios of a round. Pictures are mosaics of street scenes.
`peak_memory_bytes` is that of the process; `stages_ms` are medians of what the runtime
says of its own stages, of as many pictures in a row as there were rounds;
`merge_share` is its merging over its network.

    python -m benchmarks.end_to_end [--checkpoint large=runs/large]
        [--canvases 257x513 ...] [--models DIR] [--rounds 15] [--output FILE.json]
"""

import argparse
import collections
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.networks import make_files, named_checkpoint
from deeplab2_edge import keys
from deeplab2_edge.files import atomic_write
from deeplab2_edge.images import read_image
from deeplab2_edge.runtime.machine import describe_machine, peak_memory_bytes
from deeplab2_edge.runtime.results import result_from_maps
from deeplab2_edge.synth import render_scene

_RESULTS = Path(__file__).parent / "results" / "end_to_end.json"
_TILE = (257, 513)
_FORMATS = ("tflite", "onnx")
_THREADS = (1, 2)
_FIRST_SCENE = 1_000_300
_REFERENCE = "saved-model none"


@dataclass(frozen=True)
class Contender:
    """Is one way to make an overlay.

    Attributes:
        way: What makes it.
        mode: How the network is quantized.
        file: Of the network; of a SavedModel the checkpoint.
        threads: Of everything.
        canvas: (height, width).
        network: What it is called in tables.
    """

    way: str
    mode: str
    file: str
    threads: int
    canvas: tuple[int, int]
    network: str

    @property
    def name(self) -> str:
        """Of the row."""
        return f"{self.way} {self.mode}"


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoint", action="append", metavar="[NAME=]FOLDER", help="default: demo"
    )
    parser.add_argument("--canvases", nargs="+", default=["257x513", "513x1025"])
    parser.add_argument("--models", type=Path, default=Path("build/end_to_end"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, default=_RESULTS)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for named in args.checkpoint or ["demo"]:
        network, checkpoint = named_checkpoint(named)
        for text in args.canvases:
            height, width = map(int, text.split("x"))
            files = make_files(args.models, checkpoint, (height, width), _FORMATS)
            for threads in _THREADS:
                contenders = _contenders(
                    files, checkpoint, (height, width), threads, network
                )
                rows += _measure(contenders, args.rounds)
    document = {
        "command": "python -m benchmarks.end_to_end",
        "machine": describe_machine(),
        "rounds": args.rounds,
        "rows": rows,
    }
    with atomic_write(args.output) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n")


def _contenders(
    files: dict[tuple[str, str], Path],
    checkpoint: str,
    canvas: tuple[int, int],
    threads: int,
    network: str,
) -> list[Contender]:
    ways = (
        ("runtime", "tflite"),
        ("onnx", "onnx"),
        ("python", "tflite"),
        ("tflite + tensorflow", "tflite"),
    )
    return [
        *(
            Contender(way, mode, str(files[kind, mode]), threads, canvas, network)
            for way, kind in ways
            for mode in ("none", "int8")
        ),
        Contender("saved-model", "none", checkpoint, threads, canvas, network),
    ]


def _measure(contenders: Sequence[Contender], rounds: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "street.jpg"
        cv2.imwrite(str(picture), _mosaic(contenders[0].canvas)[..., ::-1])
        workers = {c.name: _Worker(c, picture, rounds) for c in contenders}
        milliseconds: dict[str, list[float]] = {name: [] for name in workers}
        for _ in range(rounds):
            for name, worker in workers.items():
                milliseconds[name].append(worker.run())
        facts = {name: worker.close() for name, worker in workers.items()}
    rows = []
    for contender in contenders:
        times = milliseconds[contender.name]
        pairs = zip(milliseconds[_REFERENCE], times, strict=True)
        row = {
            "network": contender.network,
            "canvas": list(contender.canvas),
            "threads": contender.threads,
            "way": contender.way,
            "mode": contender.mode,
            "ms": round(statistics.median(times), 2),
            "times_as_fast": round(statistics.median(a / b for a, b in pairs), 2),
            **facts[contender.name],
        }
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def _mosaic(canvas: tuple[int, int]) -> NDArray[np.uint8]:
    """Puts scenes beside each other until the canvas is full."""
    tall, wide = (-(-side // tile) for side, tile in zip(canvas, _TILE, strict=True))
    rows = [
        np.concatenate(
            [
                render_scene(_FIRST_SCENE + y * wide + x, size=_TILE).image
                for x in range(wide)
            ],
            axis=1,
        )
        for y in range(tall)
    ]
    return np.concatenate(rows)[: canvas[0], : canvas[1]]


class _Worker:
    """Is a process that makes overlays when it is asked to."""

    def __init__(self, contender: Contender, picture: Path, rounds: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(
            target=_work, args=(contender, picture, rounds, other), daemon=True
        )
        self._process.start()
        for _ in range(3):  # warm up
            self.run()

    def run(self) -> float:
        """Makes one overlay; gives its milliseconds."""
        self._connection.send("run")
        return float(self._connection.recv())

    def close(self) -> dict[str, Any]:
        """Ends the process; gives what it knows."""
        self._connection.send("end")
        facts: dict[str, Any] = self._connection.recv()
        self._process.join()
        return facts


def _work(
    contender: Contender, picture: Path, rounds: int, connection: Connection
) -> None:
    if hasattr(os, "sched_setaffinity"):
        # As many cores as threads: what a library starts beside them has no other.
        cores = sorted(os.sched_getaffinity(0))[: contender.threads]
        os.sched_setaffinity(0, cores)
    cv2.setNumThreads(contender.threads)
    make = _WAYS[contender.way](contender)
    result: Any = None
    stages: collections.defaultdict[str, list[float]] = collections.defaultdict(list)
    while connection.recv() == "run":
        start = time.perf_counter()
        result = make(str(picture))
        result.overlay()
        connection.send((time.perf_counter() - start) * 1000)
    for _ in range(rounds if result.timings_ms else 0):
        for stage, milliseconds in make(str(picture)).timings_ms.items():
            stages[stage].append(milliseconds)
    medians = {stage: statistics.median(times) for stage, times in stages.items()}
    facts: dict[str, Any] = {
        "things": sum(segment.is_thing for segment in result.segments),
        "peak_memory_bytes": peak_memory_bytes(),
    }
    if medians:
        facts["stages_ms"] = {stage: round(ms, 3) for stage, ms in medians.items()}
        facts["merge_share"] = round(medians["merge"] / medians["network"], 4)
    connection.send(facts)


def _runtime(contender: Contender) -> Callable[[str], Any]:
    from deeplab2_edge.runtime.segmenter import PanopticSegmenter

    return PanopticSegmenter(contender.file, num_threads=contender.threads)


def _python(contender: Contender) -> Callable[[str], Any]:
    from deeplab2_edge.runtime import native

    native.is_available = lambda: False  # type: ignore[assignment]
    return _runtime(contender)


def _tensorflow(contender: Contender) -> Callable[[str], Any]:
    from benchmarks.merging_tensorflow import make_merge
    from deeplab2_edge.runtime.engine import open_engine

    _limit_tensorflow(contender.threads)
    engine = open_engine(contender.file, num_threads=contender.threads)
    metadata = engine.metadata
    assert metadata.merge is not None
    merge = make_merge(contender.canvas, metadata.merge)

    def make(path: str) -> Any:
        image = read_image(path)
        panoptic = merge(engine.run({keys.IMAGE: image}))
        return result_from_maps(image, panoptic, metadata)

    return make


def _saved_model(contender: Contender) -> Callable[[str], Any]:
    import tensorflow as tf

    from benchmarks.merging_tensorflow import merge_function
    from deeplab2_edge.config import load_config
    from deeplab2_edge.experiments import find_config
    from deeplab2_edge.models.engine import load_engine

    _limit_tensorflow(contender.threads)
    config = load_config(find_config(contender.file))
    engine = load_engine(config, contender.file, canvas=contender.canvas)
    metadata = engine.metadata
    assert metadata.merge is not None
    merge = merge_function(contender.canvas, metadata.merge)
    serving = tf.Module()
    serving.model = engine.network.model  # or its variables would not be saved

    @tf.function(input_signature=[tf.TensorSpec((*contender.canvas, 3), tf.uint8)])  # type: ignore[untyped-decorator]
    def serve(image: Any) -> Any:
        heads = engine.network({keys.IMAGE: image[None]})
        return merge(
            heads[keys.SEMANTIC_LOGITS][0],
            heads[keys.CENTER_HEATMAP][0],
            heads[keys.OFFSET_MAP][0],
        )

    serving.serve = serve
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(serving, folder)
        loaded = tf.saved_model.load(folder)

    def make(path: str) -> Any:
        image = read_image(path)
        return result_from_maps(image, loaded.serve(image).numpy(), metadata)

    return make


def _limit_tensorflow(threads: int) -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


_WAYS: dict[str, Callable[[Contender], Callable[[str], Any]]] = {
    "runtime": _runtime,
    "onnx": _runtime,
    "python": _python,
    "tflite + tensorflow": _tensorflow,
    "saved-model": _saved_model,
}


if __name__ == "__main__":
    main()
