"""Half-precision policies: every family stays finite and near float32."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

import tensorflow as tf
import tf_keras

from deeplab2_edge.checkpoints import variable_paths
from deeplab2_edge.config import ExperimentOptions, apply_overrides, load_config
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.experiments import find_recipe
from deeplab2_edge.models import build_model, input_channels
from tests.models import synthetic_weights

pytestmark = pytest.mark.tf

SIZE = (33, 65)
# Recipe -> what makes it small.
FAMILIES = {
    "cityscapes_panoptic_swidernet_sac_1_1_1_os16": {"width": 0.125},
    "cityscapes_axial_max_deeplab_s_backbone_os16": {"width": 0.125},
    "coco_max_deeplab_s_os16_res641_100k": {"width": 0.125},
    "cityscapes_dvps_vip_resnet50_beta_os32": {"width": 0.125},
    "cityscapes_panoptic_mobilenet_v3_small_os32": {"width": 0.5},
}


def narrow(recipe: str) -> ExperimentOptions:
    return apply_overrides(
        load_config(find_recipe(recipe)),
        {"model_options.backbone.backbone_width_multiplier": FAMILIES[recipe]["width"]},
    )


def build(recipe: str, precision: str) -> Any:
    model = build_model(narrow(recipe), input_size=SIZE, precision=precision)
    for path, variable in variable_paths(model).items():
        variable.assign(synthetic_weights.weight(path, variable.shape))
    return model


@pytest.mark.parametrize(
    "precision",
    [pytest.param("mixed_bfloat16", marks=pytest.mark.slow), "mixed_float16"],
)
@pytest.mark.parametrize("recipe", FAMILIES)
def test_outputs_are_near_those_of_float32(recipe: str, precision: str) -> None:
    image = synthetic_weights.image((1, *SIZE, input_channels(narrow(recipe))))
    expected = build(recipe, "float32")(image)
    found = build(recipe, precision)(image)
    for name, output in found.items():
        assert output.dtype == tf.float32
        assert np.isfinite(output).all(), name
        difference = np.abs(output - expected[name]).mean() / np.std(expected[name])
        assert difference < (0.3 if precision == "mixed_bfloat16" else 0.05), name


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_training_is_finite(precision: str) -> None:
    recipe = "cityscapes_axial_max_deeplab_s_backbone_os16"
    model = build(recipe, precision)
    image = synthetic_weights.image((2, *SIZE, 3))
    with tf.GradientTape() as tape:
        outputs = model(image, training=True)
        loss = tf.add_n([tf.reduce_mean(output**2) for output in outputs.values()])
    for variable, gradient in zip(
        model.trainable_weights,
        tape.gradient(loss, model.trainable_weights),
        strict=True,
    ):
        assert variable.dtype == tf.float32
        assert gradient is not None, variable.name
        assert np.isfinite(tf.convert_to_tensor(gradient)).all(), variable.name
    for path, variable in variable_paths(model).items():
        assert np.isfinite(variable).all(), path


def test_policy_does_not_outlive_the_building() -> None:
    build("cityscapes_panoptic_mobilenet_v3_small_os32", "mixed_bfloat16")
    assert tf_keras.mixed_precision.global_policy().name == "float32"


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected one of float32, mixed_bfloat16"):
        build_model(
            narrow("cityscapes_panoptic_mobilenet_v3_small_os32"),
            input_size=SIZE,
            precision="float16",
        )
