"""Keeps TensorFlow's notes to itself off the screen, and nothing else.

The converter, its calibrator and the interpreter print notes from C++ directly to
file descriptor 2. They go through a small filter process that drops the lines known
to be notes and passes all others on at once: an error is seen even if it takes this
process down.
"""

import contextlib
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO

# Info and warning lines of absl and MLIR, and what is printed before absl starts.
_NOTES = (
    rb"[IW]\d{4} \d\d:|[IW]0000 00:00:|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IW] "
    rb"|WARNING: All log messages before absl|INFO: |fully_quantize: "
    rb"|.*failed call to cuInit|.*[Cc]ould not find cuda|.*oneDNN supports DT_HALF"
)
_FILTER = (
    "import re, sys\n"
    f"note = re.compile({_NOTES!r})\n"
    "for line in sys.stdin.buffer:\n"
    "    if not note.match(line):\n"
    "        sys.stderr.buffer.write(line)\n"
    "        sys.stderr.buffer.flush()\n"
)
# Python warnings of TensorFlow about its own future, of no use to who converts.
_WARNINGS = (
    r"\s*Warning: tf\.lite\.Interpreter is deprecated",
    "Statistics for quantized inputs were expected",
)
_EXIT_SECONDS = 5.0


@contextlib.contextmanager
def quiet_native_notes() -> Iterator[None]:
    """Filters file descriptor 2; what Python prints to stderr passes unchanged.

    `sys.stderr` is moved to the real descriptor meanwhile, so progress bars work.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    # A session of its own: Ctrl-C must not kill the filter before its last line.
    filter_process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _FILTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert filter_process.stdin is not None
    try:
        os.dup2(filter_process.stdin.fileno(), 2)
        with _stderr_on(saved), warnings.catch_warnings():
            for message in _WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        filter_process.stdin.close()
        # A child started meanwhile may hold the pipe open; the filter then lives on.
        with contextlib.suppress(subprocess.TimeoutExpired):
            filter_process.wait(_EXIT_SECONDS)


@contextlib.contextmanager
def _stderr_on(descriptor: int) -> Iterator[None]:
    """Points `sys.stderr` elsewhere if it writes to descriptor 2."""
    original: TextIO = sys.stderr
    try:
        is_native = original.fileno() == 2
    except (OSError, ValueError):  # replaced by an object without descriptor
        is_native = False
    if not is_native:
        yield
        return
    with open(descriptor, "w", buffering=1, closefd=False) as moved:
        sys.stderr = moved
        try:
            yield
        finally:
            sys.stderr = original
