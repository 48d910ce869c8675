"""Keras models behind the interface of the runtime, and their metadata."""

from collections.abc import Mapping

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge import keys
from deeplab2_edge.config import ExperimentOptions, apply_overrides, parse_config
from deeplab2_edge.errors import ConfigError, DataError
from deeplab2_edge.families import PANOPTIC
from deeplab2_edge.model_file import ModelMetadata, ResizeRule
from deeplab2_edge.models.engine import (
    KerasEngine,
    dataset_of,
    describe_model,
    load_engine,
)
from deeplab2_edge.optional import require
from deeplab2_edge.panoptic import MergeSettings
from deeplab2_edge.runtime.segmenter import PanopticSegmenter
from tests.convert.tiny import SIZE, build_tiny, picture, tiny_config

tf = require("tensorflow", extra="train")

pytestmark = pytest.mark.tf


@pytest.fixture(scope="module")
def model() -> object:
    return build_tiny()


class FakeNetwork:
    """Has the shapes of a network, at any size, and nothing else."""

    family = PANOPTIC

    def __init__(self, height: int, width: int) -> None:
        shape = (1, height, width, 3)
        self.inputs = {keys.IMAGE: tf.TensorSpec(shape, tf.uint8, keys.IMAGE)}
        size = (height - 1) // 4 + 1, (width - 1) // 4 + 1
        channels = {
            keys.SEMANTIC_LOGITS: 11,
            keys.CENTER_HEATMAP: 1,
            keys.OFFSET_MAP: 2,
        }
        self.outputs = {name: (*size, count) for name, count in channels.items()}


def describe(
    height: int, width: int, overrides: Mapping[str, object] | None = None
) -> ModelMetadata:
    config = apply_overrides(
        tiny_config(),
        {"eval_dataset_options.crop_size": [65, 129], **(overrides or {})},
    )
    return describe_model(config, FakeNetwork(height, width))  # type: ignore[arg-type]


def merge_of(metadata: ModelMetadata) -> MergeSettings:
    assert metadata.merge is not None
    return metadata.merge


def test_engine_gives_the_heads_of_the_model(model: object) -> None:
    engine = KerasEngine(model, tiny_config())
    heads = engine.run({keys.IMAGE: picture(0)})
    expected = model(picture(0)[None].astype(np.float32))  # type: ignore[operator]
    np.testing.assert_allclose(
        heads[keys.SEMANTIC_LOGITS], expected[keys.SEMANTIC_LOGITS][0], atol=1e-5
    )
    np.testing.assert_allclose(
        heads[keys.CENTER_HEATMAP], expected[keys.CENTER_HEATMAP][0], atol=1e-5
    )
    assert heads[keys.OFFSET_MAP].shape == (9, 17, 2)


def test_engine_refuses_another_canvas(model: object) -> None:
    engine = KerasEngine(model, tiny_config())
    with pytest.raises(DataError, match=r"takes uint8 \[33, 65, 3\]"):
        engine.run({keys.IMAGE: np.zeros((33, 33, 3), np.uint8)})


def test_engine_serves_the_public_segmenter(model: object) -> None:
    engine = KerasEngine(model, tiny_config())
    result = PanopticSegmenter(engine)(picture(1, (50, 60)))
    assert result.panoptic.shape == (50, 60)


def test_metadata_says_what_the_configuration_says(model: object) -> None:
    engine = KerasEngine(model, tiny_config(), provenance={"checkpoint": "x"})
    metadata = engine.metadata
    assert metadata.merge is not None
    assert metadata.name == "tiny"
    assert metadata.canvas == SIZE
    assert metadata.head_size == (9, 17)
    assert metadata.family == PANOPTIC
    assert metadata.meta_architecture == "panoptic_deeplab"
    assert metadata.class_names[8:] == ("car", "pedestrian", "cyclist")
    assert metadata.thing_ids == (8, 9, 10)
    assert (metadata.label_divisor, metadata.ignore_label) == (1000, 255)
    assert metadata.merge.nms_kernel == 7
    assert metadata.merge.stuff_area_limit == 10
    assert not metadata.merge.merge_plateaus
    assert metadata.resize == ResizeRule()
    assert metadata.provenance == {"checkpoint": "x"}


