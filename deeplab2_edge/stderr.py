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
    sys.stderr.flush()
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
