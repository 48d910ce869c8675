"""Reading and writing checkpoints under their published keys.

A checkpoint is a TensorFlow object checkpoint. The key of a variable is its path in
the object graph, for example
`encoder/_blocks/3/_conv3_bn/_conv/kernel/.ATTRIBUTES/VARIABLE_VALUE`. Our layers are
named by that path, so both directions are mechanical: loading reads by key, and saving
builds a tree of trackable nodes that spells the names.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deeplab2_edge import assets
from deeplab2_edge.errors import CheckpointError
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")
tf_keras: Any = require("tf_keras", extra="train")

_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
# Another trainer of the same models stores the encoder below this prefix.
_FOREIGN_ENCODER = "backbone/_encoder/"
# Training state: never part of the model.
_STATE = re.compile(
    r"^(global_step|save_counter|optimizer|backbone_optimizer|trainer_state)(/|$)"
    r"|\.OPTIMIZER_SLOT|^_CHECKPOINTABLE_OBJECT_GRAPH$"
)


@dataclass(frozen=True)
class LoadReport:
    """Says what a checkpoint gave to a model.

    Attributes:
        prefix: The checkpoint read.
        loaded: Paths that were read.
        missing: Paths of the model that the checkpoint lacks.
        unexpected: Paths of the checkpoint that the model lacks.
        mismatching: Paths of different shape, as `"path: found, expected"`.
    """

    prefix: str
    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatching: tuple[str, ...] = ()

    @property
    def is_exact(self) -> bool:
        """True if model and checkpoint hold exactly the same variables."""
        return not (self.missing or self.unexpected or self.mismatching)


def variable_paths(model: Any) -> dict[str, Any]:
    """Maps checkpoint paths to the variables of a model.

    Layers inside layers (and models inside models) carry their whole path as name,
    too, so it does not matter how deep a variable lies.

    Returns:
        `{"encoder/_blocks/0/_conv/kernel": variable, ...}`.
    """
    layers = [m for m in model.submodules if isinstance(m, tf_keras.layers.Layer)]
    return {
        f"{layer.name}/{_leaf(variable)}": variable
        for layer in layers
        for variable in _own_variables(layer)
    }


def resolve_checkpoint(location: str | Path) -> str:
    """Turns what a user calls a checkpoint into a checkpoint prefix.

    Args:
        location: `"demo"`, a prefix, one of a checkpoint's files, or a folder, of
            which the latest checkpoint is taken.

    Raises:
        CheckpointError: If there is none, or a folder does not say which is meant.
    """
    if str(location) == assets.DEMO_CHECKPOINT:
        return assets.demo_checkpoint_prefix()
    path = Path(location)
    if path.is_dir():
        return _latest_in(path)
    prefix = re.sub(r"\.(index|data-\d{5}-of-\d{5})$", "", str(path))
    if not Path(prefix + ".index").is_file():
        raise CheckpointError(
            f"{location}: no checkpoint here; expected a folder, or a prefix with "
            f"files {Path(prefix).name}.index and {Path(prefix).name}.data-*"
        )
    return prefix


def load_weights(
    model: Any,
    location: str | Path,
    *,
    skip: Iterable[str] = (),
    allow_partial: bool = False,
) -> LoadReport:
    """Fills a model's variables from a checkpoint, by key.

    Half-precision values are widened.

    Args:
        model: A model of `build_model`, or any whose layers are named by path.
        location: See `resolve_checkpoint`.
        skip: Root items that keep their values, for example `"semantic_last_layer"`.
        allow_partial: Accept a checkpoint that holds only some of the variables.

    Raises:
        CheckpointError: If it cannot be read, a shape differs, nothing matches, or
            a variable is missing and `allow_partial` is not set.
    """
    prefix = resolve_checkpoint(location)
    reader = open_checkpoint(prefix)
    stored = _stored_variables(reader)
    skipped = tuple(skip)
    wanted = {
        path: variable
        for path, variable in variable_paths(model).items()
        if path.split("/")[0] not in skipped
    }
    report = _compare(prefix, wanted, stored)
    if report.mismatching:
        raise CheckpointError(
            f"{prefix}: {len(report.mismatching)} variables have another shape than "
            f"the configuration asks for, first {report.mismatching[0]}"
        )
    if not report.loaded:
        raise CheckpointError(
            f"{prefix}: holds none of the model's {len(wanted)} variables; its first "
            f"is {min(stored, default='(no variable at all)')}"
        )
    if report.missing and not allow_partial:
        raise CheckpointError(
            f"{prefix}: {len(report.missing)} of the model's {len(wanted)} variables "
            f"are missing, first {report.missing[0]}; is it another architecture?"
        )
    for path in report.loaded:
        wanted[path].assign(_read(reader, prefix, stored[path].key))
    return report


def inspect_checkpoint(model: Any, location: str | Path) -> LoadReport:
    """Compares the variables of a model and a checkpoint without loading any."""
    prefix = resolve_checkpoint(location)
    stored = _stored_variables(open_checkpoint(prefix))
    return _compare(prefix, variable_paths(model), stored)


def save_weights(model: Any, prefix: str | Path, *, half: bool = False) -> str:
    """Writes a model's variables as a checkpoint with published keys.

    Args:
        model: See `load_weights`.
        prefix: Folder and base name of the files.
        half: Store kernels as float16, for files that travel; vectors (batch norm,
            biases) stay float32, since variances may leave float16's range.

    Returns:
        The prefix.

    Raises:
        CheckpointError: If the files cannot be written.
    """
    variables = variable_paths(model)
    if half:
        variables = {
            path: tf.Variable(tf.cast(v, tf.float16)) if v.shape.rank > 1 else v
            for path, v in variables.items()
        }
    try:
        Path(prefix).parent.mkdir(parents=True, exist_ok=True)
        # TensorFlow writes to a temporary name and renames.
        return str(tf.train.Checkpoint(**track(variables)).write(str(prefix)))
    except (OSError, tf.errors.OpError) as error:
        raise CheckpointError(
            f"{prefix}: the checkpoint cannot be written ({error})"
        ) from None


def track(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Builds trackable trees that spell the paths of `variables`.

    Returns:
        Root items for `tf.train.Checkpoint(**items)`, for example `encoder`.
    """
    root = _Node()
    for path, variable in variables.items():
        node = root
        *edges, leaf = path.split("/")
        for edge in edges:
            if not hasattr(node, edge):
                setattr(node, edge, _Node())
            node = getattr(node, edge)
        setattr(node, leaf, variable)
    return {name: getattr(root, name) for name in {p.split("/")[0] for p in variables}}


