"""What do the networks of the recipes cost, and how fast are they?

Counts parameters, multiply-adds and the memory of activations of every network at its
published canvas. Then measures one after the other, the small ones first, each in a
process of its own: the memory of a forward pass, and its time beside that of
Panoptic-DeepLab with ResNet-50 at the same canvas, both in turn (A B A B ...) so that a
drifting machine hits both alike. Ratios are of processor time, which other work on the
machine changes less than it does the time on the clock. Writes the JSON after each
network and goes on where it stopped; a copy travels with the package, for
`deeplab2-edge models`.

    python -m benchmarks.models [--seconds 1500] [--only NAME] [--again]
    python -m benchmarks.models --only-missing [--seconds 120]

After a change of recipes `--seconds 0` counts again and keeps what is measured.
Counting all takes minutes; `--only-missing` counts and measures only the networks that
have no row yet under their recipes and canvas, and trusts the other rows.

Weights are random: they do not change the time. A network whose memory would not be
free, or whose time would end after `--seconds`, is not measured.
"""

import argparse
import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deeplab2_edge.config import ExperimentOptions, load_config
from deeplab2_edge.experiments import find_recipe
from deeplab2_edge.files import atomic_write
from deeplab2_edge.networks import (
    BASELINE,
    Network,
    costs_path,
    describe_network,
    shipped_networks,
)
from deeplab2_edge.runtime.machine import describe_machine

OUTPUT = Path(__file__).parent / "results" / "models.json"
_ROUNDS = 5
# No further round of a network begins after so many seconds, and none at all if its
# first pass takes longer.
_SECONDS_EACH = 20.0
# Multiply-adds per second that a busy machine reaches, to know what would end late.
_SLOWEST = 3e10
# Measured over computed memory, at most, with the workspace of convolutions.
_MEMORY_MARGIN = 3
_STATUS = Path("/proc/self/status")


