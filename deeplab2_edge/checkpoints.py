"""Reading and writing checkpoints under their published keys.

A checkpoint is a TensorFlow object checkpoint. The key of a variable is its path in
the object graph, for example
`encoder/_blocks/3/_conv3_bn/_conv/kernel/.ATTRIBUTES/VARIABLE_VALUE`. Our layers are
named by that path, so both directions are mechanical: loading reads by key, and saving
builds a tree of trackable nodes that spells the names.

Where a checkpoint lies and what it holds is told by `checkpoint_files`, without
TensorFlow.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.checkpoint_files import (
    CheckpointContents,
    StoredVariable,
    explain,
    read_contents,
    resolve_checkpoint,
)
from deeplab2_edge.checkpoint_files.contents import QUANTIZERS, SUFFIX
from deeplab2_edge.errors import CheckpointError
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")
tf_keras: Any = require("tf_keras", extra="train")

__all__ = [
    "LoadReport",
    "inspect_checkpoint",
    "load_quantizers",
    "load_weights",
    "quantizer_paths",
    "resolve_checkpoint",
    "save_weights",
    "track",
    "variable_paths",
]


@dataclass(frozen=True)
class LoadReport:
    """Says what a checkpoint gave to a model.

    Attributes:
        prefix: The checkpoint read.
        loaded: Paths that were read.
        missing: Paths of the model that the checkpoint lacks.
        unexpected: Paths of the checkpoint that the model lacks.
        mismatching: Paths of different shape, as `"path: found, expected"`.
        explanations: What makes checkpoint and model different, and what to do about
            it; empty if they fit, or if nothing telling was found.
    """

    prefix: str
    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatching: tuple[str, ...] = ()
    explanations: tuple[str, ...] = ()

    @property
    def is_exact(self) -> bool:
        """True if model and checkpoint hold exactly the same variables."""
        return not (self.missing or self.unexpected or self.mismatching)


def variable_paths(model: Any) -> dict[str, Any]:
    """Maps checkpoint paths to the variables of a model.

    A layer wrapped for quantization-aware training keeps the paths it has without; the
    ranges of its quantizers are not variables of the model, see `quantizer_paths`.
    Layers inside layers (and models inside models) carry their whole path as name,
    too, so it does not matter how deep a variable lies.

    Returns:
        `{"encoder/_blocks/0/_conv/kernel": variable, ...}`.
    """
    return {
        f"{_plain_name(layer)}/{_leaf(variable)}": variable
        for layer in _layers(model)
        for variable in _own_variables(layer)
        if not _is_of_quantizer(layer, variable)
    }


def quantizer_paths(model: Any) -> dict[str, Any]:
    """Maps checkpoint paths to what the quantizers of a network know: their ranges.

    A layer wrapped for quantization-aware training has its own variables under their
    plain paths, see `variable_paths`, and those of its quantizers under the same path
    below `quantizers`.

    Returns:
        `{"quantizers/encoder/_stem/_conv/kernel_min": variable, ...}`; empty for a
        float model.
    """
    return {
        f"{QUANTIZERS}/{_plain_name(layer)}/{_leaf(variable)}": variable
        for layer in _layers(model)
        for variable in _own_variables(layer)
        if _is_of_quantizer(layer, variable)
    }


def load_quantizers(model: Any, source: str | Path | CheckpointContents) -> int:
    """Fills the ranges of a quantized network from a checkpoint of its training.

    Args:
        model: A network with quantizers; its weights are read by `load_weights`.
        source: See `load_weights`.

    Returns:
        The number of variables.

    Raises:
        CheckpointError: If the checkpoint lacks one, or cannot be read.
    """
    contents = _contents(source)
    reader = _open(contents)
    wanted = quantizer_paths(model)
    missing = sorted(p for p in wanted if not reader.has_tensor(p + SUFFIX))
    if missing:
        raise CheckpointError(
            f"{contents.name}: holds {len(wanted) - len(missing)} of the {len(wanted)} "
            f"ranges of the network's quantizers, lacks {missing[0]}; expected a "
            "checkpoint of its quantization-aware training"
        )
    for path, variable in wanted.items():
        variable.assign(_read(reader, contents.name, path + SUFFIX))
    return len(wanted)


def load_weights(
    model: Any,
    source: str | Path | CheckpointContents,
    *,
    skip: Iterable[str] = (),
    allow_partial: bool = False,
) -> LoadReport:
    """Fills a model's variables from a checkpoint, by key.

    Half-precision values are widened. Of a checkpoint with keys of another trainer,
    `backbone/_encoder/...`, only the encoder is taken.

    Args:
        model: A model of `build_model`, or any whose layers are named by path.
        source: See `checkpoint_files.find_checkpoint`; or contents, for example after
            `widen_first_layer`.
        skip: Root items that keep their values, for example `"semantic_last_layer"`.
        allow_partial: Accept a checkpoint that holds only some of the variables.

    Raises:
        CheckpointError: If it cannot be read, a shape differs, nothing matches, or
            a variable is missing and `allow_partial` is not set. All of that is
            found out before any variable changes.
    """
    contents = _contents(source)
    skipped = frozenset(skip)
    wanted = {
        path: variable
        for path, variable in variable_paths(model).items()
        if path.split("/")[0] not in skipped
    }
    report = _compare(contents, wanted)
    _refuse(report, len(wanted), contents, allow_partial=allow_partial)
    reader = _open(contents)
    for path in report.loaded:
        stored = contents.variables[path]
        wanted[path].assign(stored.value(_read(reader, contents.name, stored.key)))
    return report


def inspect_checkpoint(
    model: Any, source: str | Path | CheckpointContents
) -> LoadReport:
    """Compares the variables of a model and a checkpoint without loading any."""
    return _compare(_contents(source), variable_paths(model))


def save_weights(
    model: Any,
    prefix: str | Path,
    *,
    half: bool = False,
    only: Iterable[str] | None = None,
) -> str:
    """Writes a model's variables as a checkpoint with published keys.

    Args:
        model: See `load_weights`.
        prefix: Folder and base name of the files.
        only: Paths to write; by default all.
        half: Store kernels as float16, for files that travel; vectors (batch norm,
            biases) stay float32, since variances may leave float16's range.

    Returns:
        The prefix.

    Raises:
        CheckpointError: If the files cannot be written.
    """
    variables = variable_paths(model)
    if only is not None:
        variables = {path: variables[path] for path in only}
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


def _layers(model: Any) -> list[Any]:
    return [m for m in model.submodules if isinstance(m, tf_keras.layers.Layer)]


def _is_wrapper(layer: Any) -> bool:
    """Tells the layers that quantize another one's weights and outputs."""
    return isinstance(layer, tf_keras.layers.Wrapper) and hasattr(
        layer, "quantize_config"
    )


