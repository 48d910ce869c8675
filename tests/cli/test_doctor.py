"""`deeplab2-edge doctor`: what is here, what is not."""

import importlib
import importlib.util
import json

import pytest

from deeplab2_edge.cli import doctor, main


def test_healthy_installation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "OpenCV" in printed
    assert "ready" in printed


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is True
    names = [check["name"] for check in document["checks"]]
    assert names == ["Python", "NumPy", "OpenCV", "TFLite interpreter", *names[4:]]


def test_missing_package_gives_the_line_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find_spec = importlib.util.find_spec

    def without_cv2(name: str) -> object:
        return None if name in ("cv2", "tensorflow") else find_spec(name)

    monkeypatch.setattr(doctor.importlib.util, "find_spec", without_cv2)
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "MISSING" in printed
    assert "pip install opencv-python" in printed
    assert "pip install 'deeplab2-edge[train,convert]'" in printed
    assert "ready" not in printed


def test_broken_package_is_not_called_healthy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import_module = importlib.import_module

    def without_opengl(name: str) -> object:
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file")
        return import_module(name)

    monkeypatch.setattr(doctor.importlib, "import_module", without_opengl)
    assert main(["doctor"]) == 1
    assert "libGL.so.1" in capsys.readouterr().out
