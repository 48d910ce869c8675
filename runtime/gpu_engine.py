"""Runs a TFLite file on a GPU, with what ai-edge-litert has for that.

Its library for GPUs (WebGPU over Vulkan, Metal or Direct3D) is no delegate of the
interpreter: it belongs to another interface of LiteRT, compiled models.
"""

import atexit
import dataclasses
import functools
import importlib
import os
import re
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError
from deeplab2_edge.model_file import CUSTOM_OP, ModelFile
from deeplab2_edge.runtime.delegates import VULKAN_HINT, Delegate
from deeplab2_edge.runtime.engine import check_threads
from deeplab2_edge.runtime.engine_report import EngineReport
from deeplab2_edge.runtime.graph_engine import GraphEngine
from deeplab2_edge.runtime.interpreter import cut_off, describe_graph
from deeplab2_edge.runtime.runtimes import RUNTIMES, runtime_version
from deeplab2_edge.stderr import hidden_stderr, stderr_into

_RUNTIME = RUNTIMES[0]
_ADAPTER = re.compile(r"Selected adapter: (.+?), arch=.*adapterType=(.+)")


class GpuEngine(GraphEngine):
    """Runs the network of one model file on a GPU, and on the CPU what it does not do.

    A file whose merge is a custom op runs without the op: the host then merges.

    Args:
        model: A TFLite file that was read.
        delegate: Names LiteRT's library; its options are those of LiteRT's
            `GpuOptions`, such as `enforce_f32=true`.
        num_threads: Of what remains on the CPU; default: the usable cores, at most 4.

    Attributes:
        report: What computes; its notes name the GPU.
        delegate_parts: 1.

    Raises:
        ModelFileError: If the file is damaged or refused by the runtime.
        UsageError: If there is no GPU that can be used, or an option is unknown.
    """

    delegate_parts = 1

    def __init__(
        self, model: ModelFile, delegate: Delegate, *, num_threads: int | None = None
    ) -> None:
        num_threads = check_threads(num_threads)
        graph = describe_graph(model)  # judges it first
        if model.metadata.merge_place == CUSTOM_OP:
            model = cut_off(model)
        self._native, notes = _compile(model, delegate, num_threads)
        # What is left of it at the end says good-bye on stderr.
        weakref.finalize(self, _release, self._native)
        inputs = {tensor.name: tensor for tensor in graph.inputs}
        outputs = {tensor.name: tensor for tensor in graph.outputs}
        metadata = model.metadata
        super().__init__(
            metadata,
            {name: inputs[spec.name] for name, spec in metadata.inputs.items()},
            {name: outputs[spec.name] for name, spec in metadata.outputs.items()},
        )
        self._staged = {
            name: np.zeros(tensor.shape, tensor.dtype)
            for name, tensor in self._inputs.items()
        }
        self.report = EngineReport(
            _RUNTIME.name,
            runtime_version(_RUNTIME),
            num_threads,
            delegate=delegate.name,
            library=delegate.library,
            notes=notes,
        )

    def _input(self, name: str) -> NDArray[Any]:
        buffer: NDArray[Any] = self._staged[name][0]
        return buffer

    def _compute(self) -> None:
        native = self._native
        for name, staged in self._staged.items():
            native.by_tensor[self._inputs[name].name].write(staged)
        native.model.run_by_name(native.signature, native.inputs, native.outputs)

    def _output(self, name: str) -> NDArray[Any]:
        tensor = self._outputs[name]
        buffer = self._native.by_tensor[tensor.name]
        values = buffer.read(int(np.prod(tensor.shape)), np.dtype(tensor.dtype))
        output: NDArray[Any] = values.reshape(tensor.shape)[0]
        return output


@dataclasses.dataclass
class _Native:
    """Holds what lives on the GPU.

    Attributes:
        inputs: Buffers by their names in the signature.
        outputs: The same of outputs.
        by_tensor: All of them, by the names of their tensors.
    """

    model: Any
    signature: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    by_tensor: dict[str, Any]


def _compile(
    model: ModelFile, delegate: Delegate, num_threads: int
) -> tuple[_Native, tuple[str, ...]]:
    """Compiles a graph for the GPU; gives it with what is to be said of that."""
    try:
        compiled = importlib.import_module("ai_edge_litert.compiled_model")
        options = importlib.import_module("ai_edge_litert.options")
        accelerators = compiled.HardwareAccelerator
        given = _gpu_options(options.GpuOptions, delegate)
        chosen = options.Options(
            hardware_accelerators=accelerators.GPU | accelerators.CPU,
            cpu_options=options.CpuOptions(num_threads=num_threads),
            gpu_options=options.GpuOptions(**given),
        )
    except (ImportError, AttributeError, TypeError):
        raise UsageError(
            f"{delegate.label}: {_RUNTIME.name} {runtime_version(_RUNTIME)} has "
            "another interface for GPUs; use 2.3 or newer"
        ) from None
    with _said() as said:
        try:
            built = compiled.CompiledModel.from_buffer(model.graph, options=chosen)
        except RuntimeError:  # where in LiteRT's source, but not why
            raise UsageError(
                f"{model.label}: {delegate.label} finds no GPU that it can use; Linux "
                f"needs a Vulkan driver ({VULKAN_HINT}) and a user of the group "
                "render; without it the CPU computes"
            ) from None
        signature = next(iter(built.get_signature_list()))
        inputs = built.get_input_tensor_details(signature)
        outputs = built.get_output_tensor_details(signature)
        native = _Native(
            built,
            signature,
            {n: built.create_input_buffer_by_name(signature, n) for n in inputs},
            {n: built.create_output_buffer_by_name(signature, n) for n in outputs},
            {},
        )
        for details, buffers in ((inputs, native.inputs), (outputs, native.outputs)):
            native.by_tensor |= {details[n]["name"]: b for n, b in buffers.items()}
        # With the first one comes an environment of its own, which has much to say.
        for details in inputs.values():
            zeros = np.zeros(details["shape"], details["dtype"])
            native.by_tensor[details["name"]].write(zeros)
        _end_quietly()
    notes = []
    adapter = _ADAPTER.search("".join(said))
    if adapter is not None:
        notes.append(f"the GPU is {adapter[1]}")
        if adapter[2].startswith("CPU"):
            notes.append("it is played by the CPU, and slower than the CPU by itself")
    if not built.is_fully_accelerated():
        notes.append("the CPU computes what the GPU does not take of this graph")
    return native, tuple(notes)


def _gpu_options(kind: Any, delegate: Delegate) -> dict[str, bool]:
    known = [field.name for field in dataclasses.fields(kind)]
    values = {"true": True, "false": False}
    for name, value in delegate.options.items():
        if name not in known or value not in values:
            raise UsageError(
                f"{delegate.label}: option {name}={value}; known are "
                f"{', '.join(known)}, each true or false"
            )
    return {name: values[value] for name, value in delegate.options.items()}


@contextmanager
def _said() -> Iterator[list[str]]:
    """Keeps what libraries write to stdout and stderr, for when the block is left."""
    lines: list[str] = []
    with tempfile.TemporaryFile() as file:
        try:
            with stderr_into(file.fileno(), with_stdout=True):
                yield lines
        finally:
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines(keepends=True)


@functools.cache
def _end_quietly() -> None:
    """Hides the good-bye of that environment, which lives until the process ends."""
    atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2))


def _release(native: _Native) -> None:
    with hidden_stderr():
        native.inputs.clear()
        native.outputs.clear()
        native.by_tensor.clear()
        native.model = None