def test_merge_settings_follow_the_canvas() -> None:
    merge = {
        "evaluator_options.nms_kernel": 13,
        "evaluator_options.stuff_area_limit": 2048,
    }
    assert merge_of(describe(65, 129, merge)).nms_kernel == 13
    half = merge_of(describe(33, 65, merge))
    assert half.nms_kernel == 7
    assert half.stuff_area_limit == round(2048 * 33 * 65 / (65 * 129))
    tiny = describe(17, 33, {**merge, "evaluator_options.nms_kernel": 7}).merge
    assert tiny.nms_kernel == 3


def test_even_kernel_is_kept_on_its_own_canvas() -> None:
    assert (
        merge_of(describe(65, 129, {"evaluator_options.nms_kernel": 8})).nms_kernel == 8
    )


def test_resize_rule_follows_the_canvas() -> None:
    fit = {
        "eval_dataset_options.min_resize_value": [65, 129],
        "eval_dataset_options.max_resize_value": [65, 129],
        "eval_dataset_options.resize_factor": 4,
    }
    assert describe(65, 129, fit).resize == ResizeRule((65, 129), (65, 129), 4)
    assert describe(33, 65, fit).resize == ResizeRule((33, 65), (33, 65), 4)
    square = {"eval_dataset_options.min_resize_value": 60}
    assert describe(65, 129, square).resize == ResizeRule((60, 60))


def test_zero_resize_values_mean_none() -> None:
    none = {
        "eval_dataset_options.min_resize_value": 0,
        "eval_dataset_options.max_resize_value": 0,
    }
    assert describe(65, 129, none).resize == ResizeRule()


def test_class_count_must_fit_the_data_set() -> None:
    config = apply_overrides(
        tiny_config(), {"eval_dataset_options.dataset": "cityscapes_panoptic"}
    )
    with pytest.raises(ConfigError, match="output_channels is 11.*has 19 classes"):
        dataset_of(config)


def test_data_set_must_be_named() -> None:
    config: ExperimentOptions = apply_overrides(
        tiny_config(),
        {"eval_dataset_options": None, "train_dataset_options": None},
    )
    with pytest.raises(ConfigError, match="eval_dataset_options.dataset is missing"):
        dataset_of(config)


_HEAD = "{ output_channels: 11 head_channels: 8 }"


@pytest.mark.parametrize(
    ("architecture", "options", "field"),
    [
        ("deeplab_v3", "num_classes: 11", "num_classes"),
        ("deeplab_v3_plus", "num_classes: 11", "num_classes"),
        ("motion_deeplab", f"semantic_head {_HEAD}", "semantic_head.output_channels"),
        ("vip_deeplab", f"semantic_head {_HEAD}", "semantic_head.output_channels"),
        (
            "max_deeplab",
            f"auxiliary_semantic_head {_HEAD}",
            "auxiliary_semantic_head.output_channels",
        ),
    ],
)
def test_every_architecture_has_a_data_set_but_not_an_engine(
    architecture: str, options: str, field: str
) -> None:
    text = f"model_options {{ {architecture} {{ {options} }} }}"
    config = tiny_config().replace(model_options=parse_config(text).model_options)
    assert dataset_of(config).name == "synthetic_street"
    other = apply_overrides(
        config, {"eval_dataset_options.dataset": "cityscapes_panoptic"}
    )
    with pytest.raises(ConfigError, match=rf"{architecture}\.{field} is 11; .* has 19"):
        dataset_of(other)


def test_a_missing_canvas_names_the_option() -> None:
    config = apply_overrides(tiny_config(), {"eval_dataset_options.crop_size": None})
    with pytest.raises(ConfigError, match="crop_size is not set; .*--input-size HxW"):
        load_engine(config, "no checkpoint is read")


def test_a_missing_semantic_head_is_named() -> None:
    config = tiny_config()
    head = "model_options.panoptic_deeplab.semantic_head"
    with pytest.raises(ConfigError, match=f"{head} is missing"):
        dataset_of(apply_overrides(config, {head: None}))
    with pytest.raises(ConfigError, match="the meta-architecture is missing"):
        dataset_of(apply_overrides(config, {"model_options": None}))


def test_what_has_no_results_is_refused_before_it_is_built() -> None:
    config = apply_overrides(tiny_config(), {"model_options": None})
    with pytest.raises(ConfigError, match="the meta-architecture is missing"):
        load_engine(config, "no checkpoint is read")
