"""Checks of a configuration that look at more than one field.

Reading a file has checked names and types. Here everything else that would stop a
training, an evaluation or a conversion later is looked for, and all faults are
reported at once, each with its place in the file and, where there is one, the nearest
value that would do.
"""

from collections.abc import Callable, Iterable

from deeplab2_edge.config.backbones import backbone_info, unknown_backbone
from deeplab2_edge.config.schema import (
    META_ARCHITECTURES,
    DatasetOptions,
    DecoderOptions,
    EvaluatorOptions,
    ExperimentOptions,
    HeadOptions,
    InstanceOptions,
    LossOptions,
    LowLevelOptions,
    Message,
    ModelOptions,
    SolverOptions,
    TrainerOptions,
    walk,
)
from deeplab2_edge.config.sizes import expected_size, fits_stride
from deeplab2_edge.config.textformat import nearest
from deeplab2_edge.datasets.info import DatasetInfo
from deeplab2_edge.errors import ConfigError

_OUTPUT_STRIDES = (4, 8, 16, 32)
_CONV_TYPES = ("depthwise_separable_conv", "standard_conv")
_PASTE_OPTIONS = ("random", "none", "all")
_POLICIES = (
    "simple_classification_policy",
    "simple_classification_policy_magnitude_scale_0.2",
)
_RAW_FORMATS = ("two_channel_png", "three_channel_png", "two_channel_numpy_array")
_PIXEL_LOSSES = ("l1", "mse")

# Which losses an architecture is trained with: (needed, allowed besides).
_SEMANTIC_LOSSES = {"semantic_loss"}
_PANOPTIC_LOSSES = _SEMANTIC_LOSSES | {"center_loss", "regression_loss"}
_MAX_LOSSES = {"pq_style_loss", "mask_id_cross_entropy_loss"}
_MAX_AUXILIARY_LOSSES = {"semantic_loss", "instance_discrimination_loss"}

# Loss field -> names it may have. The mask transformer losses need none.
_LOSS_NAMES = {
    "semantic_loss": ("softmax_cross_entropy",),
    "center_loss": _PIXEL_LOSSES,
    "regression_loss": _PIXEL_LOSSES,
    "motion_loss": _PIXEL_LOSSES,
    "next_regression_loss": _PIXEL_LOSSES,
    "depth_loss": ("depth_loss",),
}


def validate_config(
    config: ExperimentOptions,
    dataset_info: DatasetInfo | None = None,
    *,
    needs: Iterable[str] = (),
) -> None:
    """Checks that the parts of a configuration fit together.

    A section that is not set is not checked, so a file with a model alone is fine.

    Args:
        config: The experiment.
        dataset_info: The data set it is for; without it, class counts and what the
            data set offers are not checked.
        needs: Sections that must be set for the work at hand, e.g.
            `("model_options", "train_dataset_options")`.

    Raises:
        ConfigError: If anything is wrong; the message lists all faults.
    """
    report = _Report()
    for section in needs:
        if not config.has(section):
            report.add(config, "", section, "is not set; expected it for this task")
    if config.has("model_options"):
        _check_model(config.model_options, report)
        _check_frames(config, report)
        if dataset_info is not None:
            _check_classes(config.model_options, dataset_info, report)
    if config.has("trainer_options"):
        _check_trainer(config.trainer_options, report)
        if config.has("model_options") and config.trainer_options.has("loss_options"):
            _check_losses(
                config.trainer_options.loss_options, config.model_options, report
            )
    for section in ("train_dataset_options", "eval_dataset_options"):
        if config.has(section):
            _check_dataset(config, section, report)
    if config.has("evaluator_options"):
        _check_evaluator(config, dataset_info, report)
    report.raise_faults()


