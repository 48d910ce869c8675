"""What the parsers of the commands share."""

from pathlib import Path

import pytest

from deeplab2_edge.cli import main
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
