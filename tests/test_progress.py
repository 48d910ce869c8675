"""Progress reports: lines in logs, a bar on terminals, silence on demand."""

import io

import pytest

from deeplab2_edge import progress as module
from deeplab2_edge.progress import format_seconds, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_items_pass_through_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(3), total=3, label="counting")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")  # too quick for a line in a log


def test_a_terminal_sees_a_bar_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    list(progress(range(2), total=2, label="counting", status=lambda: "loss 1"))
    assert terminal.getvalue().endswith("\n")
    assert "[########################] counting 2/2, 0:00 left, loss 1" in (
        terminal.getvalue()
    )


def test_a_log_gets_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_LOG_SECONDS", 0.0)
    list(progress(range(2), total=2, label="counting"))
    assert capsys.readouterr().err.splitlines() == [
        "counting 1/2",
        "counting 2/2, 0:00 left",
    ]


def test_the_first_item_does_not_count_for_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_LOG_SECONDS", 0.0)
    clock = iter((0.0, 60.0, 62.0, 64.0))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    list(progress(range(3), total=10, label="counting"))
    assert capsys.readouterr().err.splitlines()[1:] == [
        "counting 2/10, 0:16 left",
        "counting 3/10, 0:14 left",
    ]


def test_quiet_is_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_LOG_SECONDS", 0.0)
    list(progress(range(2), total=2, label="counting", quiet=True))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3725, "1:02:05")]
)
def test_durations_read_like_a_clock(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
