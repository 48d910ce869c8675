"""Runs a model file that nobody vouches for in a process of its own.

Whatever a runtime does with such a file, crash, hang or take all memory, it does it
there, and here one error says so.
"""

import dataclasses
import math
import os
import signal
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import DeepLabEdgeError, ModelFileError, UsageError
from deeplab2_edge.model_file import ModelFile, check_graph, read_model_file
from deeplab2_edge.runtime.comparison import (
    check_finite,
    compare_outputs,
    sample_inputs,
)
from deeplab2_edge.runtime.engine import check_threads, with_plateaus
from deeplab2_edge.runtime.engine_report import EngineReport
from deeplab2_edge.runtime.heads import RawHead
from deeplab2_edge.runtime.messages import (
    Document,
    describe_model,
    printable,
    read_error,
    room_for_heads,
)
from deeplab2_edge.runtime.preprocess import PlacedImage
from deeplab2_edge.runtime.sandbox_channel import Channel, ChannelClosed, ChannelLate
from deeplab2_edge.runtime.sandbox_process import (
    GRACE_SECONDS,
    end_worker,
    start_worker,
)

_MOST_MEMORY = 4 << 30  # by default, where the machine has more


@dataclasses.dataclass(frozen=True)
class SandboxLimits:
    """Bounds what a worker may take.

    Attributes:
        memory_bytes: On top of what the runtime takes without a model; default: three
            quarters of this machine's memory, at most 4 GiB.
        load_seconds: Until the model can run, with the start of the process.
        run_seconds: For one run.

    Raises:
        UsageError: If one is not positive.
    """

    memory_bytes: int | None = None
    load_seconds: float = 120.0
    run_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{name} is {value}; it must be positive")


