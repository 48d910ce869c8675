"""Compiled files get what their source knows; the compiler's part is made by hand."""

from pathlib import Path

import pytest

from deeplab2_edge.cli import main
from deeplab2_edge.errors import ModelFileError, UsageError
from deeplab2_edge.model_file import read_model_file
from deeplab2_edge.runtime.engine import open_engine
from deeplab2_edge.runtime.interpreter import LiteRtEngine
from deeplab2_edge.targets import read_graph
from deeplab2_edge.targets.compiled import adopt_compiled
from tests.runtime.tiny_model import INT8_MODEL
from tests.targets.one_op import OpSpec, TensorSpec, model

pytest.importorskip("ai_edge_litert.schema_py_generated")


def compile_by_hand(path: Path, *, width: int = 0, custom: str = "") -> Path:
    """Writes a file with the inputs and outputs of the tiny model around one op."""
    graph = read_graph(INT8_MODEL.read_bytes())
    ends = [
        TensorSpec(tensor.shape, tensor.dtype, name=tensor.name)
        for tensor in (*graph.inputs, *graph.outputs)
    ]
    if width:
        ends[0].shape = (*ends[0].shape[:2], width, 3)
    outputs = range(1, len(ends))
    op = OpSpec("", [0], outputs, custom=custom or "edgetpu-custom-op")
    path.write_bytes(model(ends, [op], [0], outputs))
    return path


def test_a_compiled_file_becomes_a_model_file(tmp_path: Path) -> None:
    source = read_model_file(INT8_MODEL)
    path = compile_by_hand(tmp_path / "tiny_edgetpu.tflite")
    for _ in range(2):  # twice is fine
        adopt_compiled(path, source)
        adopted = read_model_file(path)
        assert adopted.metadata.canvas == source.metadata.canvas
        assert adopted.golden is not None
        found = adopted.metadata.provenance["compiled_of_sha256"]
        assert found == source.metadata.graph_sha256 != adopted.metadata.graph_sha256


def test_other_files_are_refused(tmp_path: Path) -> None:
    source = read_model_file(INT8_MODEL)
    path = compile_by_hand(tmp_path / "x.tflite", custom="other-op")
    with pytest.raises(ModelFileError, match="not compiled, or nothing of it maps"):
        adopt_compiled(path, source)
    path = compile_by_hand(tmp_path / "y.tflite", width=33)
    with pytest.raises(ModelFileError, match="it was made of another file"):
        adopt_compiled(path, source)


def test_the_command_says_what_stays_on_the_cpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = compile_by_hand(tmp_path / "tiny_edgetpu.tflite")
    command = ["inspect", "--target", "edgetpu", "--compiled", str(path)]
    assert main([*command, str(INT8_MODEL)]) == 0
    assert "all of it on the Edge TPU; try: deeplab2-edge verify" in (
        capsys.readouterr().out
    )
    assert main(["inspect", "--target", "edgetpu", str(path)]) == 0
    assert "1 of 1 ops map" in capsys.readouterr().out


def test_without_its_delegate_a_compiled_file_says_what_it_needs(
    tmp_path: Path,
) -> None:
    path = compile_by_hand(tmp_path / "tiny_edgetpu.tflite")
    adopt_compiled(path, read_model_file(INT8_MODEL))
    with pytest.raises(ModelFileError, match="give its delegate, libedgetpu.so.1"):
        LiteRtEngine(path)
    # The delegate is the default of such a file, and not on this machine.
    with pytest.raises(
        UsageError, match=r"edgetpu \(libedgetpu.so.1\) cannot be loade"
    ):
        open_engine(path)
