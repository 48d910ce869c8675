"""Tells where the time of a training step goes, by TensorFlow's profiler."""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Parts of a step, in its order.
PARTS = (
    "network: convolutions",
    "network: rest",
    "losses, both ways",
    "gradient: convolutions",
    "gradient: rest",
    "update",
)
# The threads that run operations; those of one operation's loops have other names.
_THREADS = "tf_Compute"
_GRADIENT = "gradient_tape/"
# Clipping, and the update, which depends on whether gradients are finite.
_UPDATE = ("cond", "clip_by_global_norm", "global_norm")


def profile_step(run: Callable[[], Any], model_name: str) -> dict[str, float]:
    """Traces a step and gives the share of each of `PARTS` in the time of operations.

    Operations that run side by side count each with its own time.

    Args:
        run: Takes one step on a CPU, compiled before.
        model_name: First part of the names of the network's operations.
    """
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        try:
            run()
        finally:
            tf.profiler.experimental.stop()
        times: Counter[str] = Counter()
        for name, kind, picoseconds in _operations(Path(folder)):
            times[part_of(name, kind, model_name)] += picoseconds
    total = sum(times.values())
    return {part: round(times[part] / total, 4) for part in PARTS} if total else {}


def part_of(name: str, kind: str, model_name: str) -> str:
    """Gives the one of `PARTS` that an operation belongs to.

    Args:
        name: Of the operation in the graph.
        kind: Its type, for example `Conv2D`.
        model_name: As in `profile_step`.
    """
    if name.split("/")[0] in _UPDATE:
        return "update"
    direction = "gradient" if name.startswith(_GRADIENT) else "network"
    if not name.removeprefix(_GRADIENT).startswith(f"{model_name}/"):
        return "losses, both ways"
    return f"{direction}: {'convolutions' if 'Conv' in kind else 'rest'}"


def _operations(folder: Path) -> Iterator[tuple[str, str, int]]:
    """Gives name, type and duration of every operation of the traces in a folder."""
    # TensorFlow (2.21) has no public reader of its own traces.
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    for path in folder.rglob("*.xplane.pb"):
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
        for plane in space.planes:
            names = plane.event_metadata
            for line in plane.lines:
                if not line.name.startswith(_THREADS):
                    continue
                for event in line.events:
                    text = names[event.metadata_id].name
                    name, colon, kind = text.partition(":")
                    # "::" stands in what is not of the graph.
                    if colon and not kind.startswith(":"):
                        yield name, kind, event.duration_ps