class _Report:
    """Collects faults: `file:line: path is value; what would be right`."""

    def __init__(self) -> None:
        self._faults: list[str] = []

    def add(self, owner: Message, path: str, field: str, fault: str) -> None:
        place = owner.location(field)
        name = f"{path}.{field}" if path else field
        self._faults.append(f"{place + ': ' if place else ''}{name} {fault}")

    def expect(
        self, is_right: bool, owner: Message, path: str, field: str, expected: str
    ) -> None:
        """Adds `field is <its value>; expected ...` unless it is right."""
        if not is_right:
            value = _shown(getattr(owner, field))
            self.add(owner, path, field, f"is {value}; expected {expected}")

    def choice(
        self, owner: Message, path: str, field: str, allowed: Iterable[str]
    ) -> None:
        value, names = getattr(owner, field), tuple(allowed)
        self.expect(
            value in names,
            owner,
            path,
            field,
            f"{' or '.join(names)}{nearest(value, names)}",
        )

    def numbers(
        self,
        owner: Message,
        path: str,
        expected: str,
        is_right: Callable[[float], bool],
        *fields: str,
    ) -> None:
        for field in fields:
            self.expect(is_right(getattr(owner, field)), owner, path, field, expected)

    def raise_faults(self) -> None:
        if len(self._faults) == 1:
            raise ConfigError(self._faults[0])
        if self._faults:
            lines = "".join(f"\n  {fault}" for fault in self._faults)
            raise ConfigError(
                f"{len(self._faults)} faults in the configuration:{lines}"
            )


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_shown(item) for item in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.7g}" if isinstance(value, float) else repr(value)


def _either(values: Iterable[object]) -> str:
    *most, last = (str(value) for value in values)
    return f"{', '.join(most)} or {last}" if most else last


def _is_positive(number: float) -> bool:
    return number > 0


def _is_not_negative(number: float) -> bool:
    return number >= 0


def _is_fraction(number: float) -> bool:
    return 0 <= number <= 1


# Model ---------------------------------------------------------------------------


def _check_model(model: ModelOptions, report: _Report) -> None:
    path = "model_options"
    _check_backbone(model, report)
    _check_feature_keys(model, report)
    if model.meta_architecture is None:
        report.add(
            model,
            path,
            "meta_architecture",
            f"is not set; expected one of {', '.join(META_ARCHITECTURES)}",
        )
        return
    # DeepLabv3, v3+ and Motion-DeepLab always build all five ASPP branches.
    is_five_branch = not (
        model.has("panoptic_deeplab")
        or model.has("vip_deeplab")
        or model.has("max_deeplab")
    )
    _check_decoder(model.decoder, f"{path}.decoder", report, is_five_branch)
    if model.has("max_deeplab"):
        report.expect(
            model.decoder.feature_key == "feature_semantic",
            model.decoder,
            f"{path}.decoder",
            "feature_key",
            "'feature_semantic' with max_deeplab",
        )
    path = f"{path}.{model.meta_architecture}"
    if model.deeplab_v3 is not None:
        report.numbers(
            model.deeplab_v3, path, "at least 1", _is_positive, "num_classes"
        )
    elif model.deeplab_v3_plus is not None:
        plus = model.deeplab_v3_plus
        report.numbers(plus, path, "at least 1", _is_positive, "num_classes")
        _check_low_level([plus.low_level], f"{path}.low_level", report)
    elif model.max_deeplab is not None:
        heads = model.max_deeplab
        for field in ("pixel_space_head", "auxiliary_semantic_head"):
            _check_head(heads, field, path, report)
        _check_low_level(
            heads.auxiliary_low_level, f"{path}.auxiliary_low_level", report
        )
    elif model.motion_deeplab is not None:
        motion = model.motion_deeplab
        _check_head(motion, "semantic_head", path, report)
        _check_head(motion, "motion_head", path, report, channels=2)
        _check_low_level(motion.low_level, f"{path}.low_level", report)
        _check_instance(motion.instance, f"{path}.instance", report, True)
    else:
        _check_panoptic(model, path, report)


