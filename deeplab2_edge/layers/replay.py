"""Tells layers which forward pass they are in, where a network has several.

A pass that is computed again must repeat the first one, and must not count: random
masks are the same, moving statistics are left alone. Passes over different frames,
though, are different passes: each has masks of its own.
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
def draws_of(numbers: tuple[int, ...]) -> Iterator[None]:
    """Says whose random masks a pass draws.

    Args:
        numbers: Tell this pass from the others of a step, for example by the frame;
            passes of the same numbers draw the same masks.
    """
    before = current_draws()
    _local.draws = numbers
    try:
        yield
    finally:
        _local.draws = before


def current_draws() -> tuple[int, ...]:
    """Returns the numbers of the current pass, none if a step has only one."""
    numbers: tuple[int, ...] = getattr(_local, "draws", ())
    return numbers


@contextlib.contextmanager
def _pass(name: str) -> Iterator[None]:
    before = getattr(_local, "current", None)
    _local.current = name
    try:
        yield
    finally:
        _local.current = before
