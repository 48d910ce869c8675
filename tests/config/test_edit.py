from typing import Any

import pytest

from deeplab2_edge.cli.recipes import load_recipe
from deeplab2_edge.config import apply_overrides, parse_config
from deeplab2_edge.config.edit import edit_text
from deeplab2_edge.errors import ConfigError

TEXT = """# A comment.

experiment_name: "${EXPERIMENT_NAME}"
train_dataset_options {
  # Another.
  file_pattern: "${TRAIN_SET}"
  crop_size: 65  # height
  crop_size: 129  # width
  batch_size: 8;
}
"""
D = "train_dataset_options"


def test_only_the_lines_of_a_field_change() -> None:
    assert edit_text(TEXT, {f"{D}.batch_size": 2}) == TEXT.replace("8;", "2")
    assert edit_text(TEXT, {f"{D}.crop_size": [33, 65]}) == TEXT.replace(
        "65  # height", "33"
    ).replace("129  # width", "65")


def test_a_field_that_was_not_set_becomes_the_first() -> None:
    assert edit_text(TEXT, {f"{D}.sigma": 5}) == TEXT.replace(
        "  # Another.\n", "  # Another.\n  sigma: 5.0\n"
    )


def test_a_placeholder_is_filled_where_it_stands() -> None:
    edited = edit_text(TEXT, {"${TRAIN_SET}": ["a-*", "b-*"], "experiment_name": "x"})
    assert edited == TEXT.replace("${EXPERIMENT_NAME}", "x").replace(
        'file_pattern: "${TRAIN_SET}"', 'file_pattern: "a-*"\n  file_pattern: "b-*"'
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"model_options.backbone.name": "resnet50", "experiment_name": 'a "b"'},
        {"model_options.panoptic_deeplab.low_level.1.channels_project": 8},
        {"model_options.decoder.atrous_rates": [1, 2, 3], f"{D}.sigma": 0.1},
        {"${TRAIN_SET}": "a", "${VAL_SET}": "b", "evaluator_options.nms_kernel": 5},
    ],
)
def test_the_text_says_what_overrides_would(changes: dict[str, Any]) -> None:
    recipe = load_recipe("cityscapes_panoptic_resnet50_os32")
    edited = edit_text(recipe.text, changes)
    assert parse_config(edited) == apply_overrides(recipe.config, changes)
    comments = [line for line in recipe.text.splitlines() if "#" in line]
    assert [line for line in edited.splitlines() if "#" in line] == comments


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        (TEXT, f"{D}.batch_sise", "did you mean batch_size"),
        (TEXT, f"{D}.augmentations.min_scale_factor", "augmentations is not set"),
        ("train_dataset_options { batch_size: 8 }", f"{D}.batch_size", "line of its"),
        (f"{D} {{\ncrop_size: [65,\n 65]\n}}", f"{D}.crop_size", "a:2: .* line of its"),
        (f"{D} {{\ncrop_size: 65\n\ncrop_size: 65\n}}", f"{D}.crop_size", "of its own"),
    ],
)
def test_a_text_that_is_laid_out_otherwise_is_refused(
    text: str, path: str, message: str
) -> None:
    value: Any = [33, 33] if path.endswith("crop_size") else 1
    with pytest.raises(ConfigError, match=message):
        edit_text(text, {path: value}, source="a")
