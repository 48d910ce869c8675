"""Tells layers that a forward pass is, or will be, run a second time.

The second pass must repeat the first one, and must not count: random masks are the
same, moving statistics are left alone.
"""

import contextlib
import threading
from collections.abc import Iterator

# Replicas of one process trace in threads of their own.
_local = threading.local()


@contextlib.contextmanager
def first_pass() -> Iterator[None]:
    """Marks a pass that will be run again."""
    with _pass("first"):
        yield


@contextlib.contextmanager
def second_pass() -> Iterator[None]:
    """Marks the repetition of a pass."""
    with _pass("second"):
        yield


def is_repeated() -> bool:
    """Tells whether the current pass has a repetition, or is one."""
    return getattr(_local, "current", None) is not None


def is_second() -> bool:
    """Tells whether the current pass is a repetition."""
    return getattr(_local, "current", None) == "second"


@contextlib.contextmanager
def _pass(name: str) -> Iterator[None]:
    before = getattr(_local, "current", None)
    _local.current = name
    try:
        yield
    finally:
        _local.current = before
