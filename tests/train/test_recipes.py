"""The shipped recipes: readable, valid, and true to the published experiments."""

import re
from importlib.resources import files
from pathlib import Path

import pytest

from deeplab2_edge.config import (
    AugmentationOptions,
    BackboneOptions,
    ExperimentOptions,
    apply_overrides,
    format_config,
    parse_config,
    unresolved_placeholders,
    validate_config,
)
from deeplab2_edge.datasets.registry import get_dataset

FOLDER = Path(str(files("deeplab2_edge.train.recipes")))
RECIPES = sorted(path.stem for path in FOLDER.glob("*.textproto"))
OURS = {
    "camvid_mobilenet_v3_large",
    "camvid_mobilenet_v3_large_edge",
    "camvid_mobilenet_v3_small",
    "cityscapes_panoptic_mobilenet_v3_large_edge_os16_res513x1025",
    "cityscapes_panoptic_mobilenet_v3_small_edge_os16_res513x1025",
    "synthetic_street_panoptic_mobilenet_v3_large",
    "synthetic_street_panoptic_mobilenet_v3_large_edge",
    "synthetic_street_mobilenet_v3_small",
    "synthetic_street_max_deeplab_s",
    *(
        f"synthetic_street_axial_{backbone}"
        for backbone in ("axial_resnet_s", "axial_swidernet", "max_deeplab_s_backbone")
    ),
    *(
        f"synthetic_street_panoptic_{backbone}"
        for backbone in (
            "mobilenet_v3_small_minimalistic",
            "resnet50",
            "swidernet_sac",
            "wide_resnet41",
        )
    ),
    *(
        f"synthetic_street_{architecture}_mobilenet_v3_small"
        for architecture in ("deeplabv3", "deeplabv3plus", "motion", "vip")
    ),
    *(
        f"cityscapes_{architecture}_mobilenet_v3_{size}_os16_res513x1025"
        for architecture in ("deeplabv3", "deeplabv3plus", "panoptic")
        for size in ("small", "large")
    ),
}
EXAMPLES = {
    "example_cityscapes_deeplabv3",
    "example_cityscapes_deeplabv3_mv3l",
    "example_cityscapes_deeplabv3plus",
}
PLACEHOLDERS = {
    "${EXPERIMENT_NAME}": "test",
    "${INIT_CHECKPOINT}": "checkpoint",
    "${TRAIN_SET}": "train-*",
    "${VAL_SET}": "val-*",
}
POLICIES = {
    "": "-",
    "simple_classification_policy": "AA1",
    "simple_classification_policy_magnitude_scale_0.2": "AA0.2",
}


def text_of(name: str) -> str:
    return (FOLDER / f"{name}.textproto").read_text(encoding="utf-8")


def recipe(name: str) -> ExperimentOptions:
    return parse_config(text_of(name), source=name)


def published_rows() -> dict[str, str]:
    """Returns the row of each published experiment by the name of its recipe."""
    table = Path(__file__).parents[1] / "golden" / "recipes" / "published.txt"
    rows = {}
    for row in table.read_text(encoding="utf-8").splitlines()[1:]:
        published, _, facts = row.partition(" | ")
        rows[name_of(published)] = f"{published} | {facts}"
    return rows


def name_of(published: str) -> str:
    """`<data set>_<architecture>_<file>`; `max` stands in the file's name already."""
    dataset, architecture, file = published.split("/")
    # There is no other way of merging here.
    file = file.removesuffix("_merge_with_pure_tf_func")
    architecture = architecture.removesuffix("_deeplab")
    parts = (dataset, file) if architecture == "max" else (dataset, architecture, file)
    return "_".join(parts)


PUBLISHED = published_rows()


def test_there_is_a_recipe_for_every_published_experiment() -> None:
    assert len(PUBLISHED) == 38
    assert set(RECIPES) == set(PUBLISHED) | EXAMPLES | OURS


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_valid_and_survives_writing(name: str) -> None:
    config = recipe(name)
    assert parse_config(format_config(config)) == config
    filled = apply_overrides(config, PLACEHOLDERS)
    assert unresolved_placeholders(filled) == []
    info = get_dataset(config.train_dataset_options.dataset)
    is_example = name in EXAMPLES
    needs = () if is_example else ("trainer_options", "eval_dataset_options")
    validate_config(filled, info, needs=("model_options", *needs))


