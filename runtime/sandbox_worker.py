"""The process in which a sandboxed model runs.

It has no more memory, time, files and privileges than it needs. It ends when the
process that started it is gone: its input then ends, and while it computes an alarm
is set that nothing catches.
"""

import contextlib
import ctypes
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from deeplab2_edge.errors import DeepLabEdgeError
from deeplab2_edge.model_file import CUSTOM_OP, ONNX, ModelFile
from deeplab2_edge.runtime.engine import RawEngine, open_engine
from deeplab2_edge.runtime.engine_report import report_of
from deeplab2_edge.runtime.heads import RawHead
from deeplab2_edge.runtime.landlock import confine, folders_of_modules
from deeplab2_edge.runtime.messages import (
    Document,
    describe_error,
    describe_heads,
    read_inputs,
    read_model,
)
from deeplab2_edge.runtime.native.build import find_library
from deeplab2_edge.runtime.runtimes import choose_runtime, import_runtime
from deeplab2_edge.runtime.sandbox_channel import Channel, ChannelClosed
from deeplab2_edge.tflite_file.rules import EDGE_TPU_OP

_MAX_OPEN_FILES = 64
_THREAD_BYTES = 144 << 20  # a stack, and the range that malloc reserves for a thread
_NO_NEW_PRIVILEGES, _DUMPABLE = 38, 4  # of prctl
_WITHOUT_DEVICE = (None, "none", "cpu", "xnnpack")  # delegates


def main() -> None:
    """Serves one engine until the input ends."""
    channel = Channel(socket.socket(fileno=os.dup(0)))
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    with contextlib.suppress(ChannelClosed):
        _serve(channel)


def _serve(channel: Channel) -> None:
    parts: list[bytearray] = []

    def take(document: Document, size: int) -> list[bytearray]:
        sizes = document["sizes"]
        if sum(sizes) != size:
            raise ChannelClosed
        parts[:] = [bytearray(size) for size in sizes]
        return parts

    task = channel.receive(take)
    text, graph = (bytes(part) for part in parts)
    parts.clear()
    engine = None
    with _alarm(task["seconds"]), _replying(channel):
        model = read_model(task["model"], text, graph)
        has_device = (
            task["delegate"] not in _WITHOUT_DEVICE or EDGE_TPU_OP.encode() in graph
        )
        is_confined = _prepare(task, model, has_device=has_device)
        engine = open_engine(
            model,
            num_threads=task["threads"],
            delegate=task["delegate"],
            delegate_options=task["delegate_options"],
            runtime=task["runtime"],
        )
        report = report_of(engine)
        assert report is not None  # engines of files have one
        channel.send(
            {
                "is_integer": engine.is_integer,
                "is_confined": is_confined,
                "report": report.to_dict(),
            }
        )
    if engine is None:
        return
    del graph, model
    while True:
        task = channel.receive(take)
        inputs = read_inputs(engine.metadata, task["names"], parts)
        with _alarm(task["seconds"]), _replying(channel):
            heads = (
                engine.run_raw(inputs)
                if isinstance(engine, RawEngine)
                else {n: RawHead(values) for n, values in engine.run(inputs).items()}
            )
            described, values = describe_heads(heads)
            channel.send({"heads": described}, values)


def _prepare(task: Document, model: ModelFile, *, has_device: bool) -> bool:
    """Loads what is needed of this machine, then shuts the door.

    Returns:
        Whether files and connections are out of reach. They are not where a device
        must be opened.
    """
    folders = []
    if model.format == ONNX:
        import onnxruntime  # noqa: F401
    else:
        import_runtime(choose_runtime(model.format, task["runtime"]))
    if model.metadata.merge_place == CUSTOM_OP:
        with contextlib.suppress(DeepLabEdgeError):
            folders.append(str(find_library()))  # may have to build it
    folders += folders_of_modules()
    _limit_memory(task["memory"], task["threads"])
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NOFILE, _MAX_OPEN_FILES)
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        library.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        library.prctl(_DUMPABLE, 0, 0, 0, 0)
    return not has_device and confine(folders)


def _limit_memory(num_bytes: int, num_threads: int) -> None:
    """Allows so much more than what the runtime took without a model."""
    taken = {"VmSize": 0, "VmData": 0}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in taken:
                taken[name] = int(value.split()[0]) << 10
    if not taken["VmSize"]:
        return  # no Linux: what is taken is unknown, and limits are not kept
    ranges = taken["VmSize"] + num_bytes + (num_threads + 2) * _THREAD_BYTES
    _limit(resource.RLIMIT_DATA, taken["VmData"] + num_bytes)
    _limit(resource.RLIMIT_AS, ranges)


def _limit(kind: int, most: int) -> None:
    """Sets a limit, or leaves one that is stricter."""
    _, highest = resource.getrlimit(kind)
    if highest != resource.RLIM_INFINITY:
        most = min(most, highest)
    most = min(most, sys.maxsize)  # of 32-bit systems: half of what can be addressed
    resource.setrlimit(kind, (most, most))


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Ends this process if something takes longer, whatever it is doing then."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextlib.contextmanager
def _replying(channel: Channel) -> Iterator[None]:
    """Sends an error instead of an answer."""
    try:
        yield
    except ChannelClosed:
        raise
    except DeepLabEdgeError as error:
        channel.send(describe_error(error))
    except MemoryError:
        channel.send({"error": "MemoryError", "message": ""})
    except Exception as error:  # runtimes raise whatever they like
        message = f"{type(error).__name__}: {error}"
        channel.send({"error": "ModelFileError", "message": message})


if __name__ == "__main__":
    main()
