"""What runs a network: named arrays in, named heads out.

Whoever makes a result of heads takes any engine: LiteRT, ONNX Runtime, or the float
model in TensorFlow.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError
from deeplab2_edge.model_file import ONNX, ModelFile, ModelMetadata, read_model_file
from deeplab2_edge.runtime.delegates import CPU_NAMES
from deeplab2_edge.runtime.engine_report import EngineReport
from deeplab2_edge.runtime.heads import RawHead
from deeplab2_edge.runtime.preprocess import PlacedImage
from deeplab2_edge.runtime.runtimes import choose_runtime

_MAX_DEFAULT_THREADS = 4  # more rarely helps a network of this size


class Engine(Protocol):
    """Runs a network."""

    @property
    def metadata(self) -> ModelMetadata:
        """Describes the model."""

    @property
    def is_integer(self) -> bool:
        """Whether the center heatmap leaves the network as integers."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the network once.

        Args:
            inputs: What `ModelMetadata.check_inputs` accepts.

        Returns:
            Outputs without batch by the names of the metadata: heads float32
            `[h, w, C]` at the network's own resolution, maps of ids int32.

        Raises:
            DataError: If the inputs do not fit.
        """


@runtime_checkable
class RawEngine(Engine, Protocol):
    """Gives heads as they leave the network, and takes images on their way to it."""

    def run_raw(
        self, inputs: Mapping[str, NDArray[Any] | PlacedImage]
    ) -> dict[str, RawHead]:
        """Runs the network once, see `Engine.run`; the heads own their memory."""


class FileEngine(Engine, Protocol):
    """Runs a model file, and says what computes."""

    @property
    def report(self) -> EngineReport:
        """Names runtime, delegate and threads, and why it is these."""


def open_engine(
    source: str | os.PathLike[str] | ModelFile,
    *,
    num_threads: int | None = None,
    delegate: str | None = None,
    delegate_options: Mapping[str, str] | None = None,
    runtime: str | None = None,
    falls_back: bool = True,
    sandbox: bool = False,
) -> FileEngine:
    """Opens a model file with an engine of this machine.

    A delegate first runs the file's self test, or without one a fixed image, in another
    process, and must compute what the CPU computes, within the bounds of
    `runtime.comparison`. If it does not, or takes nothing of the graph, the CPU is used
    and the reason stands in `engine.report` and, once, in the log.

    Args:
        source: A path, or a file already read with `read_model_file`.
        num_threads: Of the engine; default: the usable cores, at most 4.
        delegate: `edgetpu`, `gpu`, or the path of an external delegate library; `cpu`
            or `none` for the CPU; `xnnpack` for the CPU too, but not without XNNPACK.
            Default: `edgetpu` for files compiled for it, else the CPU. TFLite files
            only.
        delegate_options: For the delegate's library.
        runtime: `ai-edge-litert`, `tflite-runtime`, `tensorflow` or `onnxruntime`;
            default: the first that is installed and runs the file.
        falls_back: Whether the CPU replaces a delegate that computes something else,
            instead of leaving it to the caller to judge it.
        sandbox: Whether it runs in a process of its own with bounded memory and time,
            see `runtime.sandbox`; for files that nobody vouches for.

    Raises:
        ModelFileError: If the file is not ours, damaged or refused by the engine.
        UsageError: If `num_threads`, `delegate` or `runtime` cannot be used.
        MissingExtraError: If the engine is not installed.
    """
    model = source if isinstance(source, ModelFile) else read_model_file(source)
    if sandbox:
        from deeplab2_edge.runtime.sandbox import SandboxEngine

        return SandboxEngine(
            model,
            num_threads=num_threads,
            delegate=delegate,
            delegate_options=delegate_options,
            runtime=runtime,
        )
    if model.format == ONNX:
        if delegate not in (None, *CPU_NAMES) or delegate_options:
            raise UsageError(
                f"{model.label}: a delegate is for TFLite files; ONNX files run in "
                "ONNX Runtime without"
            )
        from deeplab2_edge.runtime.onnx_engine import OnnxEngine

        choose_runtime(ONNX, runtime, label=model.label)
        return OnnxEngine(model, num_threads=num_threads)
    from deeplab2_edge.runtime.delegated import open_tflite

    return open_tflite(
        model,
        num_threads=num_threads,
        delegate=delegate,
        delegate_options=delegate_options,
        runtime=runtime,
        falls_back=falls_back,
    )


def self_test(engine: Engine, model: ModelFile) -> dict[str, float] | None:
    """Compares the outputs of this machine with the golden ones in the file.

    Returns:
        Largest difference of each output as a share of the golden one's range; about 0
        for a float model, a few hundredths for an integer one with another processor's
        rounding, and much more where a delegate or runtime computes nonsense. None if
        the file has no golden outputs.
    """
    golden = model.golden
    if golden is None:
        return None
    found = engine.run(golden.inputs)
    differences = {}
    for name, expected in golden.heads.items():
        spread = max(float(np.ptp(expected)), 1e-6)
        differences[name] = float(np.abs(found[name] - expected).max()) / spread
    return differences


def with_plateaus(metadata: ModelMetadata, *, is_integer: bool) -> ModelMetadata:
    """Says of integer heatmaps that adjacent equal centers are one: peaks are flat."""
    if metadata.merge is None or not is_integer:
        return metadata
    merge = dataclasses.replace(metadata.merge, merge_plateaus=True)
    return dataclasses.replace(metadata, merge=merge)


def default_threads() -> int:
    """Number of threads used when none is asked for."""
    usable = (
        len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1
    )
    return min(usable, _MAX_DEFAULT_THREADS)


def check_threads(num_threads: int | None) -> int:
    """Returns the number of threads to use.

    Raises:
        UsageError: If it cannot be.
    """
    if num_threads is None:
        return default_threads()
    if not 1 <= num_threads <= 256:
        raise UsageError(f"num_threads is {num_threads}; it must be 1 to 256")
    return num_threads