def main() -> None:
    """Counts, measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1500, help="for measuring")
    parser.add_argument("--only", metavar="NAME", help="measure this one")
    parser.add_argument("--again", action="store_true", help="also what is measured")
    parser.add_argument(
        "--only-missing", action="store_true", help="trust the rows that are there"
    )
    parser.add_argument("--measure", metavar="NAME", help=argparse.SUPPRESS)
    args = parser.parse_args()
    networks = {network.name: network for network in shipped_networks()}
    if args.measure:
        print(json.dumps(_measure(networks[args.measure])))
        return
    before = json.loads(OUTPUT.read_text())["rows"] if OUTPUT.is_file() else []
    document = _count(
        list(networks.values()), before, trusted=before if args.only_missing else ()
    )
    _write(document)
    _measure_all(document, args)
    print(f"{OUTPUT} written; `python -m benchmarks.tables` makes the table")


def _measure_all(document: dict[str, Any], args: argparse.Namespace) -> None:
    end = time.monotonic() + args.seconds
    for row in sorted(document["rows"], key=lambda row: int(row["multiply_adds"])):
        name = row["recipes"][0]
        if args.only not in (None, name) or (row["measured"] and not args.again):
            continue
        reason = _obstacle(row, end - time.monotonic())
        print(f"{name}: {reason or 'measuring'}", flush=True)
        if not reason:
            row["measured"] = _measure_in_process(name)
            print(f"  {json.dumps(row['measured'])}", flush=True)
            _write(document)


def _write(document: dict[str, Any]) -> None:
    for path in (OUTPUT, costs_path()):
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(document, indent=1) + "\n")


def _count(
    networks: list[Network],
    before: Iterable[dict[str, Any]],
    trusted: Iterable[dict[str, Any]],
) -> dict[str, Any]:
    """Counts networks; keeps what is measured of those that did not change.

    Args:
        networks: All that the document shall hold.
        before: Rows with measurements.
        trusted: Rows that stand for networks of their recipes and canvas as they are.
    """
    import tensorflow as tf

    from deeplab2_edge.models.cost import network_cost

    measured = {_identity(row): row["measured"] for row in before}
    known = {_place(row): row for row in trusted}
    baseline, baselines = load_config(find_recipe(BASELINE)), {}
    rows = []
    for network in networks:
        config, canvas = network.config, network.canvas
        row = known.get((network.recipes, canvas))
        if row is None:
            print(f"counting {network.name}", flush=True)
            if canvas not in baselines:
                baselines[canvas] = network_cost(baseline, input_size=canvas)
            cost = network_cost(config, input_size=canvas)
            row = {
                "recipes": list(network.recipes),
                **describe_network(config, canvas, cost, baselines[canvas]),
            }
            row["measured"] = measured.get(_identity(row))
        rows.append(row)
    return {
        "command": "python -m benchmarks.models",
        "baseline": BASELINE,
        "tensorflow": tf.__version__,
        "machine": describe_machine(),
        "rows": rows,
    }


def _place(row: dict[str, Any]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    return tuple(row["recipes"]), tuple(row["input_size"])


def _identity(row: dict[str, Any]) -> tuple[Any, ...]:
    fields = ("input_size", "parameters", "multiply_adds")
    return (row["recipes"][0], *(str(row[field]) for field in fields))


def _obstacle(row: dict[str, Any], seconds: float) -> str:
    """Says why a network cannot be measured, or returns ""."""
    needed, free = _MEMORY_MARGIN * row["computed_memory_bytes"], _free_memory()
    if free is not None and needed > free:
        return f"may need {needed / 1e9:.0f} GB; {free / 1e9:.0f} GB are free"
    if row["multiply_adds"] / _SLOWEST > seconds:
        return f"may not end in the {seconds:.0f} s that are left"
    return ""


def _free_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["MemAvailable"].split()[0]) * 1024


# In a process of its own ----------------------------------------------------------


def _measure_in_process(name: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.models", "--measure", name]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(printed.stdout)
    return result


def _measure(network: Network) -> dict[str, Any]:
    forward, num_bytes = _build(network.config, network.canvas)
    resident = _start_of_peak()
    started = time.monotonic()
    mine = [_timed(forward)]
    peak = _memory("VmHWM")
    baseline = forward
    if network.name != BASELINE:
        baseline, _ = _build(load_config(find_recipe(BASELINE)), network.canvas)
    others = [_timed(baseline)]
    rounds = 0
    # The first passes also prepare the graphs. They count where there are no others.
    while rounds < _ROUNDS and _has_time(started, rounds, mine[0].wall):
        rounds += 1
        mine.append(_timed(forward))
        others.append(_timed(baseline))
    if rounds:
        mine, others = mine[1:], others[1:]
    ratios = [a.cpu / b.cpu for a, b in zip(mine, others, strict=True)]
    return {
        "rounds": rounds,
        "seconds": _median(t.wall for t in mine),
        "cpu_seconds": _median(t.cpu for t in mine),
        "baseline_seconds": _median(t.wall for t in others),
        "baseline_cpu_seconds": _median(t.cpu for t in others),
        "relative_time": _median(ratios),
        "memory_bytes": num_bytes + peak - resident if peak and resident else None,
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def _has_time(started: float, rounds: int, first: float) -> bool:
    if rounds == 0:
        return first < _SECONDS_EACH
    return time.monotonic() - started < _SECONDS_EACH


def _build(
    config: ExperimentOptions, canvas: tuple[int, int]
) -> tuple[Callable[[], Any], int]:
    """Returns a forward pass of one image, and the bytes of the weights."""
    import tensorflow as tf

    from deeplab2_edge.models import build_model

    model = build_model(config, input_size=canvas, batch_size=1)
    pixels = np.random.default_rng(0).uniform(0, 255, model.input.shape)
    image = tf.constant(pixels, tf.float32)
    inference = tf.function(lambda x: model(x, training=False))
    function = inference.get_concrete_function(image)
    return lambda: function(image), 4 * model.count_params()


class _Time(NamedTuple):
    wall: float
    cpu: float


def _timed(forward: Callable[[], Any]) -> _Time:
    wall, cpu = time.perf_counter(), time.process_time()
    forward()
    return _Time(time.perf_counter() - wall, time.process_time() - cpu)


def _median(values: Iterable[float]) -> float:
    return round(statistics.median(values), 4)


def _start_of_peak() -> int | None:
    """Makes the peak of memory start here; returns what is resident."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # Not Linux.
        return None
    return _memory("VmRSS")


def _memory(field: str) -> int | None:
    """Reads resident memory (`VmRSS`) or its peak (`VmHWM`) of this process."""
    if not _STATUS.is_file():
        return None
    fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(fields[field].split()[0]) * 1024


if __name__ == "__main__":
    main()