def _check_backbone(model: ModelOptions, report: _Report) -> None:
    backbone, path = model.backbone, "model_options.backbone"
    info = backbone_info(backbone.name)
    if fault := unknown_backbone(backbone.name):
        report.add(backbone, path, "name", f"is {backbone.name!r}; {fault}")
    strides = info.output_strides if info is not None else _OUTPUT_STRIDES
    report.expect(
        backbone.output_stride in strides,
        backbone,
        path,
        "output_stride",
        f"{_either(strides)} with {backbone.name}",
    )
    report.choice(backbone, path, "drop_path_schedule", ("constant", "linear"))
    report.expect(
        0 < backbone.drop_path_keep_prob <= 1,
        backbone,
        path,
        "drop_path_keep_prob",
        "a probability above 0, at most 1",
    )
    report.numbers(
        backbone,
        path,
        "a number above 0",
        _is_positive,
        "stem_width_multiplier",
        "backbone_width_multiplier",
        "backbone_layer_multiplier",
    )
    if info is not None and info.family == "mobilenet_v3":
        for field, needed in (
            ("use_squeeze_and_excite", info.use_squeeze_and_excite),
            ("drop_path_keep_prob", 1.0),
            ("backbone_layer_multiplier", 1.0),
            ("use_sac_beyond_stride", -1),
        ):
            report.expect(
                getattr(backbone, field) == needed,
                backbone,
                path,
                field,
                f"{_shown(needed)} with {backbone.name}",
            )


def _check_feature_keys(model: ModelOptions, report: _Report) -> None:
    """Looks for features the backbone does not have; of one's own nothing is known."""
    info = backbone_info(model.backbone.name)
    if info is None:
        return
    for path, owner, field in walk(model, "model_options"):
        if field == "feature_key" and (key := getattr(owner, field)):
            report.expect(
                key in info.endpoints,
                owner,
                path.removesuffix(".feature_key"),
                field,
                f"a feature of {model.backbone.name}: {_either(info.endpoints)}"
                f"{nearest(key, info.endpoints)}",
            )


def _check_decoder(
    decoder: DecoderOptions, path: str, report: _Report, is_five_branch: bool
) -> None:
    report.expect(
        bool(decoder.feature_key), decoder, path, "feature_key", "e.g. 'res5'"
    )
    report.numbers(
        decoder, path, "at least 1", _is_positive, "decoder_channels", "aspp_channels"
    )
    report.choice(decoder, path, "decoder_conv_type", _CONV_TYPES)
    if is_five_branch or not decoder.aspp_use_only_1x1_proj_conv:
        rates = decoder.atrous_rates
        report.expect(
            len(rates) == 3 and min(rates) > 0,
            decoder,
            path,
            "atrous_rates",
            "three positive rates; customary are 12, 24, 36 at output_stride 8, "
            "6, 12, 18 at 16 and 3, 6, 9 at 32",
        )


def _check_low_level(
    levels: Iterable[LowLevelOptions], path: str, report: _Report
) -> None:
    for level in levels:
        report.expect(
            bool(level.feature_key), level, path, "feature_key", "e.g. 'res3'"
        )
        report.numbers(level, path, "at least 1", _is_positive, "channels_project")


def _check_head(
    owner: Message,
    field: str,
    path: str,
    report: _Report,
    *,
    channels: int | None = None,
) -> None:
    head: HeadOptions | None = getattr(owner, field)
    if head is None:
        report.add(owner, path, field, "is not set; expected this head")
        return
    path = f"{path}.{field}"
    report.expect(
        head.output_channels > 0
        if channels is None
        else head.output_channels == channels,
        head,
        path,
        "output_channels",
        "at least 1" if channels is None else str(channels),
    )
    report.numbers(head, path, "at least 1", _is_positive, "head_channels")
    report.choice(head, path, "head_conv_type", _CONV_TYPES)


def _check_instance(
    instance: InstanceOptions, path: str, report: _Report, is_five_branch: bool = False
) -> None:
    _check_head(instance, "center_head", path, report, channels=1)
    _check_head(instance, "regression_head", path, report, channels=2)
    _check_low_level(instance.low_level_override, f"{path}.low_level_override", report)
    if instance.instance_decoder_override is not None:
        _check_decoder(
            instance.instance_decoder_override,
            f"{path}.instance_decoder_override",
            report,
            is_five_branch,
        )


def _check_panoptic(model: ModelOptions, path: str, report: _Report) -> None:
    options = model.panoptic_deeplab or model.vip_deeplab
    assert options is not None
    _check_head(options, "semantic_head", path, report)
    _check_low_level(options.low_level, f"{path}.low_level", report)
    if options.instance.enable:
        _check_instance(options.instance, f"{path}.instance", report)
        if model.has("vip_deeplab"):
            _check_head(
                options.instance,
                "next_regression_head",
                f"{path}.instance",
                report,
                channels=2,
            )
    if model.has("vip_deeplab") and options.depth_head is not None:
        _check_head(options, "depth_head", path, report, channels=1)
        low = options.depth_head.min_value_after_activation
        report.expect(
            options.depth_head.max_value_after_activation > low,
            options.depth_head,
            f"{path}.depth_head",
            "max_value_after_activation",
            f"more than min_value_after_activation, {low:g}",
        )


