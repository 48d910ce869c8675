"""Tries a delegate in a process of its own before it may answer here.

A library built for another TFLite crashes instead of reporting, one without its device
may wait for ever; neither should take a camera's process with it.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import DeepLabEdgeError, UsageError
from deeplab2_edge.model_file import ModelFile
from deeplab2_edge.runtime.delegates import Delegate
from deeplab2_edge.runtime.heads import RawHead
from deeplab2_edge.runtime.messages import (
    Document,
    describe_error,
    describe_heads,
    describe_model,
    read_error,
    read_inputs,
    read_model,
    room_for_heads,
)
from deeplab2_edge.wording import counted

SECONDS = 180  # GPUs compile their programs first

# What libraries print must not mix with the answer.
_CODE = (
    "import json, os, sys; reply = os.dup(1); os.dup2(2, 1); "
    "sys.path[:] = json.loads(sys.stdin.buffer.readline()); "
    "from deeplab2_edge.runtime.trial import answer; answer(reply)"
)


@dataclass(frozen=True)
class Trial:
    """Holds what a delegate computed.

    Attributes:
        outputs: As `Engine.run` gives them.
        delegate_parts: Into how many parts of the graph the delegate went; 0 if it
            took nothing.
    """

    outputs: Mapping[str, NDArray[Any]]
    delegate_parts: int


def try_delegate(
    model: ModelFile,
    delegate: Delegate,
    *,
    runtime: str,
    num_threads: int,
    inputs: Mapping[str, NDArray[Any]],
) -> Trial:
    """Runs a model once with a delegate, in another process.

    Raises:
        UsageError: If the delegate cannot be used, crashes or never answers.
        ModelFileError: If the file cannot be run.
    """
    described, parts = describe_model(model)
    task = {
        "model": described,
        "delegate": asdict(delegate),
        "runtime": runtime,
        "threads": num_threads,
        "inputs": list(inputs),
    }
    arrays = [np.ascontiguousarray(values) for values in inputs.values()]
    message = json.dumps(sys.path).encode() + b"\n" + _pack(task, [*parts, *arrays])
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CODE],
            input=message,
            capture_output=True,
            timeout=SECONDS,
        )
    except OSError as error:  # an emulator without binfmt, a system that forbids it
        raise UsageError(
            f"{delegate.label} cannot be tried: no other Python can be started "
            f"({error.strerror}); without a delegate the CPU computes"
        ) from None
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"{delegate.label} gave no answer within {counted(SECONDS, 'second')}; is "
            "its device ready? Without a delegate the CPU computes"
        ) from None
    if done.returncode:
        raise UsageError(
            f"{delegate.label} ended its process with {_ending(done.returncode)}"
            f"{_last_line(done.stderr)}; it is damaged, or was built for another "
            f"TFLite than {runtime}"
        )
    try:
        found = _read_answer(done.stdout, model)
    except ValueError as error:
        raise UsageError(
            f"{delegate.label} disturbs its process, whose answer is damaged "
            f"({error}); without a delegate the CPU computes"
        ) from None
    if isinstance(found, DeepLabEdgeError):
        raise found
    return found


def answer(descriptor: int) -> None:
    """Does what standard input says; in the process of the trial."""
    from deeplab2_edge.runtime.delegated import open_with

    task, (metadata, graph, *arrays) = _unpack(sys.stdin.buffer.read())
    model = read_model(task["model"], bytes(metadata), bytes(graph))
    inputs = read_inputs(model.metadata, task["inputs"], arrays)
    document: Document
    values: Sequence[NDArray[Any]] = ()
    try:
        engine = open_with(
            model,
            Delegate(**task["delegate"]),
            num_threads=task["threads"],
            runtime=task["runtime"],
        )
        found = engine.run(inputs)
        heads, values = describe_heads({n: RawHead(v) for n, v in found.items()})
        document = {"heads": heads, "delegate_parts": engine.delegate_parts}
    except DeepLabEdgeError as error:
        document = describe_error(error)
    with os.fdopen(descriptor, "wb") as reply:
        reply.write(_pack(document, values))


def _read_answer(data: bytes, model: ModelFile) -> Trial | DeepLabEdgeError:
    """Reads what the process of a trial says.

    Raises:
        ValueError: If it is none of the answers there can be.
    """
    document, parts = _unpack(data)
    if "error" in document:
        return read_error(document, model.label)
    heads = room_for_heads(model.metadata, document.get("heads"))
    delegate_parts = document.get("delegate_parts")
    if not isinstance(delegate_parts, int):
        raise ValueError(f"delegate_parts is {delegate_parts!r}")
    for part, head in zip(parts, heads.values(), strict=True):
        flat = np.frombuffer(part, head.values.dtype)
        head.values[...] = flat.reshape(head.values.shape)
    return Trial({name: head.real() for name, head in heads.items()}, delegate_parts)


def _pack(document: Document, parts: Sequence[Any]) -> bytes:
    """Makes a line of JSON with bytes behind it."""
    views = [memoryview(part).cast("B") for part in parts]
    text = json.dumps({**document, "sizes": [len(view) for view in views]})
    return b"".join([text.encode(), b"\n", *views])


def _unpack(data: bytes) -> tuple[Document, list[memoryview]]:
    """Reads what `_pack` gave; ValueError if it is something else."""
    end = data.find(b"\n") + 1
    try:
        document = json.loads(data[:end])
        sizes = [int(size) for size in document["sizes"]]
    except (KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"it does not begin with a document: {error!r}") from None
    if min(sizes, default=0) < 0 or sum(sizes) != len(data) - end:
        raise ValueError(f"it has {len(data) - end} bytes instead of {sum(sizes)}")
    parts, view = [], memoryview(data)
    for size in sizes:
        parts.append(view[end : end + size])
        end += size
    return document, parts


def _ending(code: int) -> str:
    if code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}"


def _last_line(stderr: bytes) -> str:
    lines = stderr.decode(errors="replace").strip().splitlines()
    return f" ({lines[-1].strip()[:200]})" if lines else ""
