"""Stored cases of one group of functions, see `make test-functions`.

A file `<group>.npz` holds, for every case, `<case>/config` (JSON),
`<case>/in/<name>` and `<case>/out/<name>`.
"""

import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

COMMITTED = Path(__file__).parents[1] / "golden" / "functions"
_DEFAULT_REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference"
REFERENCE = (
    Path(os.environ.get("DEEPLAB2_EDGE_REFERENCE", _DEFAULT_REFERENCE)) / "functions"
)


@dataclass(frozen=True)
class Case:
    """Holds one case: its settings, inputs and expected outputs by name."""

    name: str
    config: dict[str, Any]
    inputs: dict[str, NDArray[Any]]
    outputs: dict[str, NDArray[Any]]


@functools.cache
def load_cases(path: Path) -> dict[str, Case]:
    """Reads the cases of a file; none if it does not exist."""
    if not path.is_file():
        return {}
    cases: dict[str, Case] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            name, part = key.split("/", 1)
            case = cases.setdefault(name, Case(name, {}, {}, {}))
            value = arrays[key]
            if value.dtype == np.float16:  # stored so where nothing is lost
                value = value.astype(np.float32)
            if part == "config":
                case.config.update(json.loads(str(value)))
            elif part.startswith("in/"):
                case.inputs[part.removeprefix("in/")] = value
            elif part.startswith("out/"):
                case.outputs[part.removeprefix("out/")] = value
            else:
                raise ValueError(f"{path}: {key} is neither config, input nor output")
    return cases


def params(group: str) -> list[Any]:
    """Gives every case of a group as a parameter: committed ones, then the slow ones.

    Raises:
        FileNotFoundError: If a reference folder is named and lacks the group.
    """
    path = REFERENCE / f"{group}.npz"
    if not path.is_file() and "DEEPLAB2_EDGE_REFERENCE" in os.environ:
        raise FileNotFoundError(f"{path} does not exist; REFERENCE must hold it")
    committed = load_cases(COMMITTED / f"{group}.npz")
    stored = load_cases(path)
    return [
        *(
            pytest.param(case, id=f"committed-{name}")
            for name, case in committed.items()
        ),
        *(
            pytest.param(case, id=f"reference-{name}", marks=pytest.mark.slow)
            for name, case in stored.items()
        ),
    ]