@pytest.mark.parametrize("name", RECIPES)
def test_a_header_says_where_a_recipe_is_from_and_how_good(name: str) -> None:
    text = text_of(name)
    header = text.partition("\n\n")[0]
    assert header.startswith("# proto-message: ExperimentOptions\n#\n# ")
    origin = re.findall(r"^# Published as: (.*)$", header, re.MULTILINE)
    accuracy = re.findall(r"^# Accuracy: (.*)$", header, re.MULTILINE)
    assert len(origin) == len(accuracy) == 1
    if name in PUBLISHED:
        assert origin[0] == PUBLISHED[name].split(" | ")[0]
        assert accuracy[0].endswith("not measured here).") or (
            accuracy[0] == "none published."
        )
    else:
        assert (origin[0] == "nothing; this recipe is ours.") is (name in OURS)
    if name not in EXAMPLES:
        assert f"\n#   deeplab2-edge train {name} --output runs" in header
    for placeholder in PLACEHOLDERS:
        assert (f"'{placeholder}=" in header) is (placeholder in text[len(header) :])


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_published_settings(name: str) -> None:
    published = PUBLISHED[name].split(" | ")[0]
    assert f"{published} | {described(recipe(name))}" == PUBLISHED[name]


def described(config: ExperimentOptions) -> str:
    """Writes an experiment as a row of the published table."""
    solver = config.trainer_options.solver_options
    train, evaluation = config.train_dataset_options, config.eval_dataset_options
    trainer, evaluator = config.trainer_options, config.evaluator_options
    crop, eval_crop = (
        "x".join(str(side) for side in options.crop_size)
        for options in (train, evaluation)
    )
    is_max = config.model_options.has("max_deeplab")
    assert train.small_instance_weight == 3
    return " | ".join(
        (
            described_backbone(config.model_options.backbone),
            described_rates(config),
            crop if crop == eval_crop else f"{crop} (eval {eval_crop})",
            str(train.batch_size),
            f"{solver.base_learning_rate:.6g}",
            str(solver.warmup_steps) if solver.warmup_steps else "-",
            str(solver.training_number_of_steps),
            solver.optimizer
            + (
                f" bbx{solver.backbone_learning_rate_multiplier:.6g}"
                if solver.has("backbone_learning_rate_multiplier")
                else ""
            ),
            described_scales(train.augmentations),
            POLICIES[train.augmentations.autoaugment_policy_name],
            "w3" if train.increase_small_instance_weights else "-",
            f"{evaluator.stuff_area_limit}/{evaluator.thing_area_limit}"
            if is_max
            else str(evaluator.stuff_area_limit),
            "-" if is_max else str(evaluator.nms_kernel),
            f"{trainer.save_checkpoints_steps}/{trainer.save_summaries_steps}/"
            f"{trainer.steps_per_loop}",
            f"eps{solver.batchnorm_epsilon:.6g}"
            if solver.has("batchnorm_epsilon")
            else "-",
        )
    )


def described_backbone(backbone: BackboneOptions) -> str:
    assert backbone.stem_width_multiplier == backbone.backbone_width_multiplier == 1
    layers = backbone.backbone_layer_multiplier
    words = [
        backbone.name,
        f"os{backbone.output_stride}",
        "SE" if backbone.use_squeeze_and_excite else "",
        f"x{layers:g}" if layers != 1 else "",
        f"SAC{backbone.use_sac_beyond_stride}"
        if backbone.use_sac_beyond_stride != -1
        else "",
    ]
    if backbone.drop_path_keep_prob != 1:
        assert backbone.drop_path_schedule == "linear"
        words.append(f"dp{backbone.drop_path_keep_prob:.6g}lin")
    return " ".join(word for word in words if word)


def described_rates(config: ExperimentOptions) -> str:
    model = config.model_options
    options = model.panoptic_deeplab or model.vip_deeplab or model.motion_deeplab
    decoders = [model.decoder]
    if options is not None and options.instance.enable:
        assert options.instance.instance_decoder_override is not None
        decoders.append(options.instance.instance_decoder_override)
    (rates,) = {
        "1x1"
        if decoder.aspp_use_only_1x1_proj_conv
        else ",".join(str(rate) for rate in decoder.atrous_rates)
        for decoder in decoders
    }
    assert not (rates == "1x1" and any(decoder.atrous_rates for decoder in decoders))
    return rates


def described_scales(augmentations: AugmentationOptions) -> str:
    assert f"{augmentations.scale_factor_step_size:.6g}" == "0.1"
    assert augmentations.panoptic_copy_paste is None
    low, high = augmentations.min_scale_factor, augmentations.max_scale_factor
    return f"{low:.6g}-{high:.6g}"


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_shares_what_all_published_files_share(name: str) -> None:
    config = recipe(name)
    solver, evaluator = config.trainer_options.solver_options, config.evaluator_options
    assert solver.use_sync_batchnorm
    assert solver.learning_policy == "poly"
    assert solver.poly_end_learning_rate == solver.weight_decay == 0
    assert f"{solver.batchnorm_momentum:.6g}" == "0.99"
    assert f"{solver.poly_learning_power:.6g}" == "0.9"
    assert not solver.use_gradient_clipping
    assert f"{evaluator.center_score_threshold:.6g}" == "0.1"
    assert evaluator.keep_k_centers == 400
    assert evaluator.save_predictions and not evaluator.save_raw_predictions
    assert config.train_dataset_options.sigma == 8
    assert config.eval_dataset_options.batch_size == 1
    is_coco = name.startswith("coco")
    for options in (config.train_dataset_options, config.eval_dataset_options):
        side = options.crop_size[0] if is_coco else 0
        assert options.min_resize_value == options.max_resize_value == (side,)
    has_merging = not (config.model_options.has("max_deeplab") or "semseg" in name)
    assert evaluator.merge_semantic_and_instance_with_tf_op is not has_merging
    timeouts = {"kitti_p": 10000, "kitti_m": 21600, "motchal": 10000}
    assert evaluator.continuous_eval_timeout == timeouts.get(name[:7], -1)
    assert evaluator.convert_raw_to_eval_ids is not name.startswith("kitti_panoptic")
    both = ("${TRAIN_SET}", "${VAL_SET}")
    assert config.train_dataset_options.file_pattern == (
        both if name.endswith("trainval") else both[:1]
    )
    assert unresolved_placeholders(config) == [
        "experiment_name",
        "model_options.initial_checkpoint",
        "train_dataset_options.file_pattern",
        "eval_dataset_options.file_pattern",
    ]


