"""What an engine says of itself: who computes, with what, and why not otherwise."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class EngineReport:
    """Says what runs a network.

    Attributes:
        runtime: Distribution of the interpreter, such as `ai-edge-litert`.
        version: Of the runtime.
        threads: Of the runtime.
        delegate: What computes: `xnnpack`, `edgetpu`, `gpu` or the path of a library;
            `builtin` for the runtime's own kernels, `cpu` for those of ONNX Runtime.
        library: Of the delegate; None if it is part of the runtime.
        fallback_reason: Why the delegate that was asked for is not used.
        notes: What else a user should know, one sentence each.
        differences: Largest difference of each output between delegate and CPU, as a
            share of its range. Empty if nothing was compared.
    """

    runtime: str
    version: str
    threads: int
    delegate: str
    library: str | None = None
    fallback_reason: str | None = None
    notes: tuple[str, ...] = ()
    differences: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Gives the fields, ready for JSON."""
        return {
            **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)},
            "notes": list(self.notes),
            "differences": {
                name: share if math.isfinite(share) else None
                for name, share in self.differences.items()
            },
        }

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.runtime} {self.version}, {self.delegate}, {threads}"


def report_of(engine: object) -> EngineReport | None:
    """Gives the report of an engine, None of one that has none."""
    report = getattr(engine, "report", None)
    return report if isinstance(report, EngineReport) else None
