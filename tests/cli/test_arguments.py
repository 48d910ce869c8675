"""What the parsers of the commands share."""

from pathlib import Path

import pytest

from deeplab2_edge.cli import build_parser, main
from deeplab2_edge.cli.arguments import check_size
from deeplab2_edge.errors import UsageError


def test_a_canvas_that_does_not_fit_names_both_neighbors() -> None:
    check_size((1025, 2049), 32, "--input-size")
    with pytest.raises(UsageError) as caught:
        check_size((1024, 2049), 16, "--input-size")
    assert str(caught.value) == (
        "--input-size is 1024x2049 (height x width); expected k * output_stride + 1 "
        "for each side (output_stride is 16). Nearest that fits: "
        "1009x2049 and 1025x2049"
    )


def test_evaluation_checks_its_canvas_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
    arguments = ["demo", "--data", str(tmp_path / "missing"), "--input-size", "256x512"]
    assert main(["evaluate", *arguments]) == 2
    assert "Nearest that fits: 241x497 and 257x513" in capsys.readouterr().err


def test_own_files_run_before_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "my_own.py"
    own.write_text("print(__name__, 'was here')\n", encoding="utf-8")
    assert main(["recipes", "--import", str(own)]) == 0
    assert main(["recipes", "--import", str(own), "--import", str(own)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("imported:my_own was here\n")
    assert out.count("was here") == 3


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("a = 1\nb = a +\n", "my_own.py:2: SyntaxError: invalid syntax"),
        (
            "def f():\n    return 1 / 0\n\nf()\n",
            "my_own.py:2: ZeroDivisionError: division by zero",
        ),
        ("import json\njson.loads('{')\n", "my_own.py:2: JSONDecodeError: "),
        (
            "from deeplab2_edge.errors import ConfigError\nraise ConfigError('no')\n",
            "deeplab2-edge recipes: no\n",
        ),
        (None, "my_own.py': no such file"),
        ("raise ValueError('a\\nb')\n", "my_own.py:1: ValueError: a b\n"),
        ("# \0\n", "source code string cannot contain null bytes"),
    ],
)
def test_an_own_file_that_fails_is_one_line_with_its_place(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    source: str | None,
    message: str,
) -> None:
    own = tmp_path / "my_own.py"
    if source is not None:
        own.write_text(source, encoding="utf-8")
    assert main(["recipes", "--import", str(own)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1
    assert captured.out == ""


def test_an_own_file_is_a_python_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "my_own.txt"
    own.write_text("pass\n", encoding="utf-8")
    for path in (own, tmp_path):
        assert main(["recipes", "--import", str(path)]) == 2
        assert "'; expected a Python file, NAME.py\n" in capsys.readouterr().err


def test_what_builds_networks_takes_own_files() -> None:
    parser = build_parser()
    assert parser.parse_args(["train", "x", "--output", "y"]).imports == []
    for words in (["evaluate", "x", "--data", "y"], ["convert"], ["models"]):
        own = ["--import", "a.py", "--import", "b.py"]
        assert parser.parse_args([*words, *own]).imports == ["a.py", "b.py"]


@pytest.mark.parametrize("command", ["run", "benchmark"])
def test_help_tells_the_threads_of_a_segmenter(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    help_text = " ".join(capsys.readouterr().out.split())
    assert "default: the usable cores, at most 4)" in help_text
