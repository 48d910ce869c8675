"""Files as they are published: the subset they use, and the odd ones among them."""

import pytest

from deeplab2_edge.config import (
    ExperimentOptions,
    parse_config,
    parse_override,
    unresolved_placeholders,
    validate_config,
)
from deeplab2_edge.errors import ConfigError

# One k-means mask transformer, with every field that only such files set.
KMAX = """# proto-file: deeplab2/config.proto
# proto-message: ExperimentOptions
#
# kMaX-DeepLab with ConvNeXt-T.
experiment_name: "${EXPERIMENT_NAME}"
model_options {
  initial_checkpoint: "${INIT_CHECKPOINT}"
  backbone {
    name: "kmax_convnext_tiny"
    output_stride: 32
    drop_path_keep_prob: 0.7
    pretrained_weights: "${PRETRAINED_WEIGHTS}"
  }
  decoder {
    feature_key: "feature_semantic"
    decoder_channels: 256
    aspp_channels: 256
    atrous_rates: 6
    atrous_rates: 12
    atrous_rates: 18
  }
  max_deeplab {
    pixel_space_head {
      output_channels: 128
      head_channels: 256
    }
    auxiliary_low_level {
      feature_key: "res3"
      channels_project: 64
    }
    auxiliary_low_level {
      feature_key: "res2"
      channels_project: 32
    }
    auxiliary_semantic_head {
      output_channels: 134
      head_channels: 256
    }
    instance_discrimination_sample_k: 4096
    instance_discrimination_sample_temperature: 1.5
    semantic_sample_k: 4096
    semantic_sample_temperature: 2.0
  }
}
trainer_options {
  save_checkpoints_steps: 1000
  save_summaries_steps: 100
  steps_per_loop: 100
  loss_options {
    semantic_loss {
      name: "softmax_cross_entropy"
      weight: 1.0
    }
    pq_style_loss {
      weight: 3.0
    }
    mask_id_cross_entropy_loss {
      weight: 0.3
    }
    instance_discrimination_loss {
      weight: 1.0
    }
  }
  solver_options {
    base_learning_rate: 0.0005
    learning_policy: "poly"
    optimizer: "adamw"
    adamw_weight_decay: 0.05
    warmup_steps: 5000
    training_number_of_steps: 150000
    backbone_learning_rate_multiplier: 0.1
  }
}
train_dataset_options {
  dataset: "coco_panoptic"
  file_pattern: "${TRAIN_SET}"
  batch_size: 64
  crop_size: 1281
  crop_size: 1281
  min_resize_value: 1281
  max_resize_value: 1281
  augmentations {
    min_scale_factor: 0.3
    max_scale_factor: 1.7
    scale_factor_step_size: 0.1
    autoaugment_policy_name: "simple_classification_policy"
    panoptic_copy_paste {
      panoptic_copy_paste_scale: 1.0
    }
  }
  thing_id_mask_annotations: true
}
eval_dataset_options {
  dataset: "coco_panoptic"
  file_pattern: "${VAL_SET}"
  batch_size: 1
  crop_size: 1281
  crop_size: 1281
  min_resize_value: 1281
  max_resize_value: 1281
  thing_id_mask_annotations: true
}
evaluator_options {
  continuous_eval_timeout: -1
  stuff_area_limit: 6400
  thing_area_limit: 400
  transformer_class_confidence_threshold: 0.7
  pixel_confidence_threshold: 0.4
  save_predictions: true
  save_raw_predictions: false
  transformer_post_processing: "maskwise"
  maskwise_postprocessing {
    transformer_class_confidence_threshold_thing: 0.7
    transformer_class_confidence_threshold_stuff: 0.5
    overlapping_threshold: 0.8
    reorder_class_weight: 1.0
    reorder_mask_weight: 1.0
  }
}
"""

# The example that holds a bare model and says so only in its header.
MOTION_EXAMPLE = """# proto-file: deeplab2/model.proto
# proto-message: ModelOptions
#
# An example of Motion-DeepLab.
decoder {
  feature_key: "res5"
  atrous_rates: 6
  atrous_rates: 12
  atrous_rates: 18
}
backbone {
  name: "resnet50"
}
motion_deeplab {
  low_level {
    feature_key: "res3"
    channels_project: 64
  }
  low_level {
    feature_key: "res2"
    channels_project: 32
  }
  instance {
    center_head {
      output_channels: 1
      head_channels: 32
    }
    regression_head {
      output_channels: 2
      head_channels: 32
    }
  }
  semantic_head {
    output_channels: 19
    head_channels: 256
  }
  motion_head {
    output_channels: 2
    head_channels: 32
  }
}
"""


def test_a_later_mask_transformer_is_read() -> None:
    config = parse_config(KMAX)
    backbone = config.model_options.backbone
    assert backbone.has("pretrained_weights")
    assert config.model_options.initial_checkpoint == "${INIT_CHECKPOINT}"
    solver = config.trainer_options.solver_options
    assert solver.optimizer == "adamw"
    assert solver.has("backbone_learning_rate_multiplier")
    assert solver.adamw_weight_decay == pytest.approx(0.05)
    assert config.train_dataset_options.augmentations.has("panoptic_copy_paste")
    assert not config.eval_dataset_options.augmentations.has("panoptic_copy_paste")
    post = config.evaluator_options.maskwise_postprocessing
    assert post is not None and post.overlapping_threshold == pytest.approx(0.8)
    assert unresolved_placeholders(config) == [
        "experiment_name",
        "model_options.backbone.pretrained_weights",
        "model_options.initial_checkpoint",
        "train_dataset_options.file_pattern",
        "eval_dataset_options.file_pattern",
    ]


