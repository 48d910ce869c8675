"""Boards, models and images; what takes long is made once and kept in the cache."""

import hashlib
import os
import sys
import tempfile
from pathlib import Path

import pytest

from deeplab2_edge.images import write_png
from deeplab2_edge.synth import VALIDATION_SEED_START, render_scene
from tests.arm.board import ROOT, Board, make_board, run
from tests.arm.userland import INSTALL, USERLANDS, fresh_folder, missing_programs

# (height, width): of the canvas of the demo models, and one that is resized.
SIZES = {"canvas": (129, 257), "large": (301, 422)}
# How each demo model is converted. Names say what the tests expect of them.
_CONVERSIONS = {
    "demo_float": ("--quantize", "none", "--input-size", "129x257"),
    "demo_int8": ("--quantize", "int8", "--input-size", "129x257"),
    "demo_int8_257x513": ("--quantize", "int8", "--input-size", "257x513"),
    "demo_custom_op": (
        *("--quantize", "int8", "--input-size", "129x257", "--merge", "custom-op"),
    ),
}


# Each board is made in one process.
@pytest.fixture(
    scope="session",
    params=[
        pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in USERLANDS
    ],
)
def board(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Board:
    missing = missing_programs()
    if missing:
        pytest.skip(f"needs {', '.join(missing)}; on Debian: {INSTALL}")
    userland = USERLANDS[request.param]
    return make_board(userland, tmp_path_factory.mktemp(userland.name))


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Street scenes as PNG files, which every decoder reads alike."""
    folder = tmp_path_factory.mktemp("images")
    paths = []
    for number, (name, size) in enumerate(SIZES.items()):
        scene = render_scene(VALIDATION_SEED_START + number, size=size)
        write_png(folder / f"{name}.png", scene.image)
        paths.append(folder / f"{name}.png")
    return paths


@pytest.fixture(scope="session")
def demo_models() -> dict[str, Path]:
    """The shipped checkpoint in several forms, converted here by this checkout."""
    pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")
    digest = hashlib.sha256(repr(_CONVERSIONS).encode())
    for folder in ("convert", "deeplab2_edge/model_file", "deeplab2_edge/assets/demo"):
        for file in sorted((ROOT / folder).rglob("*")):
            if file.suffix != ".pyc" and file.is_file():
                digest.update(file.read_bytes())
    place = fresh_folder("models", digest.hexdigest()[:12])
    models = {name: place / f"{name}.tflite" for name in _CONVERSIONS}
    for name, options in _CONVERSIONS.items():
        if not models[name].exists():
            _convert(models[name], options)
    return models


def _convert(output: Path, options: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        model = Path(folder) / output.name
        arguments = (
            *(str(Path(sys.executable).with_name("deeplab2-edge")), "convert"),
            *("--calibration-images", "20", "--verify-images", "1", "--no-card"),
            *("--quiet", "--output", str(model), *options),
        )
        answer = run(list(arguments), os.environ, ROOT)
        assert answer.code == 0, answer.err
        model.replace(output)