def _check_classes(model: ModelOptions, info: DatasetInfo, report: _Report) -> None:
    """Compares the class count of the semantic output with the data set."""
    owner: Message | None
    if model.meta_architecture is None:
        return
    path, field = f"model_options.{model.meta_architecture}", "output_channels"
    if (plain := model.deeplab_v3 or model.deeplab_v3_plus) is not None:
        owner, field = plain, "num_classes"
    elif model.max_deeplab is not None:
        owner = model.max_deeplab.auxiliary_semantic_head
        path += ".auxiliary_semantic_head"
    else:
        options = model.panoptic_deeplab or model.vip_deeplab or model.motion_deeplab
        owner = options.semantic_head if options is not None else None
        path += ".semantic_head"
    if owner is not None:
        report.expect(
            getattr(owner, field) == info.num_classes,
            owner,
            path,
            field,
            f"{info.num_classes}, the classes of {info.name}",
        )
    vip = model.vip_deeplab
    if vip is not None and vip.depth_head is not None and not info.is_depth:
        report.add(
            vip,
            "model_options.vip_deeplab",
            "depth_head",
            f"is set, but {info.name} has no depth; expected no depth_head",
        )
    if (vip is not None or model.has("motion_deeplab")) and not info.is_video:
        report.add(
            model,
            "model_options",
            model.meta_architecture,
            f"needs video, but {info.name} has single images; expected a video data "
            "set or panoptic_deeplab",
        )


def _check_frames(config: ExperimentOptions, report: _Report) -> None:
    """Compares the frames that are read with those the architecture takes."""
    model = config.model_options
    flags = {
        "use_two_frames": model.has("motion_deeplab"),
        "use_next_frame": model.has("vip_deeplab"),
    }
    for section in ("train_dataset_options", "eval_dataset_options"):
        if not config.has(section):
            continue
        options: DatasetOptions = getattr(config, section)
        for field, needed in flags.items():
            report.expect(
                getattr(options, field) == needed,
                options,
                section,
                field,
                f"{_shown(needed)} with {model.meta_architecture}",
            )
        if model.has("max_deeplab"):
            report.expect(
                options.thing_id_mask_annotations,
                options,
                section,
                "thing_id_mask_annotations",
                "true with max_deeplab",
            )
        has_depth = model.vip_deeplab is not None and model.vip_deeplab.has(
            "depth_head"
        )
        for field in ("min_resize_value", "max_resize_value"):
            report.expect(
                not has_depth or not any(v > 0 for v in getattr(options, field)),
                options,
                section,
                field,
                "0, since depth cannot be resized",
            )


# Training ------------------------------------------------------------------------


def _check_losses(losses: LossOptions, model: ModelOptions, report: _Report) -> None:
    path = "trainer_options.loss_options"
    needed, allowed = _losses_of(model)
    if needed:
        for field in losses.specs():
            if field in needed and not losses.has(field):
                report.add(losses, path, field, "is not set; expected this loss")
            elif losses.has(field) and field not in needed | allowed:
                report.add(
                    losses,
                    path,
                    field,
                    "is set, but the model has no such output; expected only "
                    f"{', '.join(sorted(needed | allowed))}",
                )
    for field in losses.present():
        loss, place = getattr(losses, field), f"{path}.{field}"
        if field in _LOSS_NAMES:
            report.choice(loss, place, "name", _LOSS_NAMES[field])
        report.numbers(loss, place, "0 or more", _is_not_negative, "weight")
        report.numbers(loss, place, "a fraction in 0..1", _is_fraction, "top_k_percent")