def open_checkpoint(prefix: str) -> Any:
    """Opens a checkpoint for reading by key.

    Raises:
        CheckpointError: If it is missing or damaged.
    """
    try:
        return tf.train.load_checkpoint(prefix)
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{prefix}: cannot be read ({reason})") from None


class _Node(tf.Module):  # type: ignore[misc]
    """Is an inner node of a checkpoint's object graph."""


@dataclass(frozen=True)
class _Stored:
    key: str
    shape: tuple[int, ...] = field(default=())


def _own_variables(layer: Any) -> list[Any]:
    """Returns the variables a layer made itself, not those of layers inside it."""
    inner = {
        id(variable)
        for part in layer.submodules
        if isinstance(part, tf_keras.layers.Layer)
        for variable in part.weights
    }
    return [variable for variable in layer.weights if id(variable) not in inner]


def _leaf(variable: Any) -> str:
    return str(variable.name).split("/")[-1].split(":")[0]


def _latest_in(folder: Path) -> str:
    latest = tf.train.latest_checkpoint(str(folder))
    if latest is not None:
        return str(latest)
    # Some published archives lack the small file that names the latest one.
    candidates = sorted(folder.glob("*.index"))
    if len(candidates) != 1:
        raise CheckpointError(
            f"{folder}: holds {len(candidates)} checkpoints and no file 'checkpoint' "
            "that names the latest; give the prefix of one"
        )
    return str(candidates[0])[: -len(".index")]


def _stored_variables(reader: Any) -> dict[str, _Stored]:
    stored = {}
    for key, shape in reader.get_variable_to_shape_map().items():
        if _STATE.search(key):
            continue
        path = key.removesuffix(_SUFFIX)
        if path.startswith(_FOREIGN_ENCODER):
            path = "encoder/" + path.removeprefix(_FOREIGN_ENCODER)
        stored[path] = _Stored(key, tuple(shape))
    return stored


def _compare(
    prefix: str, wanted: Mapping[str, Any], stored: Mapping[str, _Stored]
) -> LoadReport:
    common = sorted(set(wanted) & set(stored))
    mismatching = [p for p in common if tuple(wanted[p].shape) != stored[p].shape]
    return LoadReport(
        prefix=prefix,
        loaded=tuple(p for p in common if p not in set(mismatching)),
        missing=tuple(sorted(set(wanted) - set(stored))),
        unexpected=tuple(sorted(set(stored) - set(wanted))),
        mismatching=tuple(
            f"{p}: found {stored[p].shape}, expected {tuple(wanted[p].shape)}"
            for p in mismatching
        ),
    )


def _read(reader: Any, prefix: str, key: str) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(reader.get_tensor(key), np.float32)
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        # IndexError is what TensorFlow makes of a data file that is cut short.
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{prefix}: {key} is damaged ({reason})") from None
