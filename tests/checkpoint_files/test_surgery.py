"""Cuts that let a checkpoint begin another model."""

import numpy as np
import pytest

from deeplab2_edge.checkpoint_files import (
    CheckpointContents,
    StoredVariable,
    keep_classes,
    widen_first_layer,
)
from deeplab2_edge.errors import CheckpointError, UsageError

STEM = "encoder/_stem/_conv/kernel"


def contents(**shapes: tuple[int, ...]) -> CheckpointContents:
    """Makes contents; `__` in a name is a slash of the path."""
    paths = {name.replace("__", "/"): shape for name, shape in shapes.items()}
    return CheckpointContents(
        "files/ckpt",
        "ckpt",
        {path: StoredVariable(path, shape) for path, shape in paths.items()},
    )


@pytest.mark.parametrize(
    "stem",
    [
        STEM,
        "encoder/_stem/_conv1_bn_act/_conv/kernel",
        "encoder/_blocks/0/_conv/kernel",
    ],
)
def test_the_first_layer_gets_channels_of_zeros(stem: str) -> None:
    before = CheckpointContents(
        "files/ckpt", "ckpt", {stem: StoredVariable("key", (3, 3, 3, 2))}
    )
    variable = widen_first_layer(before, {stem: (3, 3, 7, 2)}).variables[stem]
    assert variable.shape == (3, 3, 7, 2)
    kernel = np.arange(54, dtype=np.float32).reshape(3, 3, 3, 2)
    value = variable.value(kernel)
    np.testing.assert_array_equal(value[:, :, :3], kernel)
    np.testing.assert_array_equal(value[:, :, 3:], 0)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ((7, 7, 3, 64), (3, 3, 7, 64)),
        ((7, 7, 3, 64), (7, 7, 7, 32)),
        ((7, 7, 6, 64), (7, 7, 7, 64)),
        ((7, 7, 3, 64), (7, 7, 10**6, 64)),
        ((7, 3, 64), (7, 7, 7, 64)),
    ],
)
def test_only_rgb_is_widened_and_the_rest_must_fit(
    found: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    before = CheckpointContents(
        "files/ckpt", "ckpt", {STEM: StoredVariable("key", found)}
    )
    with pytest.raises(CheckpointError, match="can be widened from 3 input channels"):
        widen_first_layer(before, {STEM: expected})


def test_nothing_to_widen_is_told_so() -> None:
    with pytest.raises(CheckpointError, match="both take 3 channels; leave it out"):
        widen_first_layer(contents(**{STEM: (7, 7, 3, 64)}), {STEM: (7, 7, 3, 64)})


def test_a_missing_first_layer_is_named() -> None:
    with pytest.raises(CheckpointError, match=f"no first convolution {STEM}"):
        widen_first_layer(contents(a=(1,)), {STEM: (7, 7, 7, 64)})


@pytest.mark.parametrize("last", ["semantic_last_layer", "semantic_last_layer/_conv"])
def test_classes_are_kept_in_the_given_order(last: str) -> None:
    before = CheckpointContents(
        "files/ckpt",
        "ckpt",
        {
            f"{last}/kernel": StoredVariable("k", (1, 1, 4, 19)),
            f"{last}/bias": StoredVariable("b", (19,)),
            "other": StoredVariable("other", (19,)),
        },
    )
    after = keep_classes(before, [1, 2, 8, 10, 11, 12, 18]).variables
    assert after[f"{last}/kernel"].shape == (1, 1, 4, 7)
    bias = after[f"{last}/bias"].value(np.arange(19))
    assert bias.tolist() == [1, 2, 8, 10, 11, 12, 18]
    kernel = np.arange(76, dtype=np.float32).reshape(1, 1, 4, 19)
    np.testing.assert_array_equal(
        after[f"{last}/kernel"].value(kernel)[..., 2], kernel[..., 8]
    )
    assert after["other"] == before.variables["other"]


@pytest.mark.parametrize("classes", [[], [1, 1], [19], [-1]])
def test_classes_must_be_there_and_differ(classes: list[int]) -> None:
    before = contents(
        semantic_last_layer__kernel=(1, 1, 4, 19), semantic_last_layer__bias=(19,)
    )
    with pytest.raises(UsageError, match="different numbers from 0 to 18"):
        keep_classes(before, classes)


@pytest.mark.parametrize(
    "before",
    [
        contents(a=(1,)),
        contents(semantic_last_layer__kernel=(1, 1, 4, 19)),
        contents(
            semantic_last_layer__kernel=(1, 1, 4, 18), semantic_last_layer__bias=(19,)
        ),
    ],
)
def test_a_layer_without_classes_is_an_error(before: CheckpointContents) -> None:
    with pytest.raises(CheckpointError, match="semantic_last_layer"):
        keep_classes(before, [0])
