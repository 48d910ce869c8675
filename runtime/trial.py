"""Tries a delegate in a process of its own before it may answer here.

A library built for another TFLite crashes instead of reporting, one without its device
may wait for ever; neither should take a camera's process with it.
"""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deeplab2_edge.errors import DeepLabEdgeError, UsageError
from deeplab2_edge.model_file import ModelFile
from deeplab2_edge.runtime.delegates import Delegate
from deeplab2_edge.wording import counted

SECONDS = 180  # GPUs compile their programs first

# What libraries print must not mix with the answer.
_CODE = (
    "import os, pickle, sys; reply = os.dup(1); os.dup2(2, 1); "
    "sys.path[:] = pickle.load(sys.stdin.buffer); "
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


@dataclass(frozen=True)
class _Task:
    model: ModelFile
    delegate: Delegate
    runtime: str
    num_threads: int
    inputs: Mapping[str, NDArray[Any]]


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
    task = _Task(model, delegate, runtime, num_threads, inputs)
    message = pickle.dumps(sys.path) + pickle.dumps(task)
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
    found = pickle.loads(done.stdout)
    if isinstance(found, DeepLabEdgeError):
        raise found
    assert isinstance(found, Trial)
    return found


def answer(descriptor: int) -> None:
    """Does what standard input says; in the process of the trial."""
    from deeplab2_edge.runtime.delegated import open_with

    task: _Task = pickle.load(sys.stdin.buffer)
    result: Trial | DeepLabEdgeError
    try:
        engine = open_with(
            task.model,
            task.delegate,
            num_threads=task.num_threads,
            runtime=task.runtime,
        )
        result = Trial(engine.run(task.inputs), engine.delegate_parts)
    except DeepLabEdgeError as error:
        result = error
    with os.fdopen(descriptor, "wb") as reply:
        pickle.dump(result, reply)


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
