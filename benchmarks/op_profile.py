"""Where the time of a network goes, op by op, by the profiler within LiteRT.

The wheel of ai-edge-litert holds a profiler that only C can call; this calls it. It
times what really runs: also the operators inside XNNPACK, which fuse and replace those
of the file.

References:
    LiteRT's C API, `libLiteRt.so` of ai-edge-litert 2.3.
"""

import ctypes
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ai_edge_litert

from deeplab2_edge.stderr import hidden_stderr

_CPU = 1
_OPERATOR, _DELEGATED = 2, 8  # kinds of events; the others are whole runs and hints
_TYPE_BYTES = 512  # more than a description of a tensor's type takes


@dataclass(frozen=True)
class TimedOp:
    """Is one operator of a network.

    Attributes:
        kind: As XNNPACK names it, for example `Convolution (NHWC, QC8) IGEMM`, or as
            TFLite does where XNNPACK does not take it.
        is_delegated: Whether XNNPACK runs it.
        ms: Median over the runs; whole microseconds.
    """

    kind: str
    is_delegated: bool
    ms: float


class _Event(ctypes.Structure):
    _fields_ = (
        ("tag", ctypes.c_char_p),
        ("kind", ctypes.c_int32),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", ctypes.c_int64 * 6),
        ("index", ctypes.c_uint64),
        ("subgraph", ctypes.c_uint64),
        ("source", ctypes.c_int32),
    )


def profile_ops(path: Path, *, threads: int, runs: int = 30) -> list[TimedOp]:
    """Runs a TFLite file and times each of its operators.

    Args:
        path: The file; its inputs are zeros.
        threads: Of XNNPACK.
        runs: After a warm-up of five.

    Returns:
        In the order in which they run.

    Raises:
        RuntimeError: If a call fails, or runs differ in what they ran.
    """
    # A record of another size would read beside the events, and corrupt memory.
    assert ctypes.sizeof(_Event) == 104
    with hidden_stderr():  # it lists the accelerators that are not there
        profiler = _Profiler(path, threads)
        profiler.run(5)
        rounds = [profiler.events() for _ in range(runs)]
    names = [(tag, kind) for tag, kind, _ in rounds[0]]
    if any([(tag, kind) for tag, kind, _ in events] != names for events in rounds):
        raise RuntimeError(f"{path}: two runs had different operators")
    return [
        TimedOp(
            tag.removeprefix("Delegate/"),
            kind == _DELEGATED,
            statistics.median(events[place][2] for events in rounds) / 1000,
        )
        for place, (tag, kind) in enumerate(names)
    ]


class _Profiler:
    def __init__(self, path: Path, threads: int) -> None:
        folder = Path(ai_edge_litert.__file__).parent
        self._library = ctypes.CDLL(str(folder / "libLiteRt.so"))
        environment, model, options = (ctypes.c_void_p() for _ in range(3))
        self._compiled, self._profiler = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("LiteRtCreateEnvironment", 0, None, ctypes.byref(environment))
        name = str(path).encode()
        self._call("LiteRtCreateModelFromFile", environment, name, ctypes.byref(model))
        self._call("LiteRtCreateOptions", ctypes.byref(options))
        self._call("LiteRtSetOptionsHardwareAccelerators", options, _CPU)
        self._set(options, "runtime_options_string", "enable_profiling = true")
        self._set(options, "xnnpack", f"num_threads = {threads}")
        self._call(
            "LiteRtCreateCompiledModel",
            environment,
            model,
            options,
            ctypes.byref(self._compiled),
        )
        self._call(
            "LiteRtCompiledModelGetProfiler",
            self._compiled,
            ctypes.byref(self._profiler),
        )
        signature = ctypes.c_void_p()
        self._call(
            "LiteRtGetModelSignature",
            model,
            ctypes.c_size_t(0),
            ctypes.byref(signature),
        )
        self._inputs, self._outputs = (
            (ctypes.c_void_p * len(row))(*row)
            for row in (
                list(self._buffers(environment, signature, "Input")),
                list(self._buffers(environment, signature, "Output")),
            )
        )

    def run(self, times: int) -> None:
        for _ in range(times):
            self._call(
                "LiteRtRunCompiledModel",
                self._compiled,
                ctypes.c_size_t(0),
                ctypes.c_size_t(len(self._inputs)),
                self._inputs,
                ctypes.c_size_t(len(self._outputs)),
                self._outputs,
            )

    def events(self) -> list[tuple[str, int, int]]:
        """Runs once; gives tag, kind and microseconds of each operator."""
        self._call("LiteRtResetProfiler", self._profiler)
        self._call("LiteRtStartProfiler", self._profiler)
        self.run(1)
        self._call("LiteRtStopProfiler", self._profiler)
        count = ctypes.c_int()
        self._call("LiteRtGetNumProfilerEvents", self._profiler, ctypes.byref(count))
        events = (_Event * count.value)()
        self._call("LiteRtGetProfilerEvents", self._profiler, count, events)
        return [
            (event.tag.decode(), event.kind, event.elapsed_us)
            for event in events
            if event.kind in (_OPERATOR, _DELEGATED)
        ]

    def _buffers(
        self, environment: ctypes.c_void_p, signature: ctypes.c_void_p, kind: str
    ) -> Iterator[int | None]:
        count = ctypes.c_size_t()
        self._call(f"LiteRtGetNumSignature{kind}s", signature, ctypes.byref(count))
        for index in map(ctypes.c_size_t, range(count.value)):
            tensor, needs, buffer = (ctypes.c_void_p() for _ in range(3))
            tensor_type = (ctypes.c_char * _TYPE_BYTES)()
            self._call(
                f"LiteRtGetSignature{kind}TensorByIndex",
                signature,
                index,
                ctypes.byref(tensor),
            )
            self._call("LiteRtGetRankedTensorType", tensor, tensor_type)
            self._call(
                f"LiteRtGetCompiledModel{kind}BufferRequirements",
                self._compiled,
                ctypes.c_size_t(0),
                index,
                ctypes.byref(needs),
            )
            self._call(
                "LiteRtCreateManagedTensorBufferFromRequirements",
                environment,
                tensor_type,
                needs,
                ctypes.byref(buffer),
            )
            yield buffer.value

    def _set(self, options: ctypes.c_void_p, name: str, text: str) -> None:
        """Adds options in TOML, whose memory the library frees."""
        libc = ctypes.CDLL(None)
        libc.strdup.restype = ctypes.c_void_p
        opaque = ctypes.c_void_p()
        self._call(
            "LiteRtCreateOpaqueOptions",
            name.encode(),
            ctypes.c_void_p(libc.strdup(text.encode())),
            ctypes.cast(libc.free, ctypes.c_void_p),
            ctypes.byref(opaque),
        )
        self._call("LiteRtAddOpaqueOptions", options, opaque)

    def _call(self, name: str, *arguments: Any) -> None:
        function = getattr(self._library, name)
        function.restype = ctypes.c_int
        if code := function(*arguments):
            raise RuntimeError(f"{name} failed with {code}")


def total_ms(ops: Sequence[TimedOp]) -> float:
    """Adds up the operators."""
    return sum(op.ms for op in ops)