def _plain_name(layer: Any) -> str:
    """Returns the name of a layer in the float network."""
    return str(layer.layer.name if _is_wrapper(layer) else layer.name)


def _is_of_quantizer(layer: Any, variable: Any) -> bool:
    """Tells the variables of quantizers from those of the layers they quantize.

    A wrapper takes the kernel of its layer over, which learns; ranges do not.
    """
    if _is_wrapper(layer):
        return not variable.trainable
    # The layer that quantizes the input of a network.
    return hasattr(layer, "quantizer") and not layer.trainable_weights


class _Node(tf.Module):  # type: ignore[misc]
    """Is an inner node of a checkpoint's object graph."""


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


def _contents(source: str | Path | CheckpointContents) -> CheckpointContents:
    if isinstance(source, CheckpointContents):
        return source
    return read_contents(source)


def _compare(contents: CheckpointContents, wanted: Mapping[str, Any]) -> LoadReport:
    stored: Mapping[str, StoredVariable] = contents.variables
    shapes = {path: tuple(variable.shape) for path, variable in wanted.items()}
    common = sorted(set(wanted) & set(stored))
    mismatching = {p for p in common if shapes[p] != stored[p].shape}
    missing = sorted(set(wanted) - set(stored))
    return LoadReport(
        prefix=contents.prefix,
        loaded=tuple(p for p in common if p not in mismatching),
        missing=tuple(missing),
        unexpected=tuple(sorted({*stored, *contents.passed_over} - set(wanted))),
        mismatching=tuple(
            f"{p}: found {stored[p].shape}, expected {shapes[p]}"
            for p in sorted(mismatching)
        ),
        explanations=(
            explain(shapes, contents.shapes, is_foreign=contents.is_foreign)
            if missing or mismatching
            else ()
        ),
    )


def _refuse(
    report: LoadReport,
    num_wanted: int,
    contents: CheckpointContents,
    *,
    allow_partial: bool,
) -> None:
    """Raises an error if a checkpoint cannot be loaded as it was asked for."""
    if not (report.loaded or report.mismatching):
        first = min((*contents.variables, *contents.passed_over), default="nothing")
        fault = (
            f"holds none of the model's {num_wanted} variables; its first is {first}"
        )
    elif report.mismatching:
        fault = (
            f"{len(report.mismatching)} variables have another shape than the "
            f"configuration asks for, first {report.mismatching[0]}"
        )
    elif report.missing and not allow_partial:
        fault = (
            f"{len(report.missing)} of the model's {num_wanted} variables are missing, "
            f"first {report.missing[0]}"
        )
    else:
        return
    raise CheckpointError(
        f"{contents.name}: {'; '.join((fault, *report.explanations))}"
    )


def _open(contents: CheckpointContents) -> Any:
    """Opens a checkpoint, whose index was checked, for reading values."""
    try:
        return tf.train.load_checkpoint(contents.prefix)
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{contents.name}: cannot be read ({reason})") from None


def _read(reader: Any, name: str, key: str) -> NDArray[Any]:
    try:
        return np.asarray(reader.get_tensor(key))
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{name}: {key} is damaged ({reason})") from None
