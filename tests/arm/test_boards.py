"""Raspberry Pis, as far as an emulator shows: our wheel on their Debian.

Functional tests only: no time measured here says anything about a board. What 64-bit
boards compute with the runtime of this machine is what this machine computes.
"""

import importlib.metadata
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.images import read_image
from deeplab2_edge.model_file import read_model_file
from tests.arm.board import ROOT, Board, run
from tests.runtime.tiny_model import FLOAT_MODEL, INT8_MODEL

pytestmark = pytest.mark.arm

Arrays = dict[str, NDArray[Any]]
HEADS = (keys.SEMANTIC_LOGITS, keys.CENTER_HEATMAP, keys.OFFSET_MAP)
# Of float heads, as a share of their range. Seen: 5e-7, and 7e-6 with other kernels.
FLOAT_SHARE, OTHER_KERNELS_SHARE = 5e-6, 5e-5
# Of the tiny int8 network. Other kernels round other ways, by up to two steps.
STEPS = 2
# Of deep int8 networks, where steps add up: 17 of 256 were seen, 2.5 % of the pixels.
MANY_STEPS, OTHER_PIXELS = 32, 0.05
# Light tests of the house that run on a board as they are.
TESTS = (
    "tests/panoptic",
    "tests/metrics",
    "tests/test_images.py",
    "tests/test_model_file.py",
    "tests/runtime/test_preprocess.py",
    "tests/runtime/test_results.py",
    "tests/runtime/test_segmenter.py",
)


def test_doctor_finds_all_that_run_needs(board: Board) -> None:
    answer = board.command("doctor")
    assert answer.code == 0, answer.out + answer.err
    runtime = "tflite-runtime 2.14.0"
    if board.userland.is_like_here:
        runtime = f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}"
    assert runtime in answer.out
    assert "ready" in answer.out


def test_our_wheel_asks_for_what_exists_there(board: Board) -> None:
    code = (
        "import json; from importlib.metadata import requires, version;"
        "from packaging.requirements import Requirement;"
        "asked = [r for r in map(Requirement, requires('deeplab2-edge'))"
        " if r.marker is None or r.marker.evaluate({'extra': ''})];"
        "print(json.dumps({r.name: r.name.startswith('opencv')"
        " or version(r.name) in r.specifier for r in asked}))"
    )
    answer = board.python("-c", code)
    assert answer.code == 0, answer.err
    expected = {"numpy", "tflite-runtime"}
    if board.userland.is_like_here:
        expected = {"numpy", "opencv-python", "ai-edge-litert"}
    assert json.loads(answer.out) == dict.fromkeys(expected, True)


def test_a_model_file_is_read_and_keeps_its_promise(board: Board) -> None:
    assert "CONV_2D" in board.command("inspect", str(INT8_MODEL)).out
    answer = board.command("verify", str(FLOAT_MODEL))
    assert answer.code == 0, answer.out + answer.err
    assert f"self test on {board.userland.machine}: passed" in answer.out


def test_run_writes_what_it_writes_here(
    board: Board, images: list[Path], tmp_path: Path
) -> None:
    arguments = ("run", str(INT8_MODEL), *map(str, images), "--quiet", "--output")
    answer = board.command(*arguments, str(tmp_path / "board"))
    assert answer.code == 0, answer.err
    command = str(Path(sys.executable).with_name("deeplab2-edge"))
    done = run([command, *arguments, str(tmp_path / "here")], os.environ, tmp_path)
    assert done.code == 0, done.err
    written = sorted(file.name for file in (tmp_path / "board").iterdir())
    assert written == sorted(file.name for file in (tmp_path / "here").iterdir())
    assert len(written) == 3 * len(images)
    if board.userland.is_like_here:
        for image in images:
            name = f"{image.stem}_panoptic.png"
            found = read_image(tmp_path / "board" / name)
            np.testing.assert_array_equal(found, read_image(tmp_path / "here" / name))
            segments = [
                json.loads((tmp_path / place / f"{image.stem}.json").read_text())
                for place in ("board", "here")
            ]
            assert segments[0]["segments"] == segments[1]["segments"]


def test_the_tiny_models_compute_what_they_compute_here(
    board: Board, images: list[Path], tmp_path: Path
) -> None:
    found, expected = probe(board, [INT8_MODEL, FLOAT_MODEL], images, tmp_path)
    compare(board, found, expected, steps=STEPS)


def test_the_demo_models_compute_what_they_compute_here(
    board: Board, demo_models: dict[str, Path], images: list[Path], tmp_path: Path
) -> None:
    models = list(demo_models.values())
    found, expected = probe(board, models, images, tmp_path)
    compare(board, found, expected, steps=None)
    if not board.userland.is_like_here:
        for model in models:
            answer = board.command("verify", str(model))
            assert answer.code == 0, answer.out + answer.err


