"""What a training run will need, from a step or two of it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

# The pipeline is measured over this many batches, or for that long.
_MAX_BATCHES = 20
_MAX_SECONDS = 5.0


@dataclass(frozen=True)
class Restored:
    """Says where the weights of a run come from.

    Attributes:
        checkpoint: Prefix.
        num_restored: Variables of the model that it gave.
        num_variables: Variables of the model.
    """

    checkpoint: str
    num_restored: int
    num_variables: int

    def __str__(self) -> str:
        return (
            f"{self.checkpoint}: {self.num_restored} of {self.num_variables} variables"
        )


def describe_start(restored: Restored | None, first_step: int) -> str:
    """Says in a line what a run begins with."""
    if restored is None:
        return "started from random weights"
    return f"{'resumed' if first_step else 'started'} from {restored}"


@dataclass(frozen=True)
class DryRun:
    """Says what a run will need; nothing was written to find out.

    Attributes:
        parameters: Numbers in a checkpoint of the model.
        restored: Where the weights come from, None if they are random.
        first_step: Global step at which the run would begin.
        last_step: Global step at which it would end.
        batch_size: Of all processes.
        losses: Of the first step.
        first_step_seconds: The first step, tracing and compilation included.
        step_seconds: The second step.
        batch_seconds: The pipeline for one batch, while no step runs. On a CPU both
            share the cores.
        memory_bytes_per_image: Predicted: the most bytes of tensors alive at once in
            the traced step (activations kept for the gradient, and gradients), if
            operations run one after the other in the order of the graph, divided by
            the images of this process. Weights, state of the optimizer and workspace
            of convolutions come on top.
        peak_memory_bytes: Most resident memory of this process so far, tracing
            included, without that of an accelerator; None where unknown.
    """

    parameters: int
    restored: Restored | None
    first_step: int
    last_step: int
    batch_size: int
    losses: dict[str, float]
    first_step_seconds: float
    step_seconds: float
    batch_seconds: float
    memory_bytes_per_image: int
    peak_memory_bytes: int | None

    @property
    def run_seconds(self) -> float:
        """Predicts the rest of the run, checkpoints and evaluations not included.

        Every step takes the longer one of a step and its batch.
        """
        steps = max(self.last_step - self.first_step, 0)
        return steps * max(self.step_seconds, self.batch_seconds)

    @property
    def is_limited_by_data(self) -> bool:
        """True if steps would wait for the pipeline."""
        return self.batch_seconds > self.step_seconds

    def to_json(self) -> dict[str, Any]:
        """Gives everything as JSON values."""
        return {
            **asdict(self),
            "run_seconds": self.run_seconds,
            "is_limited_by_data": self.is_limited_by_data,
        }


def timed_batches(batches: Iterator[Any]) -> tuple[Any, float]:
    """Gives the first batch, and the seconds that each of the next ones takes.

    The first is not timed: before it the pipeline is set up.
    """
    batch = next(batches)
    count, seconds = 0, 0.0
    started = time.perf_counter()
    while count < _MAX_BATCHES and seconds < _MAX_SECONDS:
        next(batches)
        count += 1
        seconds = time.perf_counter() - started
    return batch, seconds / count


def timed_step(
    step: Callable[[Any], dict[str, Any]], batch: Any
) -> tuple[dict[str, float], float]:
    """Runs a step, and gives its losses and the seconds it took."""
    started = time.perf_counter()
    # Reading a value waits for the device.
    losses = {name: float(value) for name, value in step(batch).items()}
    return losses, time.perf_counter() - started
