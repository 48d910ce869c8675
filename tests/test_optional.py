"""Optional packages are imported, or the command that brings them is named."""

import sys
from pathlib import Path

import pytest

from deeplab2_edge.errors import MissingExtraError
from deeplab2_edge.optional import require


def test_an_installed_package_is_returned() -> None:
    assert require("json.decoder", extra="train") is sys.modules["json.decoder"]


def test_a_missing_package_names_the_pip_line() -> None:
    with pytest.raises(
        MissingExtraError, match=r"pip install 'deeplab2-edge\[convert\]'"
    ):
        require("surely_not_installed.module", extra="convert")


def test_a_package_that_fails_for_another_reason_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_package.py").write_text("import also_not_installed")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="also_not_installed") as caught:
        require("broken_package", extra="train")
    assert not isinstance(caught.value, MissingExtraError)
