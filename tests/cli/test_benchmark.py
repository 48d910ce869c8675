"""`deeplab2-edge benchmark` as a user meets it."""

import json
from pathlib import Path

import pytest

from deeplab2_edge.cli import main
from deeplab2_edge.images import read_image
from tests.runtime.tiny_model import INT8_MODEL

FAST = [str(INT8_MODEL), "--repeats", "2", "--warmup", "0", "--quiet"]


def test_table_and_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot = tmp_path / "plot.png"
    assert main(["benchmark", *FAST, "--threads", "1,2", "--plot", str(plot)]) == 0
    printed = capsys.readouterr().out
    for word in ("1 thread,", "2 threads,", "p50", "p99", "decode", "draw", "peak"):
        assert word in printed
    assert read_image(plot).shape[2] == 3


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", *FAST, "--threads", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["stages"]["network"]["p90_ms"] >= 0
    assert document["threads"] == 1


@pytest.mark.parametrize(
    ("arguments", "mentions"),
    [
        (["--threads", "one"], "--threads"),
        (["--threads", "0"], "num_threads"),
        (["--plot", "x.pdf"], ".png"),
        (["--plot", "/proc/x.png"], "/proc: the folder is not writable"),
        (["--input", "/nowhere.png"], "/nowhere.png"),
        (["--repeats", "0"], "repeats"),
    ],
)
def test_wrong_arguments_are_one_line(
    arguments: list[str], mentions: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", *FAST, *arguments]) == 2
    captured = capsys.readouterr()
    assert mentions in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_an_emulated_processor_is_not_measured(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DEEPLAB2_EDGE_EMULATED", "1")
    plot = tmp_path / "plot.png"
    assert main(["benchmark", *FAST, "--json", "--plot", str(plot)]) == 2
    captured = capsys.readouterr()
    assert "is emulated" in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not plot.exists()
