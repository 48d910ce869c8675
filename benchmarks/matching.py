"""How long does the matching of masks and slots take in a training step?

Solves batches of 128 masks by 128 slots of several kinds, and the same with SciPy (one
sample after the other, in Python) where it is installed; checks that both agree.

    python -m benchmarks.matching [--rounds 9] [--output FILE.json]
"""

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.files import atomic_write
from deeplab2_edge.optional import require
from deeplab2_edge.runtime.machine import describe_machine
from deeplab2_edge.train.losses.matching import match

tf: Any = require("tensorflow", extra="train")

BATCH, SIDE = 8, 128
_NUM_PIXELS, _NUM_CLASSES = 41 * 41, 19
_DEFAULT_OUTPUT = Path(__file__).parent / "results" / "matching.json"


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, default=_DEFAULT_OUTPUT)
    args = parser.parse_args()
    rows = []
    for name, (cost, num_masks) in _problems().items():
        is_present = np.broadcast_to(np.arange(SIDE) < num_masks, (BATCH, SIDE))
        rows.append({"kind": name, "masks": num_masks})
        rows[-1].update(_measure(cost, is_present, args.rounds))
        print(json.dumps(rows[-1]), flush=True)
    document = {
        "command": "python -m benchmarks.matching",
        "rounds": args.rounds,
        "batch": BATCH,
        "slots": SIDE,
        "tensorflow": tf.__version__,
        "device": "GPU" if tf.config.list_physical_devices("GPU") else "CPU",
        "machine": describe_machine(),
        "rows": rows,
    }
    with atomic_write(args.output) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n")
    print(f"{args.output} written")


def _problems() -> dict[str, tuple[NDArray[np.float32], int]]:
    """Gives costs and the number of masks that are there."""
    generator = np.random.default_rng(0)
    side = np.arange(1, SIDE + 1, dtype=np.float32)
    products = np.multiply.outer(side, side)[None].repeat(BATCH, axis=0)
    return {
        "untrained": (_mask_costs(generator, 20, spread=0.1), 20),
        "untrained, full": (_mask_costs(generator, SIDE, spread=0.1), SIDE),
        "trained": (_mask_costs(generator, 20, spread=3.0), 20),
        "trained, full": (_mask_costs(generator, SIDE, spread=3.0), SIDE),
        "uniform": (generator.random((BATCH, SIDE, SIDE), np.float32), SIDE),
        "worst": (products, SIDE),
    }


def _mask_costs(
    generator: np.random.Generator, num_masks: int, *, spread: float
) -> NDArray[np.float32]:
    """Computes costs as the loss does, of logits of some standard deviation."""
    mask_of = generator.integers(0, num_masks, (BATCH, _NUM_PIXELS))
    masks = np.eye(SIDE)[mask_of].transpose(0, 2, 1)
    slots = _softmax(spread * generator.normal(size=(BATCH, _NUM_PIXELS, SIDE)))
    size = (masks.sum(axis=2)[:, :, None] + slots.sum(axis=1)[:, None]) / 2
    classes = _softmax(spread * generator.normal(size=(BATCH, SIDE, _NUM_CLASSES)))
    class_of = generator.integers(0, _NUM_CLASSES, SIDE)
    similarity = masks @ slots / (size + 1e-5) * classes[..., class_of].swapaxes(1, 2)
    return np.asarray(-similarity, np.float32)


def _softmax(logits: NDArray[Any]) -> NDArray[Any]:
    shares = np.exp(logits)
    return np.asarray(shares / shares.sum(axis=-1, keepdims=True))


def _measure(
    cost: NDArray[np.float32], is_present: NDArray[np.bool_], rounds: int
) -> dict[str, float]:
    tensors = tf.constant(cost), tf.constant(is_present)
    columns = match(*tensors).numpy()
    found = {"ms": _median_ms(lambda: match(*tensors).numpy(), rounds)}
    if importlib.util.find_spec("scipy"):
        from scipy.optimize import linear_sum_assignment

        present = [costs[there] for costs, there in zip(cost, is_present, strict=True)]
        for costs, given, there in zip(present, columns, is_present, strict=True):
            rows, expected = linear_sum_assignment(costs)
            ours = costs[rows, given[there]].sum(dtype=np.float64)
            theirs = costs[rows, expected].sum(dtype=np.float64)
            assert abs(ours - theirs) <= 1e-9 * abs(theirs), (ours, theirs)
        found["scipy_ms"] = _median_ms(
            lambda: [linear_sum_assignment(costs) for costs in present], rounds
        )
    return found


def _median_ms(run: Callable[[], Any], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return round(1000 * statistics.median(times), 2)


if __name__ == "__main__":
    main()
