"""`deeplab2-edge verify` as a user meets it."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deeplab2_edge.cli import main
from deeplab2_edge.model_file import Golden, read_model_file, write_model_file
from tests.runtime.tiny_model import INT8_MODEL


def verify(*arguments: object) -> int:
    return main(["verify", *map(str, arguments)])


def test_a_whole_file_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(INT8_MODEL) == 0
    printed = capsys.readouterr().out
    assert "SHA-256 of the graph verified" in printed
    assert "certificate: none in this file" in printed
    assert "self test on" in printed and printed.endswith("passed\n")


def test_a_machine_that_computes_something_else_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = read_model_file(INT8_MODEL)
    assert model.golden is not None
    heads = {name: -head for name, head in model.golden.heads.items()}
    path = tmp_path / "model.tflite"
    golden = Golden(model.golden.inputs, heads)
    write_model_file(path, model.graph, model.metadata, golden)
    assert verify(path) == 1
    printed = capsys.readouterr().out
    assert "does not compute what the file's maker did" in printed
    assert printed.endswith("FAILED\n")
    assert verify(path, "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["passed"] is document["self_test"]["passed"] is False


def test_a_file_without_self_test_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = read_model_file(INT8_MODEL)
    path = tmp_path / "model.tflite"
    write_model_file(path, model.graph, model.metadata)
    assert verify(path) == 0
    assert "the file has no self test" in capsys.readouterr().out


def test_a_damaged_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.tflite"
    content = bytearray(INT8_MODEL.read_bytes())
    content[400] ^= 1
    path.write_bytes(content)
    assert verify(path) == 2
    printed = capsys.readouterr()
    assert "SHA-256" in printed.err and printed.err.count("\n") == 1
    model = read_model_file(INT8_MODEL)
    metadata = dataclasses.replace(model.metadata, certificate={"version": 1})
    write_model_file(path, model.graph, metadata, model.golden)
    assert verify(path) == 2
    assert f"{path}: certificate: checkpoint is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [("--data", "x"), ("--images", 3), ("--config", "x")]
)
def test_options_of_the_comparison_need_a_source(
    arguments: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(INT8_MODEL, *arguments) == 2
    assert f"{arguments[0]} is for the comparison" in capsys.readouterr().err


def test_an_onnx_file_is_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime", reason="install deeplab2-edge[onnx]")
    pytest.importorskip("onnx", reason="install deeplab2-edge[onnx]")
    from tests.runtime.tiny_onnx import onnx_file

    model = onnx_file()
    path = tmp_path / "model.onnx"
    write_model_file(path, model.graph, model.metadata)
    assert verify(path, "--threads", 1) == 0
    assert capsys.readouterr().out.endswith("passed\n")


def test_devices_need_no_tensorflow() -> None:
    code = (
        "import sys; from deeplab2_edge.cli import main;"
        f"assert main(['verify', {str(INT8_MODEL)!r}]) == 0;"
        "sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.fixture(scope="module")
def _tiny() -> Iterator[None]:
    pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")
    from tests.convert.tiny import tiny_backbone

    with tiny_backbone():
        yield


@pytest.fixture(scope="module")
def checkpoint(_tiny: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.convert.tiny import write_tiny_checkpoint

    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def product(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Converts the tiny network to a float file."""
    path = tmp_path_factory.mktemp("product") / "tiny.tflite"
    arguments = ("--checkpoint", checkpoint, "--output", path, "--verify-images", 2)
    assert main(["convert", *map(str, arguments), "--quiet"]) == 0
    return path


@pytest.mark.tf
def test_a_conversion_is_certified_and_found_again(
    checkpoint: Path, product: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(product, "--source", checkpoint, "--quiet", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    certificate = document["certificate"]
    assert certificate["verdict"].startswith("equal to the source")
    assert certificate["graph_sha256"] == document["graph_sha256"]
    assert certificate["data"] == "synthetic:val"
    assert certificate["license"] == "unknown"
    assert str(checkpoint) not in json.dumps(certificate)
    comparison = document["comparison"]
    assert comparison["verification"]["inputs_sha256"] == certificate["inputs_sha256"]
    assert all(finding["kept"] for finding in comparison["findings"])
    assert comparison["notes"] == []


@pytest.mark.tf
def test_another_checkpoint_does_not_pass(
    checkpoint: Path,
    product: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from deeplab2_edge.checkpoints import save_weights, variable_paths
    from tests.convert.tiny import build_tiny

    model = build_tiny()
    variable = variable_paths(model)["encoder/_blocks/3/_conv3_bn/_conv/kernel"]
    variable.assign(variable * 1.5)
    save_weights(model, tmp_path / "other")
    config = checkpoint / "config.textproto"
    source = ("--source", tmp_path / "other", "--config", config, "--images", 1)
    assert verify(product, *source, "--quiet") == 1
    printed = capsys.readouterr().out
    assert "this is another checkpoint" in printed
    assert "other images than those of the certificate" in printed
    assert "NOT equal to the source" in printed
    assert "broken: " in printed
