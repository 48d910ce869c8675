"""`deeplab2-edge convert`: options of quantization that make no sense."""

import re

import pytest

from deeplab2_edge.cli import main

pytestmark = pytest.mark.tf


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ("--quantize int16x8 --format onnx", "the nearest is --quantize fp16"),
        ("--quantize int8-mixed --target edgetpu", "the nearest is --quantize int8"),
        ("--quantize fp16 --sensitivity", "for TFLite files of --quantize int8"),
        ("--quantize int8 --format onnx --quantizer ai-edge", "not of int8 in onnx"),
        ("--axial custom-op", "attention needs none, .* --axial builtin"),
        ("--axial rolled", "must be builtin, einsum"),
        ("--quantize int8 --calibration-quantile 0.3", "must be 0.5 to 1, or auto"),
        ("--quantize int8 --calibration-quantile nan", "must be 0.5 to 1, or auto"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    arguments: str, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", *arguments.split()]) == 2
    assert re.search(part, capsys.readouterr().err)


@pytest.mark.parametrize("quantile", ["x", ""])
def test_a_quantile_is_a_number_or_auto(
    quantile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["convert", "--calibration-quantile", quantile])
    assert "expected 0.5 to 1, or auto" in capsys.readouterr().err
