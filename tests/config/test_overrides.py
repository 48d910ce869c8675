from typing import Any

import pytest

from deeplab2_edge.config import (
    ExperimentOptions,
    apply_overrides,
    parse_config,
    parse_override,
    require_resolved,
    unresolved_placeholders,
)
from deeplab2_edge.errors import ConfigError

CONFIG = parse_config(
    """
experiment_name: "${EXPERIMENT_NAME}"
model_options {
  initial_checkpoint: "${INIT_CHECKPOINT}"
  panoptic_deeplab {
    low_level { feature_key: "res3" channels_project: 64 }
    low_level { feature_key: "res2" channels_project: 32 }
  }
}
train_dataset_options {
  file_pattern: "${TRAIN_SET}"
  file_pattern: "${VAL_SET}"
}
eval_dataset_options { file_pattern: "data/${VAL_SET}/*" }
""",
    source="f.textproto",
)


def test_overrides_reach_every_kind_of_field() -> None:
    config = apply_overrides(
        CONFIG,
        {
            "experiment_name": "a",
            "train_dataset_options.crop_size": [65, 129],
            "train_dataset_options.file_pattern": "x",
            "trainer_options.solver_options.base_learning_rate": 1,
            "model_options.panoptic_deeplab.low_level.1.channels_project": 16,
            "model_options.initial_checkpoint": None,
        },
    )
    assert config.experiment_name == "a"
    assert config.train_dataset_options.crop_size == (65, 129)
    assert config.train_dataset_options.file_pattern == ("x",)
    assert config.trainer_options.solver_options.base_learning_rate == 1.0
    assert config.trainer_options.has("solver_options")
    assert config.model_options.panoptic_deeplab is not None
    levels = config.model_options.panoptic_deeplab.low_level
    assert [level.channels_project for level in levels] == [64, 16]
    assert not config.model_options.has("initial_checkpoint")
    assert CONFIG.experiment_name == "${EXPERIMENT_NAME}"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "train_dataset_options.crop_sise",
            1,
            "override train_dataset_options.crop_sise: DatasetOptions has no "
            "'crop_sise'; did you mean crop_size",
        ),
        ("", 1, "ExperimentOptions has no ''"),
        ("experiment_name.x", 1, "experiment_name holds a quoted string; expected no"),
        ("experiment_name", 1, "override experiment_name: found 1; expected a quoted"),
        ("train_dataset_options.crop_size", ["a"], "expected a 32-bit integer"),
        ("model_options", "x", "expected a ModelOptions message"),
        (
            "model_options.panoptic_deeplab.low_level.2.channels_project",
            1,
            "found '2' after low_level; expected an index below 2, the number of "
            "LowLevelOptions there",
        ),
        ("model_options.panoptic_deeplab.low_level.0", 1, "expected a field after"),
        (
            "model_options.max_deeplab.semantic_sample_k",
            1,
            "panoptic_deeplab and max_deeplab are both set",
        ),
    ],
)
def test_a_wrong_override_is_refused(path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides(CONFIG, {path: value})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("train_dataset_options.batch_size=8", 8),
        ("train_dataset_options.crop_size=[65, 129]", [65, 129]),
        ("train_dataset_options.crop_size=65", [65]),
        ("train_dataset_options.file_pattern=data/a=b*", ["data/a=b*"]),
        ("train_dataset_options.file_pattern=['a', 'b']", ["a", "b"]),
        ("train_dataset_options.file_pattern=[ab]*.tfrecord", ["[ab]*.tfrecord"]),
        ("train_dataset_options.use_next_frame = true", True),
        ("model_options.panoptic_deeplab.low_level.0.feature_key=res4", "res4"),
        ("experiment_name='a b'", "a b"),
        ("${TRAIN_SET}=a/*", "a/*"),
    ],
)
def test_assignments_of_the_command_line(assignment: str, expected: Any) -> None:
    path, value = parse_override(ExperimentOptions, assignment)
    assert value == expected
    assert path == assignment.partition("=")[0].strip()
    apply_overrides(CONFIG, {path: value})


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("experiment_name", "expected path.of.field=value"),
        ("=3", "expected path.of.field=value"),
        ("experiment_nam=3", "did you mean experiment_name"),
        ("model_options=3", "expected the path of one field inside the ModelOptions"),
        (
            "train_dataset_options.batch_size=many",
            "train_dataset_options.batch_size: found 'many'; expected a 32-bit integer",
        ),
        ("train_dataset_options.batch_size=8 8", "batch_size: found '8'; expected"),
    ],
)
def test_a_wrong_assignment_is_refused(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_override(ExperimentOptions, assignment)
    assert message in str(caught.value)


def test_unresolved_placeholders_are_listed_by_path() -> None:
    assert unresolved_placeholders(CONFIG) == [
        "experiment_name",
        "model_options.initial_checkpoint",
        "train_dataset_options.file_pattern",
        "eval_dataset_options.file_pattern",
    ]


def test_a_placeholder_is_replaced_everywhere() -> None:
    config = apply_overrides(CONFIG, {"${VAL_SET}": "val", "${TRAIN_SET}": ["a", "b"]})
    assert config.train_dataset_options.file_pattern == ("a", "b", "val")
    assert config.eval_dataset_options.file_pattern == ("data/val/*",)
    assert config.experiment_name == "${EXPERIMENT_NAME}"


def test_several_values_do_not_fit_inside_a_text() -> None:
    with pytest.raises(ConfigError, match="found several values; expected one for"):
        apply_overrides(CONFIG, {"${VAL_SET}": ["a", "b"]})


def test_using_a_placeholder_names_it_and_its_place() -> None:
    with pytest.raises(ConfigError) as caught:
        require_resolved(CONFIG.train_dataset_options, "file_pattern")
    assert str(caught.value) == (
        "f.textproto:11: file_pattern is '${TRAIN_SET}'; expected a real value for "
        "${TRAIN_SET}: give it with --set '${TRAIN_SET}=...'"
    )
    resolved = apply_overrides(CONFIG, {"${TRAIN_SET}": "a", "${VAL_SET}": "b"})
    options = resolved.train_dataset_options
    assert require_resolved(options, "file_pattern") == ("a", "b")
