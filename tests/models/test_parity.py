"""Models against stored outputs of the published system.

The committed cases are thinned out; `make test-parity REFERENCE=DIR` runs every case
in `DIR/models`.
"""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

import tf_keras

from deeplab2_edge.checkpoints import variable_paths
from tests.models import parity

pytestmark = pytest.mark.tf

COMMITTED = Path(__file__).parents[1] / "golden" / "models"
_DEFAULT_REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference"
REFERENCE = Path(os.environ.get("DEEPLAB2_EDGE_REFERENCE", _DEFAULT_REFERENCE))
if REFERENCE != _DEFAULT_REFERENCE and not any((REFERENCE / "models").glob("*.json")):
    raise FileNotFoundError(
        f"{REFERENCE / 'models'} holds no *.json with stored outputs"
    )


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"))


def cases(folder: Path) -> list[tuple[Path, str]]:
    return [
        (path, case)
        for path in files(folder)
        for case in parity.load_facts(path)["cases"]
    ]


@pytest.fixture(autouse=True)
def one_network_in_memory() -> Iterator[None]:
    """Frees a network before the next: the largest holds 1.8 GB."""
    yield
    tf_keras.backend.clear_session()
    gc.collect()


def check(path: Path, case: str) -> None:
    for name, error in parity.compare_case(path, case).items():
        is_output = name.startswith(("raw/", "out/"))
        limit = parity.OUTPUT_TOLERANCE if is_output else parity.LAYER_TOLERANCE
        assert error <= limit, f"{name}: {error:.1e}"


@pytest.mark.parametrize(
    ("path", "case"), cases(COMMITTED), ids=lambda v: getattr(v, "stem", v)
)
def test_outputs_equal_the_committed_ones(path: Path, case: str) -> None:
    check(path, case)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "case"), cases(REFERENCE / "models"), ids=lambda v: getattr(v, "stem", v)
)
def test_outputs_equal_the_reference(path: Path, case: str) -> None:
    check(path, case)


def check_variables(path: Path) -> None:
    facts = parity.load_facts(path)
    model = parity.build_from_facts(facts, input_size=(65, 65)).model
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    expected = {key.removesuffix(suffix): shape for key, shape, _ in facts["manifest"]}
    found = {p: list(v.shape) for p, v in variable_paths(model).items()}
    assert found == expected
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_weights)
    assert trainable == facts["parameters"]["trainable"]
    assert model.count_params() == facts["parameters"]["total"]


@pytest.mark.parametrize("path", files(COMMITTED), ids=lambda path: path.stem)
def test_variables_are_those_of_the_published_checkpoint(path: Path) -> None:
    check_variables(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", files(REFERENCE / "models"), ids=lambda path: path.stem
)
def test_variables_are_those_of_the_reference(path: Path) -> None:
    check_variables(path)
