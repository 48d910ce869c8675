import importlib.resources
from typing import Any

import pytest

from deeplab2_edge.config import (
    ExperimentOptions,
    apply_overrides,
    format_config,
    load_config,
    parse_config,
    validate_config,
)
from deeplab2_edge.datasets.registry import get_dataset
from deeplab2_edge.errors import ConfigError

CITYSCAPES = get_dataset("cityscapes_panoptic")


def recipe(name: str = "cityscapes_panoptic_mobilenet_v3_small_os16") -> Any:
    folder = importlib.resources.files("deeplab2_edge.train.recipes")
    text = folder.joinpath(name.removesuffix(".textproto") + ".textproto").read_text()
    return parse_config(text, source="recipe")


def faults(config: ExperimentOptions, info: Any = CITYSCAPES) -> str:
    try:
        validate_config(config, info)
    except ConfigError as error:
        return str(error)
    return ""


M, P = "model_options", "model_options.panoptic_deeplab"
T, L = "trainer_options", "trainer_options.loss_options"
S, D = "trainer_options.solver_options", "train_dataset_options"
A, V = "train_dataset_options.augmentations", "evaluator_options"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (f"{M}.backbone.name", "mobilenet_v3_smal", "did you mean mobilenet_v3_small"),
        (f"{M}.backbone.name", "kmax_resnet50", "kMaX-DeepLab is outside this"),
        (f"{M}.backbone.output_stride", 12, "is 12; expected 4, 8, 16 or 32"),
        (f"{M}.backbone.use_squeeze_and_excite", False, "expected true with mobilenet"),
        (f"{M}.backbone.drop_path_keep_prob", 0.8, "is 0.8; expected 1 with mobilenet"),
        (f"{M}.backbone.drop_path_keep_prob", 0, "a probability above 0, at most 1"),
        (f"{M}.backbone.drop_path_schedule", "line", "or linear; did you mean linear?"),
        (f"{M}.backbone.backbone_layer_multiplier", 2, "expected 1 with mobilenet_v3_"),
        (f"{M}.backbone.use_sac_beyond_stride", 32, "expected -1 with mobilenet_v3_"),
        (f"{M}.backbone.backbone_width_multiplier", 0, "expected a number above 0"),
        (f"{M}.panoptic_deeplab", None, f"{M}.meta_architecture is not set; expected"),
        (f"{M}.decoder.feature_key", "", "is ''; expected e.g. 'res5'"),
        (
            f"{M}.decoder.feature_key",
            "rse5",
            "is 'rse5'; expected a feature of mobilenet_v3_small: res1, res2, res3, "
            "res4 or res5; did you mean res5",
        ),
        (
            f"{P}.low_level.1.feature_key",
            "stage2",
            f"{P}.low_level.1.feature_key is 'stage2'; expected a feature of mobilenet",
        ),
        (f"{M}.decoder.atrous_rates", [6], "is [6]; expected three positive rates"),
        (f"{M}.decoder.atrous_rates", [6, 0, 1], "expected three positive rates"),
        (f"{M}.decoder.decoder_conv_type", "x", "depthwise_separable_conv or standard"),
        (f"{M}.decoder.aspp_channels", 0, "is 0; expected at least 1"),
        (f"{P}.low_level.0.channels_project", 0, "low_level.channels_project is 0"),
        (f"{P}.low_level.0.feature_key", "", "is ''; expected e.g. 'res3'"),
        (f"{P}.semantic_head", None, f"{P}.semantic_head is not set; expected this"),
        (f"{P}.semantic_head.output_channels", 7, "is 7; expected 19, the classes of"),
        (
            f"{P}.semantic_head.head_channels",
            0,
            "head_channels is 0; expected at least",
        ),
        (f"{P}.instance.center_head", None, "center_head is not set; expected this"),
        (f"{P}.instance.center_head.output_channels", 2, "is 2; expected 1"),
        (f"{P}.instance.regression_head.output_channels", 1, "is 1; expected 2"),
        (
            f"{P}.instance.instance_decoder_override.atrous_rates",
            [],
            "instance_decoder_override.atrous_rates is []; expected three",
        ),
        (f"{P}.instance.enable", False, "center_loss is set, but the model has no"),
        (f"{L}.center_loss", None, "center_loss is not set; expected this loss"),
        (f"{L}.depth_loss.name", "depth_loss", "depth_loss is set, but the model has"),
        (f"{L}.semantic_loss.name", "ce", "is 'ce'; expected softmax_cross_entropy"),
        (f"{L}.semantic_loss.weight", -1, "is -1; expected 0 or more"),
        (f"{L}.semantic_loss.top_k_percent", 20, "is 20; expected a fraction in 0..1"),
        (
            f"{T}.save_summaries_steps",
            250,
            "a multiple of steps_per_loop, 100, which has no other effect",
        ),
        (f"{T}.steps_per_loop", 0, "is 0; expected at least 1"),
        (
            f"{S}.optimizer",
            "adamx",
            "expected adam or sgd or adamw; did you mean adam",
        ),
        (f"{S}.learning_policy", "step", "expected poly or cosine"),
        (f"{S}.base_learning_rate", 0, "expected a number above 0"),
        (f"{S}.weight_decay", -1, "expected 0 or more"),
        (f"{S}.batchnorm_momentum", 1.5, "expected a fraction in 0..1"),
        (f"{S}.warmup_steps", 70000, "expected 0..60000, the training_number_of_steps"),
        (
            f"{D}.crop_size",
            [1024, 2048],
            f"{D}.crop_size is [1024, 2048]; expected k * output_stride + 1 for each "
            "side (output_stride is 16). Nearest that fits: [1009, 2033] and "
            "[1025, 2049]",
        ),
        (f"{D}.crop_size", [1025], "is [1025]; expected two numbers: height, width"),
        (f"{D}.min_resize_value", [1, 2, 3], "expected nothing, one number, or height"),
        (f"{D}.max_resize_value", [1026], "expected at most crop_size, [1025, 2049]"),
        (f"{D}.sigma", 0, "expected a number above 0"),
        (f"{D}.resize_factor", -1, "expected 0 or more"),
        (f"{D}.batch_size", 0, "is 0; expected at least 1"),
        ("eval_dataset_options.batch_size", 2, "is 2; expected 1 for evaluation"),
        (f"{D}.use_two_frames", True, "is true; expected false with panoptic_deeplab"),
        (f"{A}.max_scale_factor", 0.25, "expected at least min_scale_factor, 0.5"),
        (f"{A}.min_scale_factor", 0, "expected a number above 0"),
        (f"{A}.scale_factor_step_size", -1, "expected 0 or more"),
        (f"{A}.autoaugment_policy_name", "x", "expected simple_classification_policy"),
        (
            f"{A}.panoptic_copy_paste.panoptic_copy_paste_void_option",
            "some",
            "is 'some'; expected random or none or all",
        ),
        (f"{V}.nms_kernel", 6, "is 6; expected an odd number"),
        (f"{V}.eval_steps", 0, "expected -1 (the whole set) or at least 1"),
        (f"{V}.stuff_area_limit", -1, "expected 0 or more"),
        (f"{V}.eval_scales", [0], "expected numbers above 0"),
        (f"{V}.raw_panoptic_format", "png", "expected two_channel_png or three_"),
        (
            f"{V}.transformer_post_processing",
            "maskwise",
            "maskwise_postprocessing is not set; expected it with",
        ),
    ],
)
def test_a_fault_is_found(path: str, value: Any, message: str) -> None:
    assert message in faults(apply_overrides(recipe(), {path: value}))


