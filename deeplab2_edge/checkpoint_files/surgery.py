"""Changes to stored variables that let a checkpoint begin another model.

Two cuts, both of the published training recipes. Motion-DeepLab starts from a model
of one frame, whose first convolution takes 3 channels of the 7. MOTChallenge-STEP
starts from Cityscapes and keeps 7 of its 19 classes.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.checkpoint_files.contents import CheckpointContents, StoredVariable
from deeplab2_edge.checkpoint_files.diagnosis import (
    Shapes,
    first_kernel,
    semantic_last_layer,
)
from deeplab2_edge.errors import CheckpointError, UsageError

_RGB = 3
# Current and previous frame and a heatmap make 7; nothing sensible has more.
_MAX_INPUT_CHANNELS = 64


def widen_first_layer(
    contents: CheckpointContents, wanted: Shapes
) -> CheckpointContents:
    """Gives the first convolution the input channels that a model asks for.

    The stored weights serve the first three channels, the RGB image; weights of the
    added ones are zero. So the model computes at first what it did with one frame.
    The published system has such checkpoints but not the rule they were made by; this
    one is ours.

    Args:
        contents: What the checkpoint holds.
        wanted: Shapes of the model's variables by path.

    Raises:
        CheckpointError: If there is nothing to widen, or more than channels differ.
    """
    path = first_kernel(wanted)
    if path is None or path not in contents.variables:
        raise CheckpointError(
            f"{contents.name}: has no first convolution {path or ''}; is its encoder "
            "that of the configuration?"
        )
    found, expected = contents.variables[path].shape, wanted[path]
    if found == expected:
        raise CheckpointError(
            f"{contents.name}: --widen-first-layer has nothing to widen, both take "
            f"{found[2]} channels; leave it out"
        )
    if (
        len(found) != 4
        or found[2] != _RGB
        or not _RGB < expected[2] <= _MAX_INPUT_CHANNELS
        or (*found[:2], found[3]) != (*expected[:2], expected[3])
    ):
        raise CheckpointError(
            f"{contents.name}: {path} is {found}, the model's {expected}; it can be "
            f"widened from {_RGB} input channels to more, the rest being equal"
        )
    added = expected[2] - _RGB

    def widen(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.pad(kernel, ((0, 0), (0, 0), (0, added), (0, 0)))

    stored = contents.variables[path]
    return _changed(contents, {path: replace(stored, shape=expected, change=widen)})


def keep_classes(
    contents: CheckpointContents, classes: Sequence[int]
) -> CheckpointContents:
    """Keeps some classes of the semantic last layer, in the given order.

    Args:
        contents: What the checkpoint holds.
        classes: Numbers of the kept classes: the new class `i` is the old `classes[i]`.

    Raises:
        UsageError: If the classes are none, repeated or out of range.
        CheckpointError: If there is no semantic last layer.
    """
    last = semantic_last_layer(contents.shapes)
    bias = contents.variables.get(f"{last}/bias")
    if last is None or bias is None or len(bias.shape) != 1:
        raise CheckpointError(
            f"{contents.name}: has no semantic_last_layer to choose classes of"
        )
    kernel = contents.variables[f"{last}/kernel"]
    count = bias.shape[0]
    outside = [number for number in classes if not 0 <= number < count]
    if not classes or outside or len(set(classes)) < len(classes):
        raise UsageError(
            f"classes to keep are {', '.join(map(str, classes)) or 'none'}; give "
            f"different numbers from 0 to {count - 1}"
        )
    if kernel.shape[-1:] != bias.shape:
        raise CheckpointError(
            f"{contents.name}: {last} has {kernel.shape} weights and {count} biases"
        )
    chosen = np.asarray(classes, np.int64)

    def keep(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return values[..., chosen]

    return _changed(
        contents,
        {
            f"{last}/{name}": replace(
                stored, shape=(*stored.shape[:-1], len(classes)), change=keep
            )
            for name, stored in (("kernel", kernel), ("bias", bias))
        },
    )


def _changed(
    contents: CheckpointContents, changes: dict[str, StoredVariable]
) -> CheckpointContents:
    return replace(contents, variables={**contents.variables, **changes})