class SandboxEngine:
    """Runs the network of one model file in another process.

    It gives what the engine of the file gives, see `engine.open_engine`. The file is
    checked first, and its self test must pass in the worker. An engine whose worker
    has ended stays without; every further call says why.

    Calls from several threads are safe but wait for each other. `close` ends the
    worker, and so does the end of this object or process.

    Args:
        source: A path, or a file already read with `read_model_file`.
        num_threads: Of the engine; default: the usable cores, at most 4.
        delegate: See `engine.open_engine`.
        delegate_options: See `engine.open_engine`.
        runtime: See `engine.open_engine`.
        limits: Of memory and time.

    Attributes:
        report: What computes, see `engine_report.EngineReport`.
        is_confined: Whether the worker can neither read files that are not part of the
            system or of Python, nor change any, nor connect to anything. Kernels of
            Linux since 5.13 can do that, see `landlock`; with a delegate that opens a
            device it is not done.

    Raises:
        ModelFileError: If the file is not ours, damaged, refused by the runtime, fails
            its self test, or the worker crashed or went beyond its limits.
        UsageError: If an argument cannot be used, or there are no limits of processes
            on this system.
        MissingExtraError: If the runtime is not installed.

    Example:
        >>> with SandboxEngine("model.tflite") as engine:  # doctest: +SKIP
        ...     heads = engine.run({"image": canvas})
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | ModelFile,
        *,
        num_threads: int | None = None,
        delegate: str | None = None,
        delegate_options: Mapping[str, str] | None = None,
        runtime: str | None = None,
        limits: SandboxLimits | None = None,
    ) -> None:
        if sys.platform == "win32":
            raise UsageError("Windows has no limits for processes: no sandbox there")
        model = source if isinstance(source, ModelFile) else read_model_file(source)
        check_graph(model)
        self.metadata = model.metadata
        self.num_threads = check_threads(num_threads)
        self.limits = _filled(limits or SandboxLimits())
        self._label = model.label
        self._lock = threading.RLock()  # an answer that is broken off closes
        self._ended: ModelFileError | None = None
        self._process, connection = start_worker()
        self._stop = weakref.finalize(self, end_worker, self._process, connection)
        self._channel = Channel(connection)
        try:
            loaded = self._load(model, delegate, delegate_options, runtime)
            self.is_integer = bool(loaded["is_integer"])
            self.is_confined = bool(loaded["is_confined"])
            self.report = _report(loaded["report"], self._label)
            self.metadata = with_plateaus(self.metadata, is_integer=self.is_integer)
            self._check_self_test(model)
        except BaseException:
            self.close()
            raise

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the network; see `engine.Engine`.

        Raises:
            ModelFileError: If the worker crashed or went beyond its limits.
        """
        return {name: head.real() for name, head in self.run_raw(inputs).items()}

    def run_raw(
        self, inputs: Mapping[str, NDArray[Any] | PlacedImage]
    ) -> dict[str, RawHead]:
        """Runs the network; see `engine.RawEngine`."""
        self.metadata.check_inputs(inputs)
        arrays = [
            values.pixels()
            if isinstance(values, PlacedImage)
            else np.ascontiguousarray(values)
            for values in inputs.values()
        ]
        task = {"names": list(inputs), "sizes": [array.nbytes for array in arrays]}
        heads: list[RawHead] = []

        def place(document: Document, size: int) -> Sequence[NDArray[Any]]:
            found = {}
            if "error" not in document:
                try:
                    found = room_for_heads(self.metadata, document.get("heads"))
                except ValueError:
                    raise ChannelClosed from None
            if sum(head.values.nbytes for head in found.values()) != size:
                raise ChannelClosed
            heads[:] = found.values()
            return [head.values for head in heads]

        reply = self._ask(task, arrays, place, "running it", self.limits.run_seconds)
        names = [entry["name"] for entry in reply["heads"]]
        return dict(zip(names, heads, strict=True))

    def close(self) -> None:
        """Ends the worker."""
        with self._lock:
            if self._ended is None:
                self._ended = ModelFileError(f"{self._label}: its engine was closed")
            self._stop()

    def __enter__(self) -> "SandboxEngine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _load(
        self,
        model: ModelFile,
        delegate: str | None,
        delegate_options: Mapping[str, str] | None,
        runtime: str | None,
    ) -> Document:
        described, parts = describe_model(model)
        task = {
            "model": described,
            "threads": self.num_threads,
            "delegate": delegate,
            "delegate_options": None
            if delegate_options is None
            else dict(delegate_options),
            "runtime": runtime,
            "memory": self.limits.memory_bytes,
            "sizes": [len(part) for part in parts],
        }
        return self._ask(task, parts, _nothing, "loading it", self.limits.load_seconds)

    def _ask(
        self,
        task: Document,
        parts: Sequence[Any],
        place: Any,
        doing: str,
        seconds: float,
    ) -> Document:
        """Sends a task and waits for the answer, or says what became of the worker."""
        with self._lock:
            if self._ended is not None:
                raise self._ended
            try:
                patience = seconds + GRACE_SECONDS
                self._channel.send({**task, "seconds": seconds}, parts, patience)
                reply = self._channel.receive(place, patience)
            except (ChannelClosed, ChannelLate) as error:
                is_late = isinstance(error, ChannelLate)
                raise self._lost(doing, seconds, is_late=is_late) from None
            except BaseException:  # an answer half read would be taken for the next
                self.close()
                raise
        if "error" in reply:
            raise self._error(reply, doing)
        return reply

    def _lost(self, doing: str, seconds: float, *, is_late: bool) -> ModelFileError:
        code = self._stop()
        assert code is not None  # the first call
        memory = f"{(self.limits.memory_bytes or 0) / (1 << 20):.0f} MiB"
        if is_late or code == -signal.SIGALRM:
            what = f"took longer than {seconds:g} s"
        elif code == -signal.SIGKILL:
            what = "was killed, probably for want of memory on this machine"
        elif code < 0:
            what = f"crashed ({signal.Signals(-code).name}) with {memory} to use"
        else:
            what = "ended without an answer"
        self._ended = ModelFileError(
            f"{self._label}: the runtime {what} while {doing} in the sandbox; the file "
            "is damaged or made to do harm, or needs higher SandboxLimits"
        )
        return self._ended

    def _error(self, reply: Document, doing: str) -> DeepLabEdgeError:
        if reply["error"] == "MemoryError":
            memory = (self.limits.memory_bytes or 0) / (1 << 20)
            return ModelFileError(
                f"{self._label}: takes more than {memory:.0f} MiB while {doing} in the "
                "sandbox; raise SandboxLimits.memory_bytes if you trust the file"
            )
        return read_error(reply, self._label)

    def _check_self_test(self, model: ModelFile) -> None:
        found = self.run(sample_inputs(model))
        golden = model.golden
        measurements = (
            check_finite(found)
            if golden is None
            else compare_outputs(
                model.metadata,
                golden.heads,
                found,
                has_delegate=self.report.library is not None,
            )
        )
        wrong = [measurement for measurement in measurements if not measurement.is_kept]
        if wrong:
            raise ModelFileError(
                f"{self._label}: fails its self test ({wrong[0]}); it was changed or "
                "this machine computes something else; convert it again"
            )


def _filled(limits: SandboxLimits) -> SandboxLimits:
    if limits.memory_bytes is not None:
        return limits
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return dataclasses.replace(limits, memory_bytes=min(memory * 3 // 4, _MOST_MEMORY))


def _nothing(_: Document, size: int) -> Sequence[Any]:
    if size:
        raise ChannelClosed
    return ()


def _report(document: Any, label: str) -> EngineReport:
    try:
        library, reason = document["library"], document["fallback_reason"]
        return EngineReport(
            runtime=printable(document["runtime"]),
            version=printable(document["version"]),
            delegate=printable(document["delegate"]),
            library=None if library is None else printable(library),
            fallback_reason=None if reason is None else printable(reason),
            threads=int(document["threads"]),
            notes=tuple(map(printable, document["notes"])),
            differences={
                printable(name): math.inf if share is None else float(share)
                for name, share in document["differences"].items()
            },
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ModelFileError(
            f"{label}: the sandboxed runtime says nothing of itself"
        ) from None