def test_all_faults_are_told_at_once_with_their_lines() -> None:
    text = format_config(recipe()).replace("crop_size: 1025", "crop_size: 1024")
    text = text.replace('optimizer: "adam"', 'optimizer: "Adam"')
    told = faults(parse_config(text, source="a.textproto"))
    assert told.startswith("3 faults in the configuration:\n  a.textproto:")
    line = next(i for i, row in enumerate(text.splitlines(), 1) if "optimizer" in row)
    assert f"a.textproto:{line}: trainer_options.solver_options.optimizer is" in told
    assert told.count("Nearest that fits: [1009, 2049] and [1025, 2049]") == 2


def test_sections_that_are_not_set_are_not_checked() -> None:
    assert faults(parse_config("")) == ""
    assert faults(recipe().replace(trainer_options=None)) == ""


def test_a_section_may_be_needed() -> None:
    with pytest.raises(ConfigError) as caught:
        validate_config(parse_config(""), needs=("train_dataset_options",))
    assert str(caught.value) == (
        "train_dataset_options is not set; expected it for this task"
    )


def test_without_a_data_set_class_counts_are_not_checked() -> None:
    path = f"{P}.semantic_head.output_channels"
    assert faults(apply_overrides(recipe(), {path: 7}), None) == ""


def test_raw_predictions_need_a_mapping_to_evaluation_ids() -> None:
    config = apply_overrides(recipe(), {f"{V}.save_raw_predictions": True})
    assert faults(config) == ""
    assert "false, since kitti_step has no mapping to evaluation ids" in faults(
        config, get_dataset("kitti_step")
    )


