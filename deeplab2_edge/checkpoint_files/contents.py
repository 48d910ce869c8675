"""Which variables of a model a checkpoint holds.

The key of a variable is its path in the object graph and a suffix, for example
`encoder/_stem/_conv/kernel/.ATTRIBUTES/VARIABLE_VALUE`. Counters and optimizer state
stand beside the variables.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.checkpoint_files.index import Entry, read_index
from deeplab2_edge.checkpoint_files.location import find_checkpoint

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
# Another trainer of the same backbones stores them below this prefix.
FOREIGN_ENCODER = "backbone/_encoder/"
_ENCODER = "encoder/"
# Ranges of quantization-aware training stand below this item.
QUANTIZERS = "quantizers"
# Training state: never part of the model.
_STATE = re.compile(
    r"^(global_step|save_counter|optimizer|backbone_optimizer|trainer_state|loss_scale"
    rf"|{QUANTIZERS})(/|$)|\.OPTIMIZER_SLOT"
)
# How TensorFlow finds its way without names; keys are enough here.
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"

Change = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class StoredVariable:
    """Says how a variable is had from a checkpoint.

    Attributes:
        key: Its key there.
        shape: Of what comes out, after `change`.
        change: What is done to the stored value, see `surgery`.
    """

    key: str
    shape: tuple[int, ...]
    change: Change | None = None

    def value(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Returns the variable's value from the stored one."""
        changed = stored if self.change is None else self.change(stored)
        return np.asarray(changed, np.float32)


@dataclass(frozen=True)
class CheckpointContents:
    """Says what a checkpoint holds of a model.

    Attributes:
        prefix: Path of its files without `.index` and `.data-...`.
        name: What to call it, see `CheckpointLocation`.
        variables: By path, that is the key without its suffix.
        passed_over: Keys that are neither variables nor known training state.
        num_state: Keys of training state: optimizer, counters.
        is_foreign: True if another trainer wrote it. Then only its encoder counts.
    """

    prefix: str
    name: str
    variables: Mapping[str, StoredVariable]
    passed_over: tuple[str, ...] = ()
    num_state: int = 0
    is_foreign: bool = False

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the variables by path."""
        return {path: variable.shape for path, variable in self.variables.items()}


def read_contents(location: str | Path) -> CheckpointContents:
    """Reads which variables a checkpoint holds.

    Args:
        location: See `find_checkpoint`.

    Raises:
        CheckpointError: If there is none, or its index or data files are damaged.
        OutputError: If an archive cannot be unpacked.
    """
    found = find_checkpoint(location)
    entries = read_index(found.prefix, name=found.name)
    state = {key for key in entries if _STATE.search(key)}
    is_foreign = any(key.startswith(FOREIGN_ENCODER) for key in entries)
    variables, passed_over = {}, []
    for key, entry in entries.items():
        path = _path(key, entry, is_foreign)
        if key in state or key == _OBJECT_GRAPH:
            continue
        if path is None:
            passed_over.append(key.removesuffix(SUFFIX))
        else:
            variables[path] = StoredVariable(key, entry.shape)
    return CheckpointContents(
        prefix=found.prefix,
        name=found.name,
        variables=variables,
        passed_over=tuple(passed_over),
        num_state=len(state),
        is_foreign=is_foreign,
    )


def _path(key: str, entry: Entry, is_foreign: bool) -> str | None:
    """Returns the path of the model's variable under a key, None if there is none."""
    if not key.endswith(SUFFIX) or entry.dtype == "string":
        return None
    path = key.removesuffix(SUFFIX)
    if not is_foreign:
        return path
    if path.startswith(FOREIGN_ENCODER):
        return _ENCODER + path.removeprefix(FOREIGN_ENCODER)
    return None