def _losses_of(model: ModelOptions) -> tuple[set[str], set[str]]:
    """Returns the losses an architecture needs and those it also allows."""
    if model.has("deeplab_v3") or model.has("deeplab_v3_plus"):
        return _SEMANTIC_LOSSES, set()
    if model.has("max_deeplab"):
        return _MAX_LOSSES, _MAX_AUXILIARY_LOSSES
    if model.has("motion_deeplab"):
        return _PANOPTIC_LOSSES | {"motion_loss"}, set()
    options = model.panoptic_deeplab or model.vip_deeplab
    if options is None:
        return set(), set()
    needed = _PANOPTIC_LOSSES if options.instance.enable else _SEMANTIC_LOSSES
    if model.vip_deeplab is not None:
        if options.instance.enable:
            needed = needed | {"next_regression_loss"}
        if options.depth_head is not None:
            needed = needed | {"depth_loss"}
    return needed, set()


def _check_trainer(trainer: TrainerOptions, report: _Report) -> None:
    path = "trainer_options"
    report.numbers(
        trainer,
        path,
        "at least 1",
        _is_positive,
        "num_checkpoints_to_keep",
        "save_checkpoints_steps",
        "save_summaries_steps",
        "steps_per_loop",
    )
    loop, summaries = trainer.steps_per_loop, trainer.save_summaries_steps
    if loop > 0 and summaries > 0:
        report.expect(
            summaries % loop == 0,
            trainer,
            path,
            "save_summaries_steps",
            f"a multiple of steps_per_loop, {loop}, which has no other effect and may "
            "be set to 1. Nearest that fits: "
            f"{max(round(summaries / loop), 1) * loop}",
        )
    if trainer.has("solver_options"):
        _check_solver(trainer.solver_options, report)


def _check_solver(solver: SolverOptions, report: _Report) -> None:
    path = "trainer_options.solver_options"
    report.choice(solver, path, "learning_policy", ("poly", "cosine"))
    report.choice(solver, path, "optimizer", ("adam", "sgd", "adamw"))
    report.numbers(
        solver,
        path,
        "a number above 0",
        _is_positive,
        "base_learning_rate",
        "batchnorm_epsilon",
        "clip_gradient_norm",
        "training_number_of_steps",
    )
    report.numbers(
        solver,
        path,
        "0 or more",
        _is_not_negative,
        "poly_learning_power",
        "poly_end_learning_rate",
        "weight_decay",
        "adamw_weight_decay",
        "backbone_learning_rate_multiplier",
    )
    report.numbers(
        solver, path, "a fraction in 0..1", _is_fraction, "batchnorm_momentum"
    )
    steps = solver.training_number_of_steps
    report.expect(
        0 <= solver.warmup_steps <= max(steps, 0),
        solver,
        path,
        "warmup_steps",
        f"0..{steps}, the training_number_of_steps",
    )


# Data ----------------------------------------------------------------------------


def _check_dataset(config: ExperimentOptions, section: str, report: _Report) -> None:
    options: DatasetOptions = getattr(config, section)
    _check_crop(config, section, report)
    _check_resize(options, section, report)
    report.numbers(
        options,
        section,
        "a number above 0",
        _is_positive,
        "sigma",
        "small_instance_weight",
        "max_thing_id",
    )
    report.numbers(
        options,
        section,
        "0 or more",
        _is_not_negative,
        "resize_factor",
        "small_instance_threshold",
    )
    if options.has("file_pattern"):
        is_evaluation = section == "eval_dataset_options"
        report.expect(
            options.batch_size == 1 if is_evaluation else options.batch_size > 0,
            options,
            section,
            "batch_size",
            "1 for evaluation" if is_evaluation else "at least 1",
        )
    if options.has("augmentations"):
        _check_augmentations(options, f"{section}.augmentations", report)


def _check_crop(config: ExperimentOptions, section: str, report: _Report) -> None:
    options: DatasetOptions = getattr(config, section)
    crop = options.crop_size
    if len(crop) != 2:
        report.add(
            options,
            section,
            "crop_size",
            f"is {_shown(crop)}; expected two numbers: height, width",
        )
        return
    stride = config.model_options.backbone.output_stride
    if not config.has("model_options") or stride < 1:
        return
    report.expect(
        fits_stride(crop, stride),
        options,
        section,
        "crop_size",
        expected_size(crop, stride, as_option=False),
    )