HEADS = """
  low_level { feature_key: "res3" channels_project: 64 }
  semantic_head { output_channels: 19 head_channels: 256 }
  instance {
    center_head { output_channels: 1 head_channels: 32 }
    regression_head { output_channels: 2 head_channels: 32 }
    next_regression_head { output_channels: 2 head_channels: 32 }
  }
"""
DECODER = 'decoder { feature_key: "res5" atrous_rates: [3, 6, 9] }'
LOSSES = """
  semantic_loss { name: "softmax_cross_entropy" }
  center_loss { name: "mse" }
  regression_loss { name: "l1" }
"""


def experiment(model: str, losses: str, data: str = "") -> ExperimentOptions:
    data = f"{{ crop_size: [65, 97] {data} }}"
    return parse_config(
        f"model_options {{ {model} }} trainer_options {{ save_summaries_steps: 1000 "
        f"loss_options {{ {losses} }} }} train_dataset_options {data} "
        f"eval_dataset_options {data}"
    )


def test_vip_deeplab() -> None:
    info = get_dataset("cityscapes_dvps")
    depth = """depth_head { output_channels: 1 head_channels: 64
        max_value_after_activation: 88 }"""
    model = f"{DECODER} vip_deeplab {{ {HEADS} {depth} }}"
    losses = f'{LOSSES} next_regression_loss {{ name: "l1" }}'
    depth_loss = 'depth_loss { name: "depth_loss" }'
    config = experiment(model, losses + depth_loss, "use_next_frame: true")
    assert faults(config, info) == ""
    assert "depth_loss is not set" in faults(
        experiment(model, losses, "use_next_frame: true"), info
    )
    told = faults(config, get_dataset("cityscapes_panoptic"))
    assert "has no depth; expected no depth_head" in told
    assert "expected a video data set or panoptic_deeplab" in told
    told = faults(experiment(model, losses + depth_loss), info)
    assert told.count("use_next_frame is false; expected true with vip_deeplab") == 2
    for path, value, message in (
        (f"{D}.max_resize_value", [65], "is [65]; expected 0, since depth cannot"),
        (
            f"{M}.vip_deeplab.depth_head.min_value_after_activation",
            88,
            "expected more than min_value_after_activation, 88",
        ),
        (
            f"{M}.vip_deeplab.instance.next_regression_head",
            None,
            "next_regression_head is not set",
        ),
        (
            f"{A}.panoptic_copy_paste.panoptic_copy_paste_scale",
            1,
            "is 1; expected 0 with two frames",
        ),
    ):
        assert message in faults(apply_overrides(config, {path: value}), info)


