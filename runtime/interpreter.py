"""Runs a model file with LiteRT: a canvas in, float32 heads out.

This is the only file that imports a TFLite interpreter, the first one installed of
ai-edge-litert, tflite-runtime (32-bit ARM, old Pythons) and TensorFlow.
"""

import collections
import ctypes
import dataclasses
import importlib
import importlib.metadata
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.errors import (
    MissingExtraError,
    ModelFileError,
    UsageError,
)
from deeplab2_edge.model_file import ModelFile, ModelMetadata, read_model_file
from deeplab2_edge.panoptic import Heads
from deeplab2_edge.stderr import hidden_stderr

# (module with `Interpreter` and `load_delegate`, distribution that brings it)
_RUNTIMES = (
    ("ai_edge_litert.interpreter", "ai-edge-litert"),
    ("tflite_runtime.interpreter", "tflite-runtime"),
    ("tensorflow.lite", "tensorflow"),
)
_MAX_DEFAULT_THREADS = 4  # more rarely helps a network of this size
_HEAD_CHANNELS = {keys.CENTER_HEATMAP: 1, keys.OFFSET_MAP: 2}


@dataclasses.dataclass(frozen=True)
class RuntimeInfo:
    """Names the interpreter in use."""

    name: str
    version: str


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """Describes one tensor of a graph.

    Attributes:
        scale: Quantization scale; 0.0 for float tensors.
        zero_point: Quantization zero point.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int


@dataclasses.dataclass(frozen=True)
class GraphInfo:
    """Describes what is inside a graph.

    Attributes:
        op_counts: Number of ops by builtin name, most frequent first.
        num_tensors: All tensors, constants included.
        inputs: In the order of the graph.
        outputs: In the order of the graph.
    """

    op_counts: Mapping[str, int]
    num_tensors: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


class LiteRtEngine:
    """Runs the network of one model file.

    An engine has one interpreter, and an interpreter one set of buffers: calls from
    several threads are safe but wait for each other. For parallel work make one
    engine per thread, or give one engine more threads.

    Args:
        source: A path, or a file already read with `read_model_file`.
        num_threads: Of the interpreter; default: the usable cores, at most 4.
        delegate: Path of an external delegate library, for example
            `libedgetpu.so.1`. By default the runtime's own XNNPACK is used.

    Raises:
        ModelFileError: If the file is not ours, damaged, refused by the interpreter
            or not what its metadata says.
        UsageError: If `num_threads` or `delegate` cannot be used.
        MissingExtraError: If no interpreter is installed.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | ModelFile,
        *,
        num_threads: int | None = None,
        delegate: str | None = None,
    ) -> None:
        model = source if isinstance(source, ModelFile) else read_model_file(source)
        self.model = model
        self.metadata = model.metadata
        self.num_threads = _check_threads(num_threads)
        self.delegate = delegate
        self._lock = threading.Lock()
        label = str(model.path or self.metadata.name)
        options: dict[str, Any] = {}
        if delegate is not None:
            options["experimental_delegates"] = [_load_delegate(delegate)]
        self._interpreter = _make_interpreter(
            model, label, num_threads=self.num_threads, **options
        )
        self._input = self._find_input(label)
        self._table = _input_table(self.metadata, self._input)
        self._outputs = self._find_outputs(label)
        if self.is_integer:  # quantized peaks are flat
            merge = dataclasses.replace(self.metadata.merge, merge_plateaus=True)
            self.metadata = dataclasses.replace(self.metadata, merge=merge)

    @property
    def is_integer(self) -> bool:
        """Whether the center heatmap leaves the network as integers."""
        dtype = self._outputs[keys.CENTER_HEATMAP]["dtype"]
        return bool(np.issubdtype(dtype, np.integer))

    def run(self, canvas: NDArray[np.uint8]) -> Heads:
        """Runs the network on a canvas that `ModelMetadata.check_canvas` accepts.

        Returns:
            Heads as float32, at the network's own resolution.
        """
        self.metadata.check_canvas(canvas)
        with self._lock:
            self._fill_input(canvas)
            self._interpreter.invoke()
            heads = {
                name: self._read_output(details)
                for name, details in self._outputs.items()
            }
        return Heads(
            semantic_logits=heads[keys.SEMANTIC_LOGITS],
            center_heatmap=heads[keys.CENTER_HEATMAP][..., 0],
            offset_map=heads[keys.OFFSET_MAP],
        )

    def self_test(self) -> dict[str, float] | None:
        """Compares this machine's heads with the golden ones in the file.

        Returns:
            Largest difference of each head as a share of the golden head's range;
            about 0 for a float model, a few hundredths where the golden heads come
            from the network before quantization, and much more where a delegate or
            runtime computes nonsense. None if the file has no golden heads.
        """
        golden = self.model.golden
        if golden is None:
            return None
        heads = self.run(golden.canvas)
        differences = {}
        for name, expected in golden.heads.items():
            found = getattr(heads, name).reshape(expected.shape)
            spread = max(float(np.ptp(expected)), 1e-6)
            differences[name] = float(np.abs(found - expected).max()) / spread
        return differences

    def _fill_input(self, canvas: NDArray[np.uint8]) -> None:
        # A view of the interpreter's buffer: it must be gone before invoke.
        view = self._interpreter.tensor(self._input["index"])()[0]
        if self._table is None:
            np.copyto(view, canvas)
        else:
            np.take(self._table, canvas, out=view, mode="clip")

    def _read_output(self, details: Mapping[str, Any]) -> NDArray[np.float32]:
        # The copy outlives the next run; a view of the buffer would not.
        view = self._interpreter.tensor(details["index"])()[0]
        values: NDArray[np.float32] = view.astype(np.float32)
        if np.issubdtype(details["dtype"], np.integer):
            scale, zero_point = details["quantization"]
            values -= zero_point
            values *= scale
        return values

    def _find_input(self, label: str) -> Mapping[str, Any]:
        inputs = self._interpreter.get_input_details()
        expected = [1, *self.metadata.canvas, 3]
        dtype = self.metadata.input.dtype
        if (
            len(inputs) != 1
            or list(inputs[0]["shape"]) != expected
            or np.dtype(inputs[0]["dtype"]).name != dtype
        ):
            found = [_describe(details) for details in inputs]
            raise ModelFileError(
                f"{label}: input is {', '.join(found)}; its metadata says "
                f"{dtype} {expected}; convert it again"
            )
        details: Mapping[str, Any] = inputs[0]
        return details

    def _find_outputs(self, label: str) -> dict[str, Mapping[str, Any]]:
        by_name = {d["name"]: d for d in self._interpreter.get_output_details()}
        found: dict[str, Mapping[str, Any]] = {}
        for head, tensor in self.metadata.outputs.items():
            channels = _HEAD_CHANNELS.get(head, self.metadata.num_classes)
            expected = [1, *self.metadata.head_size, channels]
            if tensor not in by_name:
                raise ModelFileError(
                    f"{label}: outputs.{head} is {tensor!r}, but the graph gives "
                    f"{sorted(by_name)}; convert it again"
                )
            if list(by_name[tensor]["shape"]) != expected:
                raise ModelFileError(
                    f"{label}: output {head} is {_describe(by_name[tensor])}; its "
                    f"metadata says {expected}; convert it again"
                )
            found[head] = by_name[tensor]
        return found


