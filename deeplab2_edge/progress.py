"""Progress of long work: a bar with ETA on a terminal, sparse lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

_T = TypeVar("_T")
_BAR_WIDTH = 24
_TERMINAL_SECONDS = 0.2  # how often a terminal line is redrawn
_LOG_SECONDS = 30.0  # how often a log file gets a line


def progress(
    iterable: Iterable[_T],
    *,
    total: int,
    label: str,
    quiet: bool = False,
    status: Callable[[], str] | None = None,
) -> Iterator[_T]:
    """Passes items through and reports on stderr how far the work is.

    Args:
        iterable: The work.
        total: Number of items expected.
        label: What is being done, for example `"rendering"`.
        quiet: Report nothing.
        status: Gives a few words to add to a report, for example the current loss.
    """
    if quiet:
        yield from iterable
        return
    is_terminal = sys.stderr.isatty()
    interval = _TERMINAL_SECONDS if is_terminal else _LOG_SECONDS
    start = last = time.monotonic()
    count = 0
    for count, item in enumerate(iterable, start=1):
        yield item
        now = time.monotonic()
        if count == 1:
            start = now
        if now - last >= interval:
            last = now
            note = status() if status is not None else ""
            _report(label, count, total, now - start, is_terminal, note)
    if is_terminal and count:
        note = status() if status is not None else ""
        _report(label, count, total, time.monotonic() - start, True, note)
        print(file=sys.stderr)


def format_seconds(seconds: float) -> str:
    """Formats a duration as `m:ss` or `h:mm:ss`."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _report(
    label: str, count: int, total: int, elapsed: float, bar: bool, note: str
) -> None:
    """Reports how far the work is, `elapsed` seconds after its first item."""
    share = min(count / total, 1.0) if total else 1.0
    text = f"{label} {count}/{total}"
    # The first item pays for what comes once, as tracing; it tells nothing of the rest.
    if count > 1 or total <= 1:
        left = elapsed / max(count - 1, 1) * max(total - count, 0)
        text += f", {format_seconds(left)} left"
    text += f", {note}" if note else ""
    if bar:
        filled = int(share * _BAR_WIDTH)
        drawn = "#" * filled + "." * (_BAR_WIDTH - filled)
        print(f"\r[{drawn}] {text}  ", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)
