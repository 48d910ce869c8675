"""Models against stored outputs of the published system.

The committed cases are thinned out; `make test-parity REFERENCE=DIR` runs every case
in `DIR/models`.
"""

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge.backbones.mobilenet_v3 import VARIANTS
from deeplab2_edge.checkpoints import variable_paths
from deeplab2_edge.models import build_model
from tests.models import parity

pytestmark = pytest.mark.tf

COMMITTED = Path(__file__).parents[1] / "golden" / "models"
_DEFAULT_REFERENCE = Path(__file__).parents[3] / "shared" / "reference"
REFERENCE = Path(os.environ.get("DEEPLAB2_EDGE_REFERENCE", _DEFAULT_REFERENCE))
# What this version builds.
BUILDABLE = tuple(VARIANTS)


def cases(folder: Path) -> list[tuple[Path, str]]:
    return [
        (path, case)
        for path in sorted(folder.glob("*.json"))
        if (facts := parity.load_facts(path))["backbone"] in BUILDABLE
        for case in facts["cases"]
    ]


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


@pytest.mark.parametrize(
    "path", sorted(COMMITTED.glob("*.json")), ids=lambda path: path.stem
)
def test_variables_are_those_of_the_published_checkpoint(path: Path) -> None:
    facts = parity.load_facts(path)
    model = build_model(parity.config_from_facts(facts), input_size=(65, 65))
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    expected = {key.removesuffix(suffix): shape for key, shape, _ in facts["manifest"]}
    found = {p: list(v.shape) for p, v in variable_paths(model).items()}
    assert found == expected
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_weights)
    assert trainable == facts["parameters"]["trainable"]
    assert model.count_params() == facts["parameters"]["total"]
