"""Quantization modes and where they can be used."""

import pytest

from deeplab2_edge.convert.modes import (
    MODE_NAMES,
    MODES,
    check_mode,
    find_mode,
    nearest_mode,
    supported_modes,
)
from deeplab2_edge.errors import UsageError


def test_every_mode_has_a_line_and_known_neighbors() -> None:
    for mode in MODES.values():
        assert mode.description and "\n" not in mode.description
        assert set(mode.neighbors) <= set(MODE_NAMES) - {mode.name}


def test_a_tflite_file_for_cpus_takes_every_mode() -> None:
    assert supported_modes() == MODE_NAMES
    for name in MODE_NAMES:
        assert check_mode(name) is MODES[name]


def test_a_misspelt_mode_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean int16x8"):
        find_mode("int16x")


@pytest.mark.parametrize(
    ("mode", "format_name", "target", "nearest"),
    [
        ("int16x8", "onnx", "onnx", "fp16"),
        ("int8-mixed", "tflite", "edgetpu", "int8"),
        ("fp16", "tflite", "edgetpu", "int8"),
        ("int16x8", "tflite", "gpu", "fp16"),
        ("int8", "onnx", "cpu", "int8"),
    ],
)
def test_an_unsupported_mode_gives_the_nearest(
    mode: str, format_name: str, target: str, nearest: str
) -> None:
    assert nearest_mode(mode, format_name, target) == nearest
    if mode != nearest:
        with pytest.raises(UsageError, match=f"nearest is --quantize {nearest}"):
            check_mode(mode, format_name, target)
