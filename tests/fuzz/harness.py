"""Runs damaged files in processes that may crash or hang, and counts what happens."""

import json
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from deeplab2_edge.model_file import ModelFile, read_model_file
from tests.fuzz.mutations import (
    damaged,
    damaged_image,
    resealed,
    with_other_metadata,
)

SECONDS = 60.0  # a file takes some milliseconds, the first one a start; more is a hang
DAMAGED, RESEALED, METADATA, IMAGE = "damaged", "resealed", "metadata", "image"
KINDS = (DAMAGED, RESEALED, METADATA)  # of model files
CRASH, HANG = "crash", "hang"


@dataclass(frozen=True)
class Case:
    """Is one damaged file.

    Attributes:
        source: Of which it was made.
        kind: One of `KINDS`, or `IMAGE`.
        number: From which it was drawn, with the seed.
        damage: What was done.
        content: All of it.
    """

    source: Path
    kind: str
    number: int
    damage: str
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Outcome:
    """Is what came of a file.

    Attributes:
        case: The file.
        name: `refused`, `same`, `different`, `foreign`, `crash` or `hang`.
        message: Of the error, or the name of a signal.
        passed: Of a file that ran: whether its self test passed.
        is_finite: Of a file that ran: whether its answer holds numbers alone.
    """

    case: Case
    name: str
    message: str = ""
    passed: bool | None = None
    is_finite: bool = True


def make_cases(
    sources: Iterable[Path], kind: str, numbers: Iterable[int], *, seed: int
) -> Iterator[Case]:
    """Damages the files in turn; equal arguments give equal cases."""
    files = [
        (path, path.read_bytes(), None if kind == IMAGE else read_model_file(path))
        for path in sources
    ]
    for number in numbers:
        path, content, model = files[number % len(files)]
        draw = Random(f"{seed} {kind} {number}")
        damage, changed = _damage(kind, content, model, draw)
        yield Case(path, kind, number, damage, changed)


def run_cases(cases: Iterable[Case], mode: str) -> Iterator[Outcome]:
    """Runs cases in the mode `ours`, `bare` or `image`, see `worker`."""
    answers: dict[Path, str] = {}
    with tempfile.TemporaryDirectory() as folder, _Worker(mode) as worker:
        for case in cases:
            if case.source not in answers:
                found = worker.judge(case.source)
                assert found["outcome"] == "ran", found
                answers[case.source] = found["digest"]
            path = Path(folder) / f"case{case.source.suffix}"
            path.write_bytes(case.content)
            yield _outcome(case, worker.judge(path), answers[case.source])


def is_failure(outcome: Outcome) -> bool:
    """Says whether a file got past what it must not get past.

    A damaged file must be refused or, where the damage hit nothing that counts, give
    the same answer. What somebody sealed anew is another model and may answer
    otherwise. An error that is not ours, a crash or a hang is never right.
    """
    if outcome.name in ("foreign", CRASH, HANG):
        return True
    return outcome.case.kind == DAMAGED and outcome.name == "different"


def _damage(
    kind: str, content: bytes, model: ModelFile | None, draw: Random
) -> tuple[str, bytes]:
    if model is None:
        return damaged_image(content, draw)
    if kind == DAMAGED:
        return damaged(content, draw)
    return (resealed if kind == RESEALED else with_other_metadata)(model, draw)


def _outcome(case: Case, found: dict[str, Any], original: str) -> Outcome:
    name = found["outcome"]
    if name == "ran":
        name = "same" if found["digest"] == original else "different"
    return Outcome(
        case,
        name,
        found.get("message", ""),
        found.get("passed"),
        found.get("is_finite", True),
    )


class _Worker:
    """Is a process of `worker`, started anew when it is gone."""

    def __init__(self, mode: str) -> None:
        self._mode = mode
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def judge(self, path: Path) -> dict[str, Any]:
        """Gives what the worker says, or what became of it."""
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{path}\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], SECONDS)[0]:
            self._end()
            return {"outcome": HANG, "message": f"more than {SECONDS} s"}
        line = process.stdout.readline()
        if line:
            found: dict[str, Any] = json.loads(line)
            return found
        code = self._end()
        return {"outcome": CRASH, "message": _signal_name(code)}

    def _start(self) -> "subprocess.Popen[str]":
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker", self._mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        return self._process

    def _end(self) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        with process:
            if process.poll() is None:
                try:  # one that has crashed takes a moment to be gone
                    process.wait(0.5)
                except subprocess.TimeoutExpired:
                    process.kill()
            return process.wait()


def _signal_name(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit {code}"