LOSSES = {
    "semantic_loss": ("softmax_cross_entropy", 1, 0.2),
    "center_loss": ("mse", 200, 1),
    "regression_loss": ("l1", 0.01, 1),
}
LOSSES_OF = {
    "panoptic_deeplab": LOSSES,
    "motion_deeplab": {**LOSSES, "motion_loss": ("l1", 0.01, 1)},
    "vip_deeplab": {
        **LOSSES,
        "next_regression_loss": ("l1", 0.01, 1),
        "depth_loss": ("depth_loss", 0.1, 1),
    },
    "max_deeplab": {
        "semantic_loss": ("softmax_cross_entropy", 1, 1),
        "pq_style_loss": ("", 3, 1),
        "mask_id_cross_entropy_loss": ("", 0.3, 1),
        "instance_discrimination_loss": ("", 1, 1),
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_published_losses(name: str) -> None:
    config = recipe(name)
    losses = config.trainer_options.loss_options
    expected = LOSSES_OF[str(config.model_options.meta_architecture)]
    if name.endswith("semseg"):
        expected = {"semantic_loss": expected["semantic_loss"]}
    assert set(losses.present()) == set(expected)
    for field, (kind, weight, fraction) in expected.items():
        loss = getattr(losses, field)
        assert loss.name == kind
        assert loss.weight == pytest.approx(weight)
        assert loss.top_k_percent == pytest.approx(fraction)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_published_branches(name: str) -> None:
    config = recipe(name)
    model, dataset = config.model_options, config.train_dataset_options.dataset
    classes = {"coco_panoptic": 134, "motchallenge_step": 7}.get(dataset, 19)
    assert model.decoder.decoder_channels == model.decoder.aspp_channels == 256
    assert model.decoder.decoder_conv_type == "depthwise_separable_conv"
    if model.max_deeplab is not None:
        heads = model.max_deeplab
        assert model.decoder.feature_key == "feature_semantic"
        assert widths(heads.pixel_space_head) == (256, 128)
        assert widths(heads.auxiliary_semantic_head) == (256, classes)
        assert projections(heads.auxiliary_low_level) == {"res3": 64, "res2": 32}
        return
    assert model.decoder.feature_key == "res5"
    options = model.panoptic_deeplab or model.vip_deeplab or model.motion_deeplab
    assert options is not None
    assert projections(options.low_level) == {"res3": 64, "res2": 32}
    assert widths(options.semantic_head) == (256, classes)
    instance = options.instance
    if name.endswith("semseg"):
        assert instance.present() == ("enable",) and not instance.enable
        return
    assert projections(instance.low_level_override) == {"res3": 32, "res2": 16}
    decoder = instance.instance_decoder_override
    assert decoder is not None
    assert (decoder.decoder_channels, decoder.aspp_channels) == (128, 256)
    assert widths(instance.center_head) == (32, 1)
    assert widths(instance.regression_head) == (32, 2)
    if model.motion_deeplab is not None:
        assert widths(model.motion_deeplab.motion_head) == (32, 2)
    if model.vip_deeplab is not None:
        assert widths(instance.next_regression_head) == (32, 2)
        depth = model.vip_deeplab.depth_head
        assert widths(depth) == (64, 1) and depth is not None
        assert depth.min_value_after_activation == 0
        assert depth.max_value_after_activation == 88


def widths(head: object) -> tuple[int, int]:
    return getattr(head, "head_channels", 0), getattr(head, "output_channels", 0)


def projections(levels: object) -> dict[str, int]:
    assert isinstance(levels, tuple)
    return {level.feature_key: level.channels_project for level in levels}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_example_is_a_network_with_defaults(name: str) -> None:
    config = recipe(name)
    assert config.model_options.decoder.atrous_rates == (6, 12, 18)
    assert not config.model_options.backbone.has("output_stride")
    assert config.train_dataset_options.crop_size == (1025, 2049)
    assert not config.has("trainer_options")