def test_motion_deeplab() -> None:
    info = get_dataset("kitti_step")
    head = "motion_head { output_channels: 2 head_channels: 32 }"
    config = experiment(
        f"{DECODER} motion_deeplab {{ {HEADS} {head} }}",
        f'{LOSSES} motion_loss {{ name: "l1" }}',
        "use_two_frames: true",
    )
    assert faults(config, info) == ""
    for path, message in (
        (f"{M}.motion_deeplab.motion_head", "motion_head is not set; expected this"),
        (f"{L}.motion_loss", "motion_loss is not set; expected this loss"),
        (f"{D}.use_two_frames", "is false; expected true with motion_deeplab"),
    ):
        assert message in faults(apply_overrides(config, {path: None}), info)


def test_max_deeplab() -> None:
    info = get_dataset("coco_panoptic")
    heads = """max_deeplab {
        pixel_space_head { output_channels: 128 head_channels: 256 }
        auxiliary_low_level { feature_key: "res3" channels_project: 64 }
        auxiliary_semantic_head { output_channels: 134 head_channels: 256 } }"""
    decoder = DECODER.replace("res5", "feature_semantic")
    losses = "pq_style_loss {} mask_id_cross_entropy_loss {}"
    backbone = 'backbone { name: "max_deeplab_s" output_stride: 16 }'
    model = f"{backbone} {decoder} {heads}"
    config = experiment(model, losses, "thing_id_mask_annotations: true")
    assert faults(config, info) == ""
    for path, value, message in (
        (f"{M}.decoder.feature_key", "res5", "expected 'feature_semantic' with max_"),
        (
            f"{M}.backbone.output_stride",
            8,
            "is 8; expected 16 or 32 with max_deeplab_s",
        ),
        (
            f"{M}.backbone.name",
            "resnet50",
            "decoder.feature_key is 'feature_semantic'; expected a feature of resnet50",
        ),
        (f"{D}.thing_id_mask_annotations", False, "expected true with max_deeplab"),
        (f"{D}.max_thing_id", 0, "expected a number above 0"),
        (f"{L}.pq_style_loss", None, "pq_style_loss is not set"),
        (f"{V}.eval_scales", [0.5, 1], "expected a single scale with max_deeplab"),
        (f"{V}.add_flipped_images", True, "expected false with max_deeplab"),
        (
            f"{M}.max_deeplab.auxiliary_semantic_head.output_channels",
            19,
            "is 19; expected 134, the classes of coco_panoptic",
        ),
    ):
        assert message in faults(apply_overrides(config, {path: value}), info)


@pytest.mark.parametrize("kind", ["deeplab_v3", "deeplab_v3_plus"])
def test_semantic_models(kind: str) -> None:
    extra = 'low_level { feature_key: "res2" channels_project: 48 }'
    body = f"num_classes: 19 {extra if kind.endswith('plus') else ''}"
    losses = 'semantic_loss { name: "softmax_cross_entropy" }'
    config = experiment(f"{DECODER} {kind} {{ {body} }}", losses)
    assert faults(config) == ""
    flagged = apply_overrides(
        config,
        {
            f"{M}.{kind}.num_classes": 7,
            f"{L}.center_loss.name": "mse",
            f"{M}.decoder.aspp_use_only_1x1_proj_conv": True,
            f"{M}.decoder.atrous_rates": [],
        },
    )
    told = faults(flagged)
    assert "num_classes is 7; expected 19" in told
    assert "center_loss is set, but the model has no such output" in told
    assert "expected three positive rates" in told


def test_an_axial_decoder_needs_no_rates() -> None:
    decoder = 'decoder { feature_key: "res5" aspp_use_only_1x1_proj_conv: true }'
    config = experiment(f"{decoder} panoptic_deeplab {{ {HEADS} }}", LOSSES)
    assert faults(config) == ""


def test_load_config_applies_overrides(tmp_path: Any) -> None:
    path = tmp_path / "a.textproto"
    path.write_text(format_config(recipe()))
    config = load_config(path, overrides={f"{D}.batch_size": 2})
    assert config.train_dataset_options.batch_size == 2
