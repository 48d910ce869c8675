"""Opens TFLite files with the delegate that was asked for, if it computes right."""

import dataclasses
import functools
import logging
import time
from collections.abc import Mapping

from deeplab2_edge.errors import ModelFileError, UsageError
from deeplab2_edge.model_file import TFLITE, ModelFile
from deeplab2_edge.runtime.comparison import (
    LARGEST,
    Measurement,
    compare_outputs,
    sample_inputs,
)
from deeplab2_edge.runtime.delegates import (
    EDGE_TPU,
    XNNPACK,
    Delegate,
    find_delegate,
)
from deeplab2_edge.runtime.engine import check_threads
from deeplab2_edge.runtime.gpu_engine import GpuEngine
from deeplab2_edge.runtime.interpreter import EDGE_TPU_OP, LiteRtEngine
from deeplab2_edge.runtime.runtimes import choose_runtime
from deeplab2_edge.runtime.trial import try_delegate

_log = logging.getLogger("deeplab2_edge")

_PAUSES = (0.2, 0.5, 1.5)  # seconds; a USB device comes back in about one


def open_tflite(
    model: ModelFile,
    *,
    num_threads: int | None = None,
    delegate: str | None = None,
    delegate_options: Mapping[str, str] | None = None,
    runtime: str | None = None,
    falls_back: bool = True,
) -> LiteRtEngine | GpuEngine:
    """Opens a TFLite file; see `engine.open_engine`."""
    num_threads = check_threads(num_threads)
    is_compiled = is_compiled_for_edge_tpu(model)
    if delegate is None and is_compiled:
        delegate = EDGE_TPU
    name = choose_runtime(TFLITE, runtime, label=model.label).name
    chosen = find_delegate(delegate, delegate_options, runtime=name)
    if chosen is None:
        engine: LiteRtEngine | GpuEngine
        engine = LiteRtEngine(model, num_threads=num_threads, runtime=name)
        if delegate == XNNPACK and engine.report.delegate != XNNPACK:
            raise UsageError(f"{model.label}: {engine.report.notes[0]}")
        return engine
    inputs = sample_inputs(model)
    trial = try_delegate(
        model, chosen, runtime=name, num_threads=num_threads, inputs=inputs
    )
    cpu = None
    expected = model.golden.heads if model.golden and is_compiled else None
    if not is_compiled:
        cpu = LiteRtEngine(model, num_threads=num_threads, runtime=name)
        expected = cpu.run(inputs)
    measured: tuple[Measurement, ...] = ()
    notes: tuple[str, ...] = ()
    if expected is not None:
        measured = compare_outputs(
            model.metadata, expected, trial.outputs, has_delegate=True
        )
    else:
        notes = ("compiled for the Edge TPU and without a self test: not compared",)
    reason = _what_is_wrong(chosen, trial.delegate_parts, measured)
    if reason is not None and not falls_back:
        notes = (*notes, reason)
    if reason is None or not falls_back:
        cpu = None  # its memory is free before the other one takes more
        engine = _open_again(model, chosen, num_threads=num_threads, runtime=name)
    elif cpu is None:
        raise ModelFileError(
            f"{model.label}: {reason}, and the CPU cannot run what is compiled for the "
            "Edge TPU; run the file it was compiled of"
        )
    else:
        _say_once(model.label, reason)
        engine = cpu
    engine.report = dataclasses.replace(
        engine.report,
        fallback_reason=reason if falls_back else None,
        notes=(*engine.report.notes, *notes),
        differences={m.output: m.found for m in measured if m.kind == LARGEST},
    )
    return engine


def open_with(
    model: ModelFile, delegate: Delegate, *, num_threads: int, runtime: str
) -> LiteRtEngine | GpuEngine:
    """Opens a TFLite file with a delegate, whatever it computes."""
    if delegate.is_of_litert:
        return GpuEngine(model, delegate, num_threads=num_threads)
    return LiteRtEngine(
        model, num_threads=num_threads, delegate=delegate, runtime=runtime
    )


def _open_again(
    model: ModelFile, delegate: Delegate, *, num_threads: int, runtime: str
) -> LiteRtEngine | GpuEngine:
    """Opens with what has just worked elsewhere: a device may need a moment."""
    for pause in _PAUSES:
        try:
            return open_with(model, delegate, num_threads=num_threads, runtime=runtime)
        except UsageError:
            time.sleep(pause)
    return open_with(model, delegate, num_threads=num_threads, runtime=runtime)


def is_compiled_for_edge_tpu(model: ModelFile) -> bool:
    """Says whether a graph has parts that only an Edge TPU can run."""
    return EDGE_TPU_OP.encode() in model.graph


def _what_is_wrong(
    delegate: Delegate, parts: int, measured: tuple[Measurement, ...]
) -> str | None:
    if not parts:
        return f"{delegate.label} takes nothing of this graph"
    broken = [m for m in measured if not m.is_kept]
    if not broken:
        return None
    worst = max(broken, key=lambda m: m.found / m.limit)
    return f"{delegate.label} does not compute what the CPU does ({worst})"


@functools.cache
def _say_once(label: str, reason: str) -> None:
    _log.warning("%s: %s; the CPU computes instead", label, reason)