def runtime_info() -> RuntimeInfo:
    """Says which interpreter is used.

    Raises:
        MissingExtraError: If none is installed.
    """
    runtime, name = _import_runtime()
    try:
        return RuntimeInfo(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:  # tensorflow-cpu and the like
        return RuntimeInfo(name, getattr(runtime, "__version__", "unknown"))


def describe_graph(model: ModelFile) -> GraphInfo:
    """Lists ops and tensors as they are in the file, before any delegate.

    Raises:
        ModelFileError: If the interpreter refuses the graph.
    """
    runtime, _ = _import_runtime()
    interpreter = _make_interpreter(
        model,
        str(model.path or model.metadata.name),
        num_threads=1,
        experimental_op_resolver_type=_resolver_type(
            runtime
        ).BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    counts = collections.Counter(
        operator["op_name"] for operator in interpreter._get_ops_details()
    )
    return GraphInfo(
        op_counts=dict(counts.most_common()),
        num_tensors=len(interpreter.get_tensor_details()),
        inputs=tuple(map(_tensor_info, interpreter.get_input_details())),
        outputs=tuple(map(_tensor_info, interpreter.get_output_details())),
    )


def default_threads() -> int:
    """Number of threads used when none is asked for."""
    usable = (
        len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1
    )
    return min(usable, _MAX_DEFAULT_THREADS)


def _import_runtime() -> tuple[ModuleType, str]:
    for module, distribution in _RUNTIMES:
        try:
            return importlib.import_module(module), distribution
        except ModuleNotFoundError:
            continue
    raise MissingExtraError(
        "no TFLite interpreter is installed; run: pip install ai-edge-litert "
        "(tflite-runtime on 32-bit ARM)"
    )


def _resolver_type(runtime: ModuleType) -> Any:
    return (
        runtime.OpResolverType
        if hasattr(runtime, "OpResolverType")
        else runtime.experimental.OpResolverType
    )


def _load_delegate(library: str) -> Any:
    runtime, _ = _import_runtime()
    load = (
        runtime.load_delegate
        if hasattr(runtime, "load_delegate")
        else runtime.experimental.load_delegate
    )
    try:
        # The runtimes' own Delegate leaves a traceback on stderr if this fails.
        ctypes.CDLL(library)
        return load(library)
    except (OSError, ValueError, RuntimeError) as error:
        found = "" if Path(library).exists() else "; no such file"
        raise UsageError(
            f"delegate {library!r} cannot be loaded ({error}{found}); give the path "
            "of a TFLite external delegate, or none for the CPU"
        ) from None


def _make_interpreter(model: ModelFile, label: str, **options: Any) -> Any:
    runtime, distribution = _import_runtime()
    try:
        with hidden_stderr():  # LiteRT announces its delegate
            interpreter = runtime.Interpreter(model_content=model.graph, **options)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelFileError(
            f"{label}: {distribution} cannot run this graph ({reason})"
        ) from None
    return interpreter


def _check_threads(num_threads: int | None) -> int:
    if num_threads is None:
        return default_threads()
    if not 1 <= num_threads <= 256:
        raise UsageError(f"num_threads is {num_threads}; it must be 1 to 256")
    return num_threads


def _input_table(
    metadata: ModelMetadata, details: Mapping[str, Any]
) -> NDArray[Any] | None:
    """Gives the input value of each of the 256 pixel values, None if unchanged."""
    low, high = metadata.input.range
    real = np.arange(256) * ((high - low) / 255) + low
    dtype = np.dtype(details["dtype"])
    if dtype == np.float32:
        return real.astype(np.float32)
    scale, zero_point = details["quantization"]
    if scale:
        # The file's own scale and zero point: an exact one can be half-integer.
        real = np.rint(real / scale) + zero_point
    bounds = np.iinfo(dtype)
    table = np.clip(np.rint(real), bounds.min, bounds.max).astype(dtype)
    is_identity = dtype == np.uint8 and np.array_equal(table, np.arange(256))
    return None if is_identity else table


def _describe(details: Mapping[str, Any]) -> str:
    return f"{np.dtype(details['dtype']).name} {[int(n) for n in details['shape']]}"


def _tensor_info(details: Mapping[str, Any]) -> TensorInfo:
    scale, zero_point = details["quantization"]
    return TensorInfo(
        name=details["name"],
        shape=tuple(int(side) for side in details["shape"]),
        dtype=np.dtype(details["dtype"]).name,
        scale=float(scale),
        zero_point=int(zero_point),
    )
