"""Runs a TFLite file with LiteRT, or an older interpreter with the same interface."""

import collections
import dataclasses
import functools
import logging
import os
import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import DeepLabEdgeError, ModelFileError, UsageError
from deeplab2_edge.model_file import (
    CUSTOM_OP,
    TFLITE,
    InputSpec,
    ModelFile,
    OutputSpec,
    check_graph,
    read_model_file,
)
from deeplab2_edge.runtime.custom_op import (
    OP_NAME,
    op_outputs,
    without_custom_op,
)
from deeplab2_edge.runtime.delegates import XNNPACK, Delegate, load_delegate
from deeplab2_edge.runtime.engine import check_threads
from deeplab2_edge.runtime.engine_report import EngineReport
from deeplab2_edge.runtime.graph_engine import GraphEngine
from deeplab2_edge.runtime.native.build import find_library
from deeplab2_edge.runtime.runtimes import (
    Runtime,
    choose_runtime,
    import_runtime,
    runtime_version,
)
from deeplab2_edge.runtime.tensors import GraphInfo, tensor_info
from deeplab2_edge.stderr import hidden_stderr

EDGE_TPU_OP = "edgetpu-custom-op"  # what edgetpu_compiler writes

_log = logging.getLogger("deeplab2_edge")

# What TFLite adds to the reason of a delegate, of no use to anyone.
_RESTORED = "Restored original execution plan after delegate application failure."


