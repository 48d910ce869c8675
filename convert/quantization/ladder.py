"""Keeps a promise about accuracy with the smallest file that can.

A promise says how many points a metric may drop. Ways to convert are tried in the order
of what they cost a device, each measured on the user's images, until one keeps it. The
policy knows nothing of networks: a rung is a name and a function that converts and
measures.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deeplab2_edge.convert.options import DropLimit
from deeplab2_edge.errors import ConversionError

# How many of the worst blocks stay in float32, one rung each.
KEPT_BLOCKS = (1, 2, 4, 8)


@dataclass(frozen=True, eq=False)
class Attempt:
    """Is what came of a rung.

    Attributes:
        name: Of the rung.
        file_bytes: Size of the product.
        drops: By how many points each promised metric got worse; negative is better.
        latency_ms: On this machine, if it was measured.
        product: What the caller wants back if this is chosen.
        failure: Why there is no product.
    """

    name: str
    file_bytes: int = 0
    drops: Mapping[str, float] = field(default_factory=dict)
    latency_ms: float | None = None
    product: Any = None
    failure: str | None = None

    def keeps(self, promises: Sequence[DropLimit]) -> bool:
        """Says whether no metric dropped further than promised."""
        return self.failure is None and all(
            self.drops[promise.metric] <= promise.points for promise in promises
        )

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values."""
        return {
            "name": self.name,
            "file_bytes": self.file_bytes,
            "drops": {name: round(drop, 3) for name, drop in self.drops.items()},
            "latency_ms": self.latency_ms,
            "failure": self.failure,
        }


@dataclass(frozen=True)
class Rung:
    """Is a way to convert.

    Attributes:
        name: For people.
        attempt: Converts and measures. A `ConversionError` is a rung that breaks.
    """

    name: str
    attempt: Callable[[], Attempt]


@dataclass(frozen=True, eq=False)
class Climb:
    """Says what was tried and what was chosen.

    Attributes:
        promises: What had to be kept.
        attempts: In the order they were made.
        chosen: The first that keeps all promises; None if none does.
    """

    promises: tuple[DropLimit, ...]
    attempts: tuple[Attempt, ...]
    chosen: Attempt | None

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values."""
        return {
            "promises": {p.metric: p.points for p in self.promises},
            "attempts": [attempt.to_json() for attempt in self.attempts],
            "chosen": self.chosen and self.chosen.name,
        }


def climb(
    rungs: Iterable[Rung],
    promises: Sequence[DropLimit],
    *,
    say: Callable[[str], None] = lambda text: None,
) -> Climb:
    """Tries rungs until one keeps all promises.

    Args:
        rungs: The cheapest on a device first. An iterator is asked for the next only
            when all before have failed, so that it may measure in between.
        promises: At least one.
        say: Told after every rung how it went.
    """
    attempts = []
    for rung in rungs:
        try:
            attempt = rung.attempt()
        except ConversionError as error:
            attempt = Attempt(rung.name, failure=str(error))
        attempts.append(attempt)
        say(_line(attempt, promises))
        if attempt.keeps(promises):
            return Climb(tuple(promises), tuple(attempts), attempt)
    return Climb(tuple(promises), tuple(attempts), None)


def format_climb(result: Climb) -> str:
    """Formats what was tried as a table."""
    width = max([len(attempt.name) for attempt in result.attempts] + [8])
    metrics = [promise.metric for promise in result.promises]
    head = f"{'tried':<{width}}{'MB':>8}{'ms':>8}" + "".join(
        f"{f'{metric} drop':>13}" for metric in metrics
    )
    lines = [head]
    for attempt in result.attempts:
        if attempt.failure is not None:
            lines.append(f"{attempt.name:<{width}}  failed: {attempt.failure[:160]}")
            continue
        latency = "-" if attempt.latency_ms is None else f"{attempt.latency_ms:.1f}"
        lines.append(
            f"{attempt.name:<{width}}{attempt.file_bytes / 1e6:>8.2f}{latency:>8}"
            + "".join(f"{attempt.drops[metric]:>13.2f}" for metric in metrics)
            + ("  kept" if attempt is result.chosen else "")
        )
    allowed = "".join(f"{promise.points:>13g}" for promise in result.promises)
    lines.append(f"{'allowed':<{width}}{'':>16}{allowed}")
    return "\n".join(lines)


def refusal(result: Climb, *, has_tried_training: bool = False) -> str:
    """Says that no rung kept the promises, what was tried, and what to do.

    Args:
        result: Of a climb without a choice.
        has_tried_training: Whether quantization-aware training was among the rungs.
    """
    made = [attempt for attempt in result.attempts if attempt.failure is None]
    metric = result.promises[0].metric
    best = min(made, key=lambda attempt: attempt.drops[metric], default=None)
    advice = ["calibrate with more typical images (--calibration-data)"]
    if not has_tried_training:
        advice.append("train with quantization in the loop (--qat)")
    advice.append("quantize less (--quantize fp16)")
    if best is not None:
        advice.append(f"allow {best.drops[metric]:.2f}{metric} (--max-drop)")
    return (
        f"no way to convert keeps the promise\n{format_climb(result)}\n"
        f"what helps: {'; '.join(advice)}"
    )


def _line(attempt: Attempt, promises: Sequence[DropLimit]) -> str:
    if attempt.failure is not None:
        return f"{attempt.name}: failed"
    drops = ", ".join(f"{p.metric} {attempt.drops[p.metric]:.2f}" for p in promises)
    verdict = "kept" if attempt.keeps(promises) else "too much"
    size = attempt.file_bytes / 1e6
    return f"{attempt.name}: {size:.2f} MB, drop {drops}: {verdict}"
