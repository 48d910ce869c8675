"""Runs an ONNX file with ONNX Runtime.

This is the only file that imports ONNX Runtime for inference. Files are judged before
it sees them: no constants in other files, no ops of other makers, no loops.
"""

import os
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.errors import ModelFileError
from deeplab2_edge.model_file import (
    ONNX,
    InputSpec,
    ModelFile,
    OutputSpec,
    check_graph,
    read_model_file,
)
from deeplab2_edge.onnx_file import summarize
from deeplab2_edge.optional import require
from deeplab2_edge.runtime.delegates import CPU
from deeplab2_edge.runtime.engine import check_threads, with_plateaus
from deeplab2_edge.runtime.engine_report import EngineReport
from deeplab2_edge.runtime.tensors import GraphInfo, TensorInfo
from deeplab2_edge.stderr import hidden_stderr

_PROVIDERS = ("CPUExecutionProvider",)
_OLDEST = "1.12"  # the first that has operator set 17
_FATAL_ONLY = 4  # of the levels of ONNX Runtime's log; errors it also raises
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
}


class OnnxEngine:
    """Runs the network of one model file.

    Calls from several threads are safe but wait for each other, so that together they
    never use more than `num_threads`.

    Args:
        source: A path, or a file already read with `read_model_file`.
        num_threads: Of ONNX Runtime; default: the usable cores, at most 4.

    Attributes:
        report: What computes.

    Raises:
        ModelFileError: If the file is not ours, damaged, reaches outside itself, is
            refused by ONNX Runtime or not what its metadata says.
        UsageError: If `num_threads` cannot be used.
        MissingExtraError: If ONNX Runtime is not installed.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | ModelFile,
        *,
        num_threads: int | None = None,
    ) -> None:
        model = source if isinstance(source, ModelFile) else read_model_file(source)
        label = model.label
        if model.format != ONNX:
            raise ModelFileError(
                f"{label}: {model.format}; ONNX Runtime runs ONNX files"
            )
        self.num_threads = check_threads(num_threads)
        check_graph(model)
        summary = summarize(model.graph)
        self._label = label  # not the file: its self test need not stay in memory
        self._lock = threading.Lock()
        self._session = _make_session(model.graph, label, self.num_threads)
        self.report = EngineReport(
            "onnxruntime",
            require("onnxruntime", extra="onnx").__version__,
            self.num_threads,
            delegate=CPU,
        )
        self._inputs = _match(
            self._session.get_inputs(), model.metadata.inputs, "inputs", label
        )
        self._outputs = _match(
            self._session.get_outputs(), model.metadata.outputs, "outputs", label
        )
        heatmap = self._outputs.get(keys.CENTER_HEATMAP)
        self._is_integer = heatmap in summary.integer_outputs
        self.metadata = with_plateaus(model.metadata, is_integer=self._is_integer)

    @property
    def is_integer(self) -> bool:
        """Whether the center heatmap was integers before it left the network.

        ONNX files give it dequantized, and its peaks are flat nevertheless.
        """
        return self._is_integer

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the network; see `engine.Engine`."""
        self.metadata.check_inputs(inputs)
        feeds = {
            self._inputs[name]: value[np.newaxis] for name, value in inputs.items()
        }
        with self._lock:
            try:
                found = self._session.run(list(self._outputs.values()), feeds)
            except Exception as error:  # as in _make_session
                raise _refusal(self._label, error) from None
        return {
            name: _without_batch(value)
            for name, value in zip(self._outputs, found, strict=True)
        }


def describe_graph(model: ModelFile) -> GraphInfo:
    """Lists ops and tensors as they are in the file, before any optimization.

    Raises:
        ModelFileError: If ONNX Runtime refuses the graph.
        MissingExtraError: If ONNX Runtime is not installed.
    """
    summary = summarize(model.graph)
    session = _make_session(model.graph, model.label, num_threads=1)
    return GraphInfo(
        op_counts=summary.op_counts,
        num_tensors=summary.num_tensors,
        inputs=tuple(map(_tensor_info, session.get_inputs())),
        outputs=tuple(map(_tensor_info, session.get_outputs())),
    )


def _tensor_info(tensor: Any) -> TensorInfo:
    return TensorInfo(
        name=tensor.name,
        shape=tuple(tensor.shape),
        dtype=_DTYPES.get(tensor.type, tensor.type),
        scale=0.0,
        zero_point=0,
    )


def _without_batch(value: NDArray[Any]) -> NDArray[Any]:
    kind = np.int32 if np.issubdtype(value.dtype, np.integer) else np.float32
    return np.asarray(value[0], kind)


def _make_session(graph: bytes, label: str, num_threads: int) -> Any:
    ort = require("onnxruntime", extra="onnx")
    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    # Its other format is recognized by bytes, and was not judged.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        with hidden_stderr():  # what it refuses, it also logs
            return ort.InferenceSession(graph, options, providers=list(_PROVIDERS))
    except Exception as error:  # a dozen exceptions without a common ancestor
        raise _refusal(label, error) from None


def _refusal(label: str, error: Exception) -> ModelFileError:
    version = require("onnxruntime", extra="onnx").__version__
    reason = " ".join(str(error).split())[:300]
    return ModelFileError(
        f"{label}: ONNX Runtime {version} cannot run this graph ({reason}); files of "
        f"deeplab2-edge run in ONNX Runtime {_OLDEST} and newer"
    )


def _match(
    tensors: list[Any],
    specs: Mapping[str, InputSpec] | Mapping[str, OutputSpec],
    field: str,
    label: str,
) -> dict[str, str]:
    """Checks tensors of the graph against the metadata; returns their names."""
    by_name = {tensor.name: tensor for tensor in tensors}
    for name, spec in specs.items():
        if spec.name not in by_name:
            raise ModelFileError(
                f"{label}: {field}.{name} is {spec.name!r}, but the graph has "
                f"{sorted(by_name)}; convert it again"
            )
        tensor = by_name[spec.name]
        dtype = _DTYPES.get(tensor.type, tensor.type)
        wanted = spec.dtype if isinstance(spec, InputSpec) else dtype
        if list(tensor.shape) != [1, *spec.shape] or dtype != wanted:
            raise ModelFileError(
                f"{label}: {field}.{name} is {dtype} {tensor.shape}; its metadata says "
                f"{wanted} {[1, *spec.shape]}; convert it again"
            )
    if field == "inputs" and len(by_name) != len(specs):
        raise ModelFileError(
            f"{label}: the graph takes {sorted(by_name)}, its metadata describes "
            f"{len(specs)} of these; convert it again"
        )
    return {name: spec.name for name, spec in specs.items()}