class LiteRtEngine(GraphEngine):
    """Runs the network of one model file.

    An engine has one interpreter, and an interpreter one set of buffers: calls from
    several threads are safe but wait for each other. For parallel work make one
    engine per thread, or give one engine more threads.

    Args:
        source: A path, or a file already read with `read_model_file`.
        num_threads: Of the interpreter and of XNNPACK; default: the usable cores, at
            most 4.
        delegate: Computes what it takes of the graph; the rest, and without one all of
            it, is computed by XNNPACK and the runtime's own kernels. `open_engine`
            tries delegates before it trusts them, this class does not.
        runtime: See `runtimes.choose_runtime`.

    Attributes:
        report: What computes.
        delegate_parts: Parts of the graph that the delegate took.

    The graph is in memory once, with what XNNPACK makes of its weights beside it. It
    is not mapped from the file, which could be replaced after it was verified.

    A file whose merge is a custom op runs with the native library, and where there is
    none without the op: the host then merges, which is logged once.

    Raises:
        ModelFileError: If the file is not ours, damaged, refused by the interpreter
            or not what its metadata says.
        UsageError: If `num_threads`, `delegate` or `runtime` cannot be used.
        MissingExtraError: If no interpreter is installed.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | ModelFile,
        *,
        num_threads: int | None = None,
        delegate: Delegate | None = None,
        runtime: str | None = None,
    ) -> None:
        model = source if isinstance(source, ModelFile) else read_model_file(source)
        label = model.label
        if model.format != TFLITE:
            raise ModelFileError(f"{label}: {model.format}; LiteRT runs TFLite files")
        check_graph(model)
        self.metadata = model.metadata
        self.num_threads = check_threads(num_threads)
        self._label = label
        self._runtime = chosen = choose_runtime(TFLITE, runtime, label=label)
        module = import_runtime(chosen)
        delegates = [] if delegate is None else [load_delegate(module, delegate)]
        self.has_custom_op = False
        if self.metadata.merge_place == CUSTOM_OP:
            library = _native_delegate(module)
            self.has_custom_op = library is not None
            if library is None:
                model = cut_off(model)
            else:
                delegates.append(library)
        options = {"experimental_delegates": delegates} if delegates else {}
        self._interpreter = _make_interpreter(
            chosen,
            model,
            num_threads=self.num_threads,
            delegate=delegate,
            **options,
        )
        taken = _count_parts(self._interpreter) - self.has_custom_op
        _allocate(self._interpreter, chosen, label)
        has_xnnpack = _count_parts(self._interpreter) - self.has_custom_op > taken
        self.delegate_parts = taken
        self.report = _report(
            chosen, self.num_threads, delegate, has_xnnpack=has_xnnpack
        )
        inputs, outputs = self._find_inputs(label), self._find_outputs(label)
        self._input_indices = {name: d["index"] for name, d in inputs.items()}
        self._output_indices = {name: d["index"] for name, d in outputs.items()}
        super().__init__(
            self.metadata,
            {name: tensor_info(details) for name, details in inputs.items()},
            {name: tensor_info(details) for name, details in outputs.items()},
        )

    def _input(self, name: str) -> NDArray[Any]:
        view: NDArray[Any] = self._interpreter.tensor(self._input_indices[name])()[0]
        return view

    def _compute(self) -> None:
        try:
            self._interpreter.invoke()
        except RuntimeError as error:
            raise _refusal(self._runtime, self._label, error) from None

    def _output(self, name: str) -> NDArray[Any]:
        # The copy outlives the next run; a view of the buffer would not.
        view = self._interpreter.tensor(self._output_indices[name])()[0]
        copy: NDArray[Any] = view.copy()
        return copy

    def _find_inputs(self, label: str) -> dict[str, Mapping[str, Any]]:
        by_name = {d["name"]: d for d in self._interpreter.get_input_details()}
        found: dict[str, Mapping[str, Any]] = {}
        for name, spec in self.metadata.inputs.items():
            details = _details_of(by_name, f"inputs.{name}", spec, label)
            if np.dtype(details["dtype"]).name != spec.dtype:
                raise ModelFileError(
                    f"{label}: input {name} is {_describe(details)}; its metadata says "
                    f"{spec.dtype} {list(spec.shape)}; convert it again"
                )
            found[name] = details
        if len(by_name) != len(found):
            raise ModelFileError(
                f"{label}: the graph takes {sorted(by_name)}, its metadata describes "
                f"{len(found)} of these; convert it again"
            )
        return found

    def _find_outputs(self, label: str) -> dict[str, Mapping[str, Any]]:
        by_name = {d["name"]: d for d in self._interpreter.get_output_details()}
        found = {
            name: _details_of(by_name, f"outputs.{name}", spec, label)
            for name, spec in self.metadata.outputs.items()
        }
        if self.has_custom_op:
            found |= {
                spec.name: _details_of(by_name, spec.name, spec, label)
                for spec in op_outputs(self.metadata)
            }
        return found


def describe_graph(model: ModelFile) -> GraphInfo:
    """Lists ops and tensors as they are in the file, before any delegate.

    Raises:
        ModelFileError: If the interpreter refuses the graph.
    """
    check_graph(model)
    runtime = choose_runtime(TFLITE, label=model.label)
    has_custom_op = model.metadata.merge_place == CUSTOM_OP
    interpreter = _make_interpreter(
        runtime,
        cut_off(model) if has_custom_op else model,
        num_threads=1,
        experimental_op_resolver_type=_resolver_type(
            import_runtime(runtime)
        ).BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    _allocate(interpreter, runtime, model.label)
    counts = collections.Counter(
        operator["op_name"] for operator in interpreter._get_ops_details()
    )
    if has_custom_op:
        counts[OP_NAME] += 1
    return GraphInfo(
        op_counts=dict(counts.most_common()),
        num_tensors=len(interpreter.get_tensor_details()),
        inputs=tuple(map(tensor_info, interpreter.get_input_details())),
        outputs=tuple(map(tensor_info, interpreter.get_output_details())),
    )


def _resolver_type(runtime: ModuleType) -> Any:
    return (
        runtime.OpResolverType
        if hasattr(runtime, "OpResolverType")
        else runtime.experimental.OpResolverType
    )


def _native_delegate(runtime: ModuleType) -> Any | None:
    """Loads what brings the custom op, None where it cannot be had."""
    try:
        path = str(find_library())
        return load_delegate(runtime, Delegate(path, path))
    except DeepLabEdgeError as error:
        _say_once(str(error))
        return None


@functools.cache
def _say_once(reason: str) -> None:
    _log.warning(
        "the native library for %s cannot be used, so Python merges instead, with the "
        "same result: %s",
        OP_NAME,
        reason,
    )


def cut_off(model: ModelFile) -> ModelFile:
    """Gives the file without its custom op."""
    try:
        return dataclasses.replace(model, graph=without_custom_op(model.graph))
    except ModelFileError as error:
        raise ModelFileError(f"{model.label}: {error}") from None


def _make_interpreter(
    runtime: Runtime,
    model: ModelFile,
    *,
    delegate: Delegate | None = None,
    **options: Any,
) -> Any:
    module = import_runtime(runtime)
    try:
        # LiteRT announces its delegate, TensorFlow that its interpreter will move.
        with hidden_stderr(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return module.Interpreter(model_content=model.graph, **options)
    except (ValueError, RuntimeError) as error:
        if delegate is None:
            raise _refusal(runtime, model.label, error) from None
        raise UsageError(
            f"{model.label}: {delegate.label} cannot take this graph in "
            f"{runtime.name} ({_one_line(error)}); without it the CPU computes"
        ) from None


def _allocate(interpreter: Any, runtime: Runtime, label: str) -> None:
    """Makes an interpreter ready; only then does XNNPACK take its part."""
    try:
        with hidden_stderr():
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise _refusal(runtime, label, error) from None


def _refusal(runtime: Runtime, label: str, error: Exception) -> ModelFileError:
    reason = _one_line(error)
    hint = ""
    if EDGE_TPU_OP in reason:
        hint = (
            "; it is compiled for the Edge TPU: give its delegate, "
            "libedgetpu.so.1, or run the file it was compiled of"
        )
    return ModelFileError(
        f"{label}: {runtime.name} cannot run this graph ({reason}){hint}"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).replace(_RESTORED, "").split())[:300]


def _count_parts(interpreter: Any) -> int:
    """Counts the parts of the graph that delegates have taken."""
    ops = interpreter._get_ops_details()
    return sum(op["op_name"] == "DELEGATE" for op in ops)


def _report(
    runtime: Runtime, num_threads: int, delegate: Delegate | None, *, has_xnnpack: bool
) -> EngineReport:
    notes: tuple[str, ...] = ()
    if delegate is None and not has_xnnpack:
        notes = (
            f"XNNPACK takes nothing of this graph in {runtime.name}, so the slower "
            "kernels of the runtime compute",
        )
    name = XNNPACK if has_xnnpack else "builtin"
    return EngineReport(
        runtime.name,
        runtime_version(runtime),
        num_threads,
        delegate=name if delegate is None else delegate.name,
        library=None if delegate is None else delegate.library,
        notes=notes,
    )


def _details_of(
    by_name: Mapping[str, Any], field: str, spec: InputSpec | OutputSpec, label: str
) -> Mapping[str, Any]:
    """Finds a tensor of the graph and checks its shape."""
    if spec.name not in by_name:
        raise ModelFileError(
            f"{label}: {field} is {spec.name!r}, but the graph has {sorted(by_name)}; "
            "convert it again"
        )
    details: Mapping[str, Any] = by_name[spec.name]
    if tuple(details["shape"]) != (1, *spec.shape):
        raise ModelFileError(
            f"{label}: {field} is {_describe(details)}; its metadata says "
            f"{[1, *spec.shape]}; convert it again"
        )
    return details


def _describe(details: Mapping[str, Any]) -> str:
    return f"{np.dtype(details['dtype']).name} {[int(n) for n in details['shape']]}"
