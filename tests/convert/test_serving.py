"""`convert --format saved-model` as a user meets it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")

from deeplab2_edge.cli import main
from deeplab2_edge.convert import serving
from tests.convert.tiny import tiny_backbone, write_tiny_checkpoint

pytestmark = [pytest.mark.tf, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def _tiny() -> Iterator[None]:
    with tiny_backbone():
        yield


def test_export_end_to_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path)
    command = ["convert", "--checkpoint", str(checkpoint), "--format", "saved-model"]
    command += ["--verify-images", "2", "--quiet"]
    folder = tmp_path / "served"
    code = main([*command, "--output", str(folder), "--json"])
    printed = capsys.readouterr()
    assert (code, printed.err) == (0, "")
    report = json.loads(printed.out)
    assert report["verification"] == {"images": 2, "different_pixels": 0}
    assert set(report["signatures"]) == {"serving_default", "any_size"}
    assert json.loads((tmp_path / "served.report.json").read_text()) == report

    assert main([*command, "--output", str(folder)]) == 2
    assert "exists; give the name of a new folder" in capsys.readouterr().err
    assert main([*command, "--quantize", "fp16"]) == 2
    assert "a SavedModel is float32" in capsys.readouterr().err

    def differ(*_: object) -> tuple[int, int, int]:
        return 3, 100, 1

    monkeypatch.setattr(serving, "compare", differ)
    assert main([*command, "--output", str(tmp_path / "other")]) == 2
    assert "3 of 100 pixels differ from evaluation" in capsys.readouterr().err
    assert not list(tmp_path.glob("*other*"))