def test_the_custom_op_is_run_by_the_native_library(
    board: Board, demo_models: dict[str, Path]
) -> None:
    model = demo_models["demo_custom_op"]
    assert read_model_file(model).metadata.merge_place == "custom-op"
    code = (
        "import sys; from deeplab2_edge.runtime import PanopticSegmenter;"
        "print(PanopticSegmenter(sys.argv[1]).engine.has_custom_op)"
    )
    answer = board.python("-c", code, str(model))
    assert answer.out.strip() == "True", answer.err


def test_the_native_core_and_numpy_give_the_same_bits(board: Board) -> None:
    files = sorted(ROOT.glob("tests/runtime/test_native*.py"))
    assert files
    assert run_tests(board, *(str(file.relative_to(ROOT)) for file in files)) > 20


def test_our_light_tests_pass(board: Board) -> None:
    assert run_tests(board, *TESTS) > 200


def test_no_latency_comes_from_an_emulator(board: Board, tmp_path: Path) -> None:
    plot = tmp_path / "plot.png"
    answer = board.command(
        "benchmark", str(INT8_MODEL), "--json", "--plot", str(plot), "--quiet"
    )
    assert answer.code == 2
    assert f"this {board.userland.machine} is emulated" in answer.err
    assert answer.err.count("\n") == 1
    assert answer.out == ""
    assert not plot.exists()


def probe(
    board: Board, models: list[Path], images: list[Path], folder: Path
) -> tuple[Arrays, Arrays]:
    """Runs the same program on the board and here."""
    program = str(ROOT / "tests/arm/probe.py")
    files = [str(file) for file in (*models, *images)]
    answer = board.python(program, str(folder / "board.npz"), *files)
    assert answer.code == 0, answer.err
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = run([sys.executable, program, str(folder / "here.npz"), *files], here, ROOT)
    assert done.code == 0, done.err
    return tuple(  # type: ignore[return-value]
        dict(np.load(folder / name)) for name in ("board.npz", "here.npz")
    )


def compare(
    board: Board, found: Arrays, expected: Arrays, *, steps: int | None
) -> None:
    """Compares what came out of the same program on two machines.

    Args:
        board: Where `found` comes from.
        found: Of the board.
        expected: Of this machine.
        steps: How far integers of other kernels may be off; None: as in deep networks.
    """
    assert set(found) == set(expected)
    assert {name.split("/")[2] for name in found} == {"1", "2"}
    for name, values in found.items():
        assert values.dtype == expected[name].dtype, name
        # Threads do not change a bit; those of tflite-runtime do.
        if name.split("/")[2] == "2" and board.userland.is_like_here:
            np.testing.assert_array_equal(values, found[name.replace("/2/", "/1/")])
        if not name.endswith(HEADS):
            continue
        assert values.shape == expected[name].shape, name
        difference = np.abs(values.astype(np.float64) - expected[name])
        if values.dtype == np.float32:
            same = board.userland.is_like_here
            share = FLOAT_SHARE if same else OTHER_KERNELS_SHARE
            assert difference.max() <= share * np.ptp(expected[name]), name
        elif board.userland.is_like_here:
            assert not difference.any(), name
        else:
            assert difference.max() <= (steps or MANY_STEPS), name
    for name in found:
        if name.endswith("/panoptic"):
            place = name.removesuffix("panoptic")
            heads = [place + head for head in HEADS if place + head in found]
            if all(np.array_equal(found[head], expected[head]) for head in heads):
                assert np.array_equal(found[name], expected[name]), name
            else:
                is_float = found[heads[0]].dtype == np.float32
                others = (found[name] != expected[name]).mean()
                assert others <= (0.001 if is_float else OTHER_PIXELS), name


def run_tests(board: Board, *files: str) -> int:
    """Runs tests of the house on a board; returns how many passed."""
    place = board.home / "checkout"
    place.mkdir(exist_ok=True)
    if not (place / "tests").exists():
        (place / "tests").symlink_to(ROOT / "tests")
    # Without the settings of the house, which would test the checkout, not the wheel.
    answer = board.python(
        *("-m", "pytest", "-c", os.devnull, "--rootdir", str(place), "-q"),
        *("-p", "no:cacheprovider", "--import-mode=importlib", "--tb=short"),
        *("-W", "ignore", "-m", "not slow and not tf"),
        *(str(place / file) for file in files),
        # So that no test looks for a compiler on the board.
        DEEPLAB2_EDGE_NATIVE=str(board.library),
    )
    assert answer.code == 0, answer.out[-4000:] + answer.err[-1000:]
    words = answer.out.strip().splitlines()[-1].replace(",", "").split()
    return int(words[words.index("passed") - 1])
