"""Keeps the notes of native libraries off the user's screen."""

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def hidden_stderr() -> Iterator[None]:
    """Hides what is written to stderr below Python, for the time of a start-up.

    TensorFlow and LiteRT announce build flags and delegates there. What goes wrong
    reaches Python as an exception, which is not hidden.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        with stderr_into(nowhere):
            yield
    finally:
        os.close(nowhere)


@contextlib.contextmanager
def stderr_into(descriptor: int, *, with_stdout: bool = False) -> Iterator[None]:
    """Leads what is written to stderr, also below Python, elsewhere."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = {stream: os.dup(stream) for stream in ((1, 2) if with_stdout else (2,))}
    try:
        for stream in saved:
            os.dup2(descriptor, stream)
        yield
    finally:
        for stream, copy in saved.items():
            os.dup2(copy, stream)
            os.close(copy)
