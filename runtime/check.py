"""Checks that this machine computes what the maker of a model file computed."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deeplab2_edge.model_file import ModelFile
from deeplab2_edge.runtime.comparison import (
    Measurement,
    check_finite,
    compare_outputs,
    sample_inputs,
)
from deeplab2_edge.runtime.engine import FileEngine, open_engine
from deeplab2_edge.runtime.engine_report import EngineReport


@dataclass(frozen=True)
class SelfTest:
    """Holds what a self test found.

    Attributes:
        has_golden: Whether there was something to compare with. Without, the network
            ran on a fixed image, and values must at least be finite.
        measurements: All of them.
        machine: Architecture of this machine.
        engine: What computed.
    """

    has_golden: bool
    measurements: tuple[Measurement, ...]
    machine: str
    engine: EngineReport

    @property
    def passed(self) -> bool:
        """Whether every bound holds."""
        return all(measurement.is_kept for measurement in self.measurements)

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values."""
        return {
            "has_golden": self.has_golden,
            "passed": self.passed,
            "architecture": self.machine,
            "engine": self.engine.to_dict(),
            "measurements": [m.to_json() for m in self.measurements],
        }


def check_model(
    model: ModelFile,
    *,
    num_threads: int | None = None,
    delegate: str | None = None,
    delegate_options: Mapping[str, str] | None = None,
    runtime: str | None = None,
) -> SelfTest:
    """Runs the self test of a file with this machine's runtime.

    Args:
        model: A file that was read, and so has the digest it says.
        num_threads: Of the engine.
        delegate: See `open_engine`; it is judged here, so nothing falls back to the
            CPU. Half floats are allowed to it.
        delegate_options: See `open_engine`.
        runtime: See `open_engine`.

    Raises:
        ModelFileError: If the runtime refuses the graph.
        UsageError: If `num_threads`, `delegate` or `runtime` cannot be used.
        MissingExtraError: If the engine is not installed.
    """
    engine = open_engine(
        model,
        num_threads=num_threads,
        delegate=delegate,
        delegate_options=delegate_options,
        runtime=runtime,
        falls_back=False,
    )
    return check_engine(engine, model)


def check_engine(engine: FileEngine, model: ModelFile) -> SelfTest:
    """Runs the self test of a file with an engine that `open_engine` gave."""
    found = engine.run(sample_inputs(model))
    if model.golden is None:
        measurements = check_finite(found)
    else:
        measurements = compare_outputs(
            model.metadata,
            model.golden.heads,
            found,
            has_delegate=engine.report.library is not None,
        )
    has_golden = model.golden is not None
    return SelfTest(has_golden, measurements, platform.machine(), engine.report)


def format_self_test(test: SelfTest) -> str:
    """Formats a self test as a table."""
    width = max((len(m.output) for m in test.measurements), default=0) + 2
    lines = []
    for measurement in test.measurements:
        mark = "" if measurement.is_kept else "  FAILED"
        lines.append(
            f"  {measurement.output:<{width}}{measurement.kind:<26}"
            f"{measurement.found:>9.3%}  (at most {measurement.limit:.2%}){mark}"
        )
    return "\n".join(lines)