def _check_resize(options: DatasetOptions, path: str, report: _Report) -> None:
    for field in ("min_resize_value", "max_resize_value"):
        report.expect(
            len(getattr(options, field)) <= 2,
            options,
            path,
            field,
            "nothing, one number, or height and width",
        )
    largest = options.max_resize_value
    if len(options.crop_size) == 2 and 1 <= len(largest) <= 2 and min(largest) > 0:
        sides = largest if len(largest) == 2 else (largest[0], largest[0])
        report.expect(
            all(m <= c for m, c in zip(sides, options.crop_size, strict=True)),
            options,
            path,
            "max_resize_value",
            f"at most crop_size, {list(options.crop_size)}",
        )


def _check_augmentations(options: DatasetOptions, path: str, report: _Report) -> None:
    augmentations = options.augmentations
    low = augmentations.min_scale_factor
    report.numbers(
        augmentations, path, "a number above 0", _is_positive, "min_scale_factor"
    )
    report.numbers(
        augmentations, path, "0 or more", _is_not_negative, "scale_factor_step_size"
    )
    report.expect(
        augmentations.max_scale_factor >= low,
        augmentations,
        path,
        "max_scale_factor",
        f"at least min_scale_factor, {low:g}",
    )
    if augmentations.autoaugment_policy_name:
        report.choice(augmentations, path, "autoaugment_policy_name", _POLICIES)
    paste = augmentations.panoptic_copy_paste
    if paste is None:
        return
    path = f"{path}.panoptic_copy_paste"
    report.numbers(
        paste, path, "0 or more", _is_not_negative, "panoptic_copy_paste_scale"
    )
    for kind in ("thing", "stuff", "void"):
        report.choice(paste, path, f"panoptic_copy_paste_{kind}_option", _PASTE_OPTIONS)
    report.expect(
        not (options.use_two_frames or options.use_next_frame)
        or paste.panoptic_copy_paste_scale == 0,
        paste,
        path,
        "panoptic_copy_paste_scale",
        "0 with two frames, which cannot be pasted into",
    )


# Evaluation ----------------------------------------------------------------------


def _check_evaluator(
    config: ExperimentOptions, info: DatasetInfo | None, report: _Report
) -> None:
    evaluator, path = config.evaluator_options, "evaluator_options"
    report.expect(
        evaluator.eval_steps == -1 or evaluator.eval_steps > 0,
        evaluator,
        path,
        "eval_steps",
        "-1 (the whole set) or at least 1",
    )
    report.numbers(evaluator, path, "at least 1", _is_positive, "eval_interval")
    kernel = evaluator.nms_kernel
    report.expect(
        kernel > 0 and kernel % 2 == 1,
        evaluator,
        path,
        "nms_kernel",
        f"an odd number, so that a window has a middle. Nearest: {max(kernel, 0) + 1}",
    )
    report.numbers(
        evaluator,
        path,
        "0 or more",
        _is_not_negative,
        "stuff_area_limit",
        "thing_area_limit",
        "num_vis_samples",
    )
    report.expect(
        all(_is_positive(scale) for scale in evaluator.eval_scales),
        evaluator,
        path,
        "eval_scales",
        "numbers above 0",
    )
    report.choice(evaluator, path, "raw_panoptic_format", _RAW_FORMATS)
    report.choice(
        evaluator, path, "transformer_post_processing", ("pixelwise", "maskwise")
    )
    is_maskwise = evaluator.transformer_post_processing == "maskwise"
    if is_maskwise and not evaluator.has("maskwise_postprocessing"):
        report.add(
            evaluator,
            path,
            "maskwise_postprocessing",
            "is not set; expected it with transformer_post_processing 'maskwise'",
        )
    if config.model_options.has("max_deeplab"):
        _check_single_pass(evaluator, report)
    if info is not None and evaluator.save_raw_predictions:
        report.expect(
            not evaluator.convert_raw_to_eval_ids or info.category_ids is not None,
            evaluator,
            path,
            "convert_raw_to_eval_ids",
            f"false, since {info.name} has no mapping to evaluation ids",
        )


def _check_single_pass(evaluator: EvaluatorOptions, report: _Report) -> None:
    report.expect(
        len(evaluator.eval_scales) <= 1,
        evaluator,
        "evaluator_options",
        "eval_scales",
        "a single scale with max_deeplab",
    )
    report.expect(
        not evaluator.add_flipped_images,
        evaluator,
        "evaluator_options",
        "add_flipped_images",
        "false with max_deeplab",
    )