def test_a_later_mask_transformer_is_told_to_be_out_of_scope_and_nothing_else() -> None:
    with pytest.raises(ConfigError) as caught:
        validate_config(parse_config(KMAX, source="kmax.textproto"))
    assert str(caught.value).startswith(
        "kmax.textproto:9: model_options.backbone.name is 'kmax_convnext_tiny'; not "
        "supported: kMaX-DeepLab is outside this version's scope"
    )


def test_a_later_architecture_is_told_to_be_out_of_scope() -> None:
    later = (
        ": kMaX-DeepLab is outside this version's scope, which ends with MaX-DeepLab"
    )
    with pytest.raises(ConfigError) as caught:
        parse_config("model_options {\n  kmax_deeplab { }\n}", source="a.textproto")
    assert str(caught.value) == (
        f"a.textproto:2: ModelOptions has no field 'kmax_deeplab'{later}"
    )
    with pytest.raises(ConfigError) as caught:
        parse_override(ExperimentOptions, "model_options.kmax_deeplab.x=1")
    assert str(caught.value) == (
        "override model_options.kmax_deeplab.x: ModelOptions has no "
        f"'kmax_deeplab'{later}"
    )


@pytest.mark.tf
@pytest.mark.parametrize("name", ["kmax_convnext_tiny", "kmax_resnet50", "moat_0"])
def test_a_later_encoder_is_not_built(name: str) -> None:
    pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
    from deeplab2_edge.models import build_model

    config = parse_config(KMAX.replace("kmax_convnext_tiny", name))
    with pytest.raises(ConfigError, match=f"'{name}'; not supported: .* outside this"):
        build_model(config, input_size=(65, 65))


def test_the_bare_model_becomes_an_experiment() -> None:
    config = parse_config(MOTION_EXAMPLE)
    assert isinstance(config, ExperimentOptions)
    assert config.model_options.meta_architecture == "motion_deeplab"
    assert config.model_options.decoder.atrous_rates == (6, 12, 18)
    assert config.present() == ("model_options",)
    validate_config(config)


def test_errors_in_a_bare_model_have_their_line() -> None:
    text = MOTION_EXAMPLE.replace("motion_head", "motion_haed")
    with pytest.raises(ConfigError, match=r"^a:37: MotionDeepLabOptions has no field"):
        parse_config(text, source="a")


def test_a_bare_model_without_its_header_says_what_is_missing() -> None:
    body = MOTION_EXAMPLE.partition("decoder")
    with pytest.raises(ConfigError) as caught:
        parse_config(body[1] + body[2], source="a")
    assert str(caught.value) == (
        "a:1: ExperimentOptions has no field 'decoder'; it is a field of ModelOptions: "
        "put it into model_options { }, or begin the file with "
        "'# proto-message: ModelOptions'"
    )


def test_the_order_of_fields_is_free_and_of_repeated_values_is_not() -> None:
    one = parse_config(
        "eval_dataset_options { crop_size: 1 batch_size: 1 crop_size: 2 }"
    )
    two = parse_config(
        "eval_dataset_options { crop_size: 1 crop_size: 2 batch_size: 1 }"
    )
    three = parse_config(
        "eval_dataset_options { crop_size: 2 crop_size: 1 batch_size: 1 }"
    )
    assert one == two
    assert one != three
    assert three.eval_dataset_options.crop_size == (2, 1)


def test_negative_integers_and_single_precision() -> None:
    config = parse_config(
        "evaluator_options { continuous_eval_timeout: -1 eval_scales: 0.1 }"
    )
    assert config.evaluator_options.continuous_eval_timeout == -1
    assert config.evaluator_options.eval_scales == (0.10000000149011612,)


@pytest.mark.parametrize(
    "field",
    [
        "trainer_options { solver_options { backbone_learning_rate_multiplier: 1.0 } }",
        "trainer_options { loss_options { semantic_loss { } } }",
        "train_dataset_options { augmentations { panoptic_copy_paste { } } }",
        "evaluator_options { maskwise_postprocessing { } }",
        'evaluator_options { override_save_dir: "" }',
        'model_options { backbone { pretrained_weights: "" } }',
        "model_options { vip_deeplab { depth_head { } } }",
        "model_options { vip_deeplab { instance { instance_decoder_override { } } } }",
        "model_options { vip_deeplab { instance { next_regression_head { } } } }",
    ],
)
def test_presence_of_an_empty_or_default_value_is_kept(field: str) -> None:
    message = parse_config(field)
    names = field.replace("{", " ").replace("}", " ").replace(":", " ").split()
    for name in names:
        if name in ("1.0", '""'):
            break
        assert message.has(name)
        message = getattr(message, name)
